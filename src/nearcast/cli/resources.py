"""``get``, ``describe``, ``delete``: looking at resources and removing them."""

import re
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.text import Text

from nearcast.cli.completion import kinds, names
from nearcast.cli.conditions import (
    condition_of,
    condition_rows,
    conditions_of,
    details_of,
    since,
    trouble_in,
)
from nearcast.cli.connect import connected
from nearcast.cli.naming import Reference, name_in, named, reference_of, unknown
from nearcast.cli.nodes import described_node, is_node, remove_node, show_nodes
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import Cell, coloured, note, show_document, show_lines, show_pairs, show_table
from nearcast.cli.session import Session
from nearcast.client import ControlClient, Document, Stored
from nearcast.errors import InvalidInput, NotFound

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
COMMANDS: Final = {name: application() for name in ("get", "describe", "delete")}

What = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="site, node, model, deployment or policy; /NAME may follow.", autocompletion=kinds
    ),
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Its name, where it does not stand after a slash.", autocompletion=names),
]


@command(
    COMMANDS["get"],
    "get",
    examples=("get sites", "get nodes", "get deployment magika -o yaml", "get deployment/magika -o json"),
)
def get(session: Session, what: What, name: Name = None, output: Output = Format.TABLE) -> None:
    """List resources of a kind, or print one.

    YAML and JSON hold whole resources, status included; what YAML prints can be applied again.
    """
    if is_node(what):
        show_nodes(session, what, name, output)
        return
    reference = reference_of(what, name)
    with connected(session) as client:
        documents = [read(client, reference).document] if reference.name else client.resources(reference.plural)
    if output is not Format.TABLE:
        show_document(documents[0] if reference.name else {"items": documents}, output)
        return
    if not documents:
        note(f"there are no {reference.plural} yet")
        return
    columns, row = TABLES[reference.kind]
    show_table(("name", *columns), ((name_in(document), *row(document)) for document in documents))


@command(
    COMMANDS["describe"],
    "describe",
    examples=("describe deployment magika", "describe site/frankfurt", "describe node/frankfurt/frankfurt-1"),
)
def describe(session: Session, what: What, name: Name = None, output: Output = Format.TABLE) -> None:
    """Tell everything about one resource: conditions, nodes, history."""
    if is_node(what):
        _show_node(described_node(session, what, name), output)
        return
    reference, own = named(what, name)
    with connected(session) as client:
        stored = read(client, reference)
        history = client.revisions(reference.plural, own)
        nodes = [node for node in client.nodes() if reference.kind == "Site" and node["site"] == own]
    if output is not Format.TABLE:
        show_document({"resource": stored.document, "nodes": nodes, "history": history}, output)
        return
    _show_resource(reference, stored)
    _show_nodes(nodes)
    rows = [(since(str(item["at"])), str(item["action"]), _short(str(item["revision"] or ""))) for item in history]
    if rows:
        show_lines("")
        show_table(("written at", "action", "revision"), rows, title="History")


@command(
    COMMANDS["delete"],
    "delete",
    examples=("delete deployment magika", "delete policy/eu-only", "delete node/frankfurt/frankfurt-1"),
)
def delete(session: Session, what: What, name: Name = None) -> None:
    """Remove a resource. Sites stop what it asked for; releases stay.

    A resource that changed while the command ran is not removed: look at it, then try again. A node is removed once it
    is drained, or when it is dead.
    """
    if is_node(what):
        remove_node(session, what, name)
        return
    reference, own = named(what, name)
    with connected(session) as client:
        stored = read(client, reference)
        client.delete(reference.plural, own, revision=stored.revision)
    note(f"deleted {reference}")


def read(client: ControlClient, reference: Reference) -> Stored:
    """One resource; the error for an unknown name offers the nearest ones."""
    if reference.name is None:
        raise InvalidInput(f"expected the name of a {reference.kind}")
    try:
        return client.resource(reference.plural, reference.name)
    except NotFound as error:
        raise unknown(client, reference) from error


def _show_resource(reference: Reference, stored: Stored) -> None:
    document = stored.document
    pairs: list[tuple[str, Cell]] = [("Kind", reference.kind), ("Name", name_in(document))]
    pairs += [("Label", f"{key}={value}") for key, value in (document["metadata"].get("labels") or {}).items()]
    pairs += [("Revision", _short(stored.revision))] if stored.revision else []
    pairs += _flat("", document.get("spec") or {})
    show_pairs(pairs)
    conditions = conditions_of(document)
    show_lines("")
    if conditions:
        show_table(("type", "status", "since", "reason", "message"), condition_rows(conditions), title="Conditions")
    else:
        show_lines("No conditions yet: the control plane has not looked at it.")
    details = {key: value for key, value in details_of(document).items() if key != "revision"}  # stands above
    plain = {key: value for key, value in details.items() if not _is_table(value)}
    if plain:
        show_lines("", Text("Details", style="bold"))
        show_pairs((name, _moment(value)) for name, value in _flat("", plain))
    for name, rows in details.items():
        if _is_table(rows):
            show_lines("")
            columns = list(dict.fromkeys(key for row in rows for key in row))
            cells = ([_moment(_cell(row.get(key, ""))) for key in columns] for row in rows)
            show_table([_words(key) for key in columns], cells, title=_words(name).capitalize())


