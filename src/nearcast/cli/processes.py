"""``control``, ``agent``, ``join-token``: the processes of a fleet whose machines are many."""

from typing import Annotated, Final

import typer

from nearcast.cli.connect import connected
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import note, show_document, show_lines
from nearcast.cli.session import Session
from nearcast.cli.waiting import seconds_of

COMMANDS: Final = {name: application() for name in ("control", "agent", "join-token")}


@command(
    COMMANDS["join-token"],
    "join-token",
    examples=("join-token frankfurt", "join-token frankfurt --ttl 10m"),
)
def join_token(
    session: Session,
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site that the node will belong to.")],
    ttl: Annotated[str, typer.Option(help="How long the token is good for: a number with ms, s, m or h.")] = "1h",
    output: Output = Format.TABLE,
) -> None:
    """Make a token that lets one node join a site.

    It carries the hashes of everything that the node will trust, and a secret: whoever holds it may join, once.
    """
    with connected(session) as client:
        token = client.join_token(site, ttl_s=seconds_of(ttl))
        url = client.target.url
    if output is not Format.TABLE:
        show_document({"site": site, "control": url, "token": token}, output)
        return
    show_lines(token)
    note(f"on the node: nearcast agent --data-dir DIR --control {url} --join TOKEN")
