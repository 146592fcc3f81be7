"""``drain``, ``undrain``, ``revoke``: taking a node out of service, for a while or for good.

What a drain does is decided by the control plane and the agents.
"""

import time
from collections.abc import Callable
from typing import Annotated, Final

import typer

from nearcast.cli.completion import nodes
from nearcast.cli.connect import connected
from nearcast.cli.nodes import one, site_and_node
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.progress import Ticker, ticking
from nearcast.cli.screen import note, show_document
from nearcast.cli.session import Session
from nearcast.cli.waiting import seconds_of
from nearcast.client import ControlClient, Document
from nearcast.errors import Unavailable

COMMANDS: Final = {name: application() for name in ("drain", "undrain", "revoke")}
PAUSE_S: Final = 0.5

NodeName = Annotated[
    str, typer.Argument(metavar="SITE/NODE", help="The node; `get nodes` lists them.", autocompletion=nodes)
]


@command(
    COMMANDS["drain"],
    "drain",
    examples=("drain frankfurt/frankfurt-1", "drain frankfurt/frankfurt-1 --no-wait -o json"),
)
def drain(
    session: Session,
    node: NodeName,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is drained.")] = True,
    timeout: Annotated[str, typer.Option(help="How long to wait: a number with ms, s, m or h.")] = "2m",
    force: Annotated[bool, typer.Option("--force", help="Even where it is the only place of a model.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Have a node serve no model, while its gateway goes on answering.

    Others stop asking it, what is in flight is finished, and its own gateway answers through others. That holds over
    restarts of anything, until `undrain`.
    """
    site, name = site_and_node(node)
    with connected(session) as client, ticking(f"draining {site}/{name}") as ticker:
        document = client.drain(site, name, force=force)
        if wait:
            document = await_drained(client, site, name, seconds_of(timeout), ticker)
    if output is not Format.TABLE:
        show_document(document, output)
    elif not wait:
        note(f"{site}/{name} drains; nearcast get node {site}/{name} tells how far it is")


@command(COMMANDS["undrain"], "undrain", examples=("undrain frankfurt/frankfurt-1",))
def undrain(session: Session, node: NodeName, output: Output = Format.TABLE) -> None:
    """Let a node that was drained serve again."""
    site, name = site_and_node(node)
    with connected(session) as client:
        document = client.undrain(site, name)
    if output is not Format.TABLE:
        show_document(document, output)
    else:
        note(f"{site}/{name} serves again once its models are loaded")


@command(COMMANDS["revoke"], "revoke", examples=("revoke frankfurt/frankfurt-1",))
def revoke(session: Session, node: NodeName) -> None:
    """No longer honour a node's identity: other sites refuse it once their next plan has arrived.

    Its requests are refused with that plan, and its connections are closed within a minute. Its name stays closed until
    an hour after its last certificate has ended. A machine that shall come back joins under another name.
    """
    site, name = site_and_node(node)
    with connected(session) as client:
        client.revoke(site, name)
    note(f"{site}/{name} is revoked: every other site refuses it with its next plan")


def await_drained(
    client: ControlClient,
    site: str,
    name: str,
    timeout_s: float,
    ticker: Ticker,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Document:
    """Ask until the node is drained, and give it as it then is.

    Raises:
        Unavailable: the time is up; the drain goes on.
    """
    deadline = clock() + timeout_s
    while True:
        document = one(client, site, name)
        if document["phase"] == "Drained":
            ticker.done(f"{site}/{name} is drained")
            return document
        ticker.tell(_missing(document))
        if clock() >= deadline:
            raise Unavailable(
                f"{site}/{name} is not drained after {timeout_s:g} s: {_missing(document)}",
                hint=f"it goes on; nearcast get node {site}/{name}",
            )
        sleep(PAUSE_S)


def _missing(node: Document) -> str:
    """What a node that drains still does, in its own words."""
    said = [item["message"] for item in (node["status"] or {}).get("conditions", ()) if item["type"] == "Drained"]
    return said[0] if said else "it has not got the plan that says so yet"
