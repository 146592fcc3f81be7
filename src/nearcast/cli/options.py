"""The options that many commands share, and the one way in which a command is declared.

A command is a function whose first parameter is the :class:`~nearcast.cli.session.Session`; :func:`command` puts the
options of the session in its place, so that ``--data-dir`` and its kin stand on every command.
"""

import inspect
import os
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from nearcast.cli.session import Given, Session, session_of


class Format(StrEnum):
    """How data are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Form(StrEnum):
    """How data are printed whose table has many columns."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def document(self) -> Format | None:
        """The format of a document; None for the forms of a table."""
        return None if self in {Form.TABLE, Form.WIDE} else Format(self.value)


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the data.")]
FoldedOutput = Annotated[
    Form,
    typer.Option(
        "--output",
        "-o",
        help="How to print the data. A table that is too wide for the terminal is folded: its other columns come "
        "below; wide: never.",
    ),
]

PANEL: Final = "Which fleet"
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Directory of a fleet on this machine. Env: NEARCAST_DATA_DIR. Default: nearcast's directory under "
        "the user's data directory (XDG).",
        rich_help_panel=PANEL,
        show_default=False,
        file_okay=False,
    ),
]
ControlUrl = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="URL",
        help="Control plane elsewhere, instead of the one in the data directory; several replicas: URL,URL. "
        "Env: NEARCAST_CONTROL.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="Admin token for it. Better given by the environment: NEARCAST_TOKEN.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the only authority to trust for it. Env: NEARCAST_CA_FILE. Default: the machine's own.",
        rich_help_panel=PANEL,
        show_default=False,
        dir_okay=False,
    ),
]

SHARED: Final[dict[str, Any]] = {"data_dir": DataDir, "control": ControlUrl, "token": Token, "ca_file": CaFile}
SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


def application(**settings: Any) -> typer.Typer:
    """A Typer application with the house's settings."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=SETTINGS,
        no_args_is_help=settings.pop("no_args_is_help", False),
        **settings,
    )


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...], settings: dict[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the function below as the command ``name`` of ``app``.

    Args:
        app: where it belongs.
        name: what users type.
        examples: command lines for ``--help``, without the leading ``nearcast``.
        settings: further settings of the context, such as ``allow_extra_args``.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        app.command(
            name,
            help=help_text(inspect.getdoc(function) or "", examples),
            short_help=(inspect.getdoc(function) or "").partition("\n")[0],
            context_settings=SETTINGS | (settings or {}),
            no_args_is_help=False,
        )(_with_session(function))
        return function

    return declare


def help_text(text: str, examples: tuple[str, ...]) -> str:
    """``text`` for Typer: paragraphs that fit any width, and the examples in a block that is not re-flowed."""
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", text)
    lines = "\n".join(f"  nearcast {example}" for example in examples)
    return f"{text}\n\n\b\n[bold]Examples[/bold]\n{lines}".replace("[-", "\\[-") if examples else text


def given_before(context: typer.Context) -> Given:
    """The shared options that stood before the name of the command."""
    found = context.find_root().obj
    return found if isinstance(found, Given) else Given()


def _with_session(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` with the shared options in the place of its first parameter."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

    def run(context: typer.Context, **values: Any) -> None:
        after = Given(**{name: values.pop(name) for name in SHARED})
        function(session_of(after.over(given_before(context)), os.environ), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in SHARED.items()]
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *shared,
    ]
    # Typer reads the signature and the annotations; both must be those that users see.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
    return run


__all__ = [
    "FoldedOutput",
    "Form",
    "Format",
    "Output",
    "Session",
    "application",
    "command",
    "given_before",
    "help_text",
]
