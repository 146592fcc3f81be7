"""``schema``: the form of manifests, for editors and for readers."""

from typing import Annotated, Final

import typer
from pydantic import BaseModel

from nearcast.cli.completion import kinds
from nearcast.cli.naming import kind_of
from nearcast.cli.options import Format, application, command
from nearcast.cli.screen import show_document, show_table
from nearcast.cli.session import Session
from nearcast.resources.kinds import API_VERSION, KINDS, PLURALS
from nearcast.resources.manifest import schema as schema_of_kind

COMMANDS: Final = {"schema": application()}


@command(COMMANDS["schema"], "schema", examples=("schema", "schema deployment", "schema policy -o yaml"))
def schema(
    session: Session,
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="site, model, deployment or policy.", autocompletion=kinds)
    ] = None,
    output: Annotated[Format | None, typer.Option("--output", "-o", help="How to print the data.")] = None,
) -> None:
    """Print the JSON Schema of a kind, or list the kinds. No control plane is asked."""
    if kind is not None:
        form = Format.JSON if output in {None, Format.TABLE} else output
        show_document(schema_of_kind(kind_of(kind)), form or Format.JSON)
        return
    rows = [(name, PLURALS[name], API_VERSION, _summary(KINDS[name])) for name in KINDS]
    if output in {None, Format.TABLE}:
        show_table(("kind", "plural", "apiVersion", "what it is"), rows)
        return
    fields = ("kind", "plural", "apiVersion", "description")
    show_document([dict(zip(fields, row, strict=True)) for row in rows], output or Format.JSON)


def _summary(kind: type[BaseModel]) -> str:
    """What the kind's ``spec`` is, in one line."""
    spec = kind.model_fields["spec"].annotation
    return ((spec.__doc__ if spec is not None else "") or "").partition("\n")[0]
