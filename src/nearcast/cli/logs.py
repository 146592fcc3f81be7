"""``logs``: the logs of a fleet or of one node on this machine, straight from its data directory."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nearcast.agent.layout import Layout, layout_of
from nearcast.cli.completion import sites
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.log_lines import LogLine, in_order, read
from nearcast.cli.naming import unknown_among
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import note, show_lines
from nearcast.cli.session import Session
from nearcast.cli.tail import read_end, read_on
from nearcast.cli.waiting import seconds_of
from nearcast.errors import InvalidInput

COMMANDS: Final = {"logs": application()}
PAUSE_S: Final = 0.3
CONTROL: Final = "control"
COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")
ALL_LINES: Final = 1_000_000
"""With --since or --request all of a log is looked through: logs are bounded (`nearcast.logs`)."""


class Component(StrEnum):
    """The logs of a node: its processes, and the gateway's lines about requests."""

    AGENT = "agent"
    GATEWAY = "gateway"
    ACCESS = "access"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Source:
    """One log: what its lines are called, and its file."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are shown. None: all."""

    since: datetime | None = None
    request: str | None = None

    def among(self, lines: Iterable[LogLine]) -> Iterator[LogLine]:
        """Those of ``lines`` that are."""
        for line in lines:
            late = self.since is None or (line.time is not None and line.time >= self.since)
            if late and (self.request is None or line.names(self.request)):
                yield line


@command(
    COMMANDS["logs"],
    "logs",
    examples=(
        "logs",
        "logs frankfurt --component engine --tail 200",
        "logs --follow",
        "logs --since 10m --request 0f36b2ab-43a4-4c41-9eb1-6e1f4a4cf4cb",
        "logs control --follow -o json",
    ),
)
def logs(
    session: Session,
    where: Annotated[
        str | None, typer.Argument(metavar="SITE|control", help="Whose logs; default: all.", autocompletion=sites)
    ] = None,
    site: Annotated[str | None, typer.Option(help="The same as the argument.", autocompletion=sites)] = None,
    component: Annotated[Component | None, typer.Option(help="One log of the node; default: all of them.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many lines of each log.")] = 20,
    since: Annotated[str | None, typer.Option(help="Only what is younger: a number with ms, s, m or h.")] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Only lines about the request of that id.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the logs of a fleet or a node on this machine, in the order of time.

    A request's id (x-request-id) leads through gateway, peers and engine. With -o json each line is one JSON object.
    """
    if where is not None and site is not None:
        raise InvalidInput("expected SITE once, as the argument or as --site")
    sources = sources_of(session, where or site, component)
    begin = None if since is None else datetime.now(UTC) - timedelta(seconds=seconds_of(since))
    wanted = Wanted(begin, request)
    whole = since is not None or request is not None
    offsets: dict[str, int] = {}
    found: list[LogLine] = []
    for source in sources:
        lines, offsets[source.name] = read_end(source.path, ALL_LINES if whole else tail)
        older = read_end(source.path.with_name(f"{source.path.name}.1"), ALL_LINES)[0] if whole else []
        found += wanted.among(read(source.name, [*older, *lines]))
    _show(sources, in_order(found), output)
    if not any(source.path.exists() for source in sources) and not follow:
        note("there are no such logs yet")
    while follow:
        time.sleep(PAUSE_S)
        found = []
        for source in sources:
            lines, offsets[source.name] = read_on(source.path, offsets[source.name])
            found += wanted.among(read(source.name, lines))
        _show(sources, in_order(found), output)


def sources_of(session: Session, where: str | None, component: Component | None) -> list[Source]:
    """The logs that are meant.

    Raises:
        NotFound: there is no such site, or no fleet.
        InvalidInput: the control plane has no components.
    """
    if (session.data_dir / "identity").is_dir():  # one node, which an agent runs on by itself
        return _of_node(session.data_dir.name, layout_of(session.data_dir), component)
    paths = LocalPaths(session.data_dir)
    sites = list(paths.fleet_or_refuse(session.command("up", "--detach")).sites)
    if where is not None and where != CONTROL and where not in sites:
        raise unknown_among("log", where, [CONTROL, *sites])
    if where == CONTROL and component is not None:
        raise InvalidInput("the control plane is one process: leave --component out")
    found = []
    if where in {None, CONTROL} and component is None:
        found.append(Source(CONTROL, paths.control_log))
    if where is None and component is None:
        found.append(Source("supervisor", paths.supervisor_log))
    for name in sites if where is None else [name for name in sites if name == where]:
        found += _of_node(name, layout_of(paths.site(name)), component)
    return found


def _of_node(name: str, layout: Layout, component: Component | None) -> list[Source]:
    files = {
        Component.AGENT: layout.agent_log,
        Component.GATEWAY: layout.gateway_log,
        Component.ACCESS: layout.access_log,
        Component.ENGINE: layout.engine_log,
    }
    return [Source(f"{name}/{kind}", path) for kind, path in files.items() if component in {None, kind}]


def _show(sources: list[Source], lines: Iterable[LogLine], output: Format) -> None:
    """Print lines; where several logs are shown, each line says whose it is, in a colour of its own."""
    width = max(len(each.name) for each in sources)
    styles = {source.name: COLOURS[index % len(COLOURS)] for index, source in enumerate(sources)}
    for line in lines:
        if output is not Format.TABLE:
            show_lines(Text(json.dumps(line.document(), ensure_ascii=False)))
        elif len(sources) == 1:
            show_lines(Text(line.shown))
        else:
            show_lines(Text.assemble((f"{line.source:<{width}} | ", styles[line.source]), line.shown))