def _show_nodes(nodes: list[Document]) -> None:
    for node in nodes:
        show_lines("", Text(f"Node {node['name']}", style="bold"))
        show_pairs(_flat("", {key: value for key, value in node.items() if key not in {"site", "name", "status"}}))


def _show_node(node: Document, output: Format) -> None:
    """One node with its last report: models, peers and trouble as tables, its shares left to ``route explain``."""
    if output is not Format.TABLE:
        show_document(node, output)
        return
    report = dict(node["status"] or {})
    tables = [(key, rows) for key, rows in report.items() if _is_table(rows)]
    left = {
        key: value for key, value in report.items() if key not in {"routes", "conditions", "models", "peers", *node}
    }
    show_pairs(_flat("", {key: value for key, value in (node | left).items() if key != "status" and value is not None}))
    for name, rows in tables:
        show_lines("")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = ([_moment(_cell(row.get(key, ""))) for key in columns] for row in rows)
        show_table([_words(key).replace("_", " ") for key in columns], cells, title=name.capitalize())


def _flat(prefix: str, value: Any) -> list[tuple[str, Cell]]:
    """A document as dotted names and plain values; lists of plain values stay on one line."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else key, inner)]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [pair for index, inner in enumerate(value) for pair in _flat(f"{prefix}[{index}]", inner)]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value) or "none")]
    return [(prefix, msgspec.json.encode(value).decode() if isinstance(value, bool) else str(value))]


def _is_table(value: Any) -> bool:
    """Whether it is a list of plain records."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) for row in value)
        and not any(isinstance(inner, dict | list) for row in value for inner in row.values())
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _short(str(value)) if str(value).startswith("sha256:") else str(value)


def _moment(text: Cell) -> Cell:
    """The text, without the fraction of a second where it is a moment."""
    return since(text) if isinstance(text, str) and _MOMENT.fullmatch(text) else text


def _words(name: str) -> str:
    """``sizeBytes`` as people read it: ``size bytes``."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", name).lower()


def _short(revision: str) -> str:
    """A revision as far as people compare it."""
    return revision[:19] + "…" if len(revision) > 20 else revision


def _ready(document: Document, kind: str) -> Cell:
    condition = condition_of(document, kind)
    return coloured({"True": "yes", "False": "no"}.get(condition.status, "unknown") if condition else "unknown")


def _site_row(document: Document) -> tuple[Cell, ...]:
    spec = document["spec"]
    return spec["country"], spec.get("tier", "edge"), _ready(document, "GatewayReady"), _trouble(document)


def _model_row(document: Document) -> tuple[Cell, ...]:
    return _task(document), _ready(document, "Released"), _trouble(document)


def _task(document: Document) -> str:
    """The task that the manifest names, else that of the newest release."""
    named = (document.get("spec") or {}).get("task")
    released = [str(each.get("task") or "") for each in details_of(document).get("releases") or ()]
    return str(named or next(filter(None, reversed(released)), "–"))


def _deployment_row(document: Document) -> tuple[Cell, ...]:
    spec = document["spec"]
    return spec["model"], spec["version"], _where(spec["placement"]), _ready(document, "Ready"), _trouble(document)


def _where(placement: Document) -> str:
    """A placement in a word or two: names, tiers, or among what the planner chooses."""
    auto = placement.get("auto")
    if auto is not None:
        among = [", ".join(auto[field]) for field in ("sites", "tiers", "countries") if auto.get(field)]
        return "; ".join(["auto", *among])
    named: list[str] = placement.get("sites") or placement.get("tiers") or []
    return "everywhere" if placement.get("everywhere") else ", ".join(named)


def _policy_row(document: Document) -> tuple[Cell, ...]:
    spec = document["spec"]
    match = [f"{key}: {', '.join(value)}" for key, value in (spec.get("match") or {}).items()]
    keep = [f"{key}: {', '.join(value)}" for key, value in spec["residency"].items()]
    return "; ".join(match) or "everything", "; ".join(keep)


def _trouble(document: Document) -> str:
    return trouble_in(conditions_of(document))


TABLES: Final = {
    "Site": (("country", "tier", "gateway ready", "trouble"), _site_row),
    "Model": (("task", "released", "trouble"), _model_row),
    "Deployment": (("model", "version", "placement", "ready", "trouble"), _deployment_row),
    "Policy": (("requests", "stay in"), _policy_row),
}
