"""``logs``: the logs of a fleet on this machine, straight from its data directory."""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nearcast.agent.layout import layout_of
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.naming import unknown_among
from nearcast.cli.options import application, command
from nearcast.cli.screen import note, show_lines
from nearcast.cli.session import Session
from nearcast.cli.tail import read_end, read_on
from nearcast.errors import InvalidInput

COMMANDS: Final = {"logs": application()}
PAUSE_S: Final = 0.3
CONTROL: Final = "control"
COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")


class Component(StrEnum):
    """The processes of a node."""

    AGENT = "agent"
    GATEWAY = "gateway"
    ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Source:
    """One log: what its lines are called, and its file."""

    name: str
    path: Path


@command(
    COMMANDS["logs"],
    "logs",
    examples=("logs", "logs frankfurt --component engine --tail 200", "logs control --follow"),
)
def logs(
    session: Session,
    where: Annotated[str | None, typer.Argument(metavar="SITE|control", help="Whose logs; default: all.")] = None,
    component: Annotated[Component | None, typer.Option(help="One process of the node; default: all three.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="How many lines of each log.")] = 20,
) -> None:
    """Show the logs of a fleet on this machine."""
    paths = LocalPaths(session.data_dir)
    fleet = paths.fleet_or_refuse(session.command("up", "--detach"))
    sources = sources_of(paths, list(fleet.sites), where, component)
    offsets: dict[str, int] = {}
    for source in sources:
        lines, offsets[source.name] = read_end(source.path, tail)
        _show(sources, source, lines)
    if not any(source.path.exists() for source in sources) and not follow:
        note("there are no such logs yet")
    while follow:
        time.sleep(PAUSE_S)
        for source in sources:
            lines, offsets[source.name] = read_on(source.path, offsets[source.name])
            _show(sources, source, lines)


def sources_of(paths: LocalPaths, sites: list[str], where: str | None, component: Component | None) -> list[Source]:
    """The logs that are meant.

    Raises:
        NotFound: there is no such site.
        InvalidInput: the control plane has no components.
    """
    if where is not None and where != CONTROL and where not in sites:
        raise unknown_among("log", where, [CONTROL, *sites])
    if where == CONTROL and component is not None:
        raise InvalidInput("the control plane is one process: leave --component out")
    found = []
    if where in {None, CONTROL} and component is None:
        found.append(Source(CONTROL, paths.control_log))
    if where is None and component is None:
        found.append(Source("supervisor", paths.supervisor_log))
    for site in sites if where is None else [site for site in sites if site == where]:
        layout = layout_of(paths.site(site))
        files = {
            Component.AGENT: layout.agent_log,
            Component.GATEWAY: layout.gateway_log,
            Component.ENGINE: layout.engine_log,
        }
        found += [Source(f"{site}/{kind}", path) for kind, path in files.items() if component in {None, kind}]
    return found


def _show(sources: list[Source], source: Source, lines: list[str]) -> None:
    """Print lines; where several logs are shown, each line says whose it is."""
    if not lines:
        return
    if len(sources) == 1:
        show_lines(*(Text(line) for line in lines))
        return
    width = max(len(each.name) for each in sources)
    style = COLOURS[sources.index(source) % len(COLOURS)]
    show_lines(*(Text.assemble((f"{source.name:<{width}} | ", style), line) for line in lines))
