"""Nodes among what ``get``, ``describe`` and ``delete`` can name.

A node is no resource: nobody writes one, it joins. It is named ``SITE/NODE``, after the word ``node`` where other kinds
could be meant.
"""

from nearcast.cli.connect import connected
from nearcast.cli.naming import unknown_among
from nearcast.cli.options import Format
from nearcast.cli.screen import Cell, coloured, note, show_document, show_table
from nearcast.cli.session import Session
from nearcast.client import ControlClient, Document
from nearcast.errors import InvalidInput


def is_node(what: str) -> bool:
    """Whether a command line names nodes rather than resources."""
    return what.partition("/")[0].lower() in {"node", "nodes"}


def show_nodes(session: Session, what: str, name: str | None, output: Format) -> None:
    """What ``get`` prints for nodes."""
    wanted = _named(what, name)
    with connected(session) as client:
        found = [one(client, *site_and_node(wanted))] if wanted else client.nodes()
    if output is not Format.TABLE:
        show_document(found[0] if wanted else {"items": found}, output)
        return
    if not found:
        note("no node has joined yet")
        return
    show_table(("node", "phase", "connected", "gateway", "models", "plan"), (_row(node) for node in found))


def described_node(session: Session, what: str, name: str | None) -> Document:
    """The node that ``describe`` is asked for, with its last report."""
    wanted = _named(what, name)
    if wanted is None:
        raise InvalidInput("expected the name of a node", hint="such as node/SITE/NODE")
    with connected(session) as client:
        return one(client, *site_and_node(wanted))


def remove_node(session: Session, what: str, name: str | None) -> None:
    """What ``delete`` does with a node: it is revoked, once nobody asks it any more."""
    wanted = _named(what, name)
    if wanted is None:
        raise InvalidInput("expected the name of a node", hint="such as node/SITE/NODE")
    site, own = site_and_node(wanted)
    with connected(session) as client:
        client.revoke(site, own, drained=True)
    note(f"removed node {site}/{own}; its name stays closed until its certificate has ended")


def one(client: ControlClient, site: str, name: str) -> Document:
    """One node. Raises :class:`NotFound`, with the nearest names."""
    nodes = client.nodes()
    for node in nodes:
        if (node["site"], node["name"]) == (site, name):
            return node
    raise unknown_among("node", f"{site}/{name}", (f"{node['site']}/{node['name']}" for node in nodes))


def site_and_node(text: str) -> tuple[str, str]:
    """The two halves of ``SITE/NODE`` or ``node/SITE/NODE``. Raises :class:`InvalidInput`."""
    parts = text.split("/")
    if len(parts) == 3 and is_node(parts[0]):
        parts = parts[1:]
    if len(parts) != 2 or not all(parts):
        raise InvalidInput(f"expected SITE/NODE, got {text!r}", hint="nearcast get nodes lists them")
    return parts[0], parts[1]


def _named(what: str, name: str | None) -> str | None:
    return what.partition("/")[2] or name


def _row(node: Document) -> tuple[Cell, ...]:
    status = node["status"] or {}
    ready = (item for item in status.get("models", ()) if item["state"] == "ready")
    models = sorted(f"{item['model']}@{item['version']}" for item in ready)
    return (
        f"{node['site']}/{node['name']}",
        coloured(str(node["phase"])),
        coloured("yes" if node["connected"] else "no"),
        str(node["gateway_url"] or "–"),
        ", ".join(models) or "–",
        str(node["plan_version"] if node["plan_version"] is not None else "–"),
    )
