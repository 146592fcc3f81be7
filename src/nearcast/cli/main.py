"""The command ``nearcast``: the table of its commands, and where every run begins and ends.

Decides which module holds which command. A module is imported when its command runs; ``--help`` and completion live
on the table alone.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from nearcast import __version__
from nearcast.cli.options import SETTINGS, CaFile, ControlUrl, DataDir, Token
from nearcast.cli.session import Given

HERE: Final = "On this machine"
STATE: Final = "What shall be"
WORK: Final = "Models at work"
PROCESSES: Final = "Processes of a fleet"
NODES: Final = "Nodes and their identities"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and the line that ``--help`` shows of it."""

    module: str
    summary: str
    panel: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("up", "Start a fleet of sites on this machine, or what is missing of it.", HERE),
    "down": Entry("down", "Stop the fleet on this machine; its data stay.", HERE),
    "status": Entry("status", "Show the fleet: its sites, their gateways, and whether they are ready.", HERE),
    "doctor": Entry("doctor", "Look at what is here, and say what to do.", HERE),
    "logs": Entry("logs", "Show the logs of a fleet or a node on this machine, in the order of time.", HERE),
    "version": Entry("version", "Print the versions of this command and of the control plane.", HERE),
    "apply": Entry("apply", "Make the fleet hold what manifests say.", STATE),
    "get": Entry("resources", "List resources of a kind, or print one.", STATE),
    "describe": Entry("resources", "Tell everything about one resource: conditions, nodes, history.", STATE),
    "delete": Entry("resources", "Remove a resource.", STATE),
    "wait": Entry("waiting", "Wait until a resource is ready, or a condition of it holds.", STATE),
    "schema": Entry("schema", "Print the JSON Schema of a kind, or list the kinds.", STATE),
    "model": Entry("models", "Push releases of models, list them, look into them.", WORK),
    "infer": Entry("infer", "Ask a model through a gateway; see who answered, why, and how fast.", WORK),
    "route": Entry("route", "Explain where requests go.", WORK),
    "plan": Entry("plan", "Explain, list and repeat what the fleet's planner decided.", WORK),
    "twin": Entry("twin", "Ask the digital twin what would happen.", WORK),
    "control": Entry("processes", "Run a control plane in the foreground.", PROCESSES),
    "agent": Entry("processes", "Run the agent of a node in the foreground.", PROCESSES),
    "backup": Entry("backup", "Write a control plane into a file, while it runs.", PROCESSES),
    "restore": Entry("backup", "Put a backup into an empty directory.", PROCESSES),
    "releaser": Entry("releaser", "Begin the releases of a fleet, and change the keys that sign them.", PROCESSES),
    "join-token": Entry("processes", "Make a token that lets one node join a site.", NODES),
    "drain": Entry("drain", "Have a node serve no model, while its gateway goes on answering.", NODES),
    "undrain": Entry("drain", "Let a node that was drained serve again.", NODES),
    "revoke": Entry("drain", "No longer honour a node's identity.", NODES),
}


class LazyGroup(TyperGroup):
    """A group that imports the module of a command when the command is to run.

    Until then stand-ins that know their summary only are enough for help, for completing names, and for suggestions.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in COMMANDS:
            self.add_command(stand_in(name), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, imported now."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, (real_command(name) if name in COMMANDS else found), rest


def stand_in(name: str) -> Any:
    """A command without parameters that only shows its summary and panel."""
    entry = COMMANDS[name]
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name, help=entry.summary, rich_help_panel=entry.panel)(lambda: None)
    return typer.main.get_command(app)


def real_command(name: str) -> Any:
    """The command ``name``, with its parameters."""
    module = importlib.import_module(f"nearcast.cli.{COMMANDS[name].module}")
    apps: dict[str, typer.Typer] = module.COMMANDS
    found = typer.main.get_command(apps[name])
    found.name = name
    return found


app = typer.Typer(
    cls=LazyGroup,
    name="nearcast",
    help="nearcast: deploy a model once, ask any site.\n\n"
    "\b\n[bold]Examples[/bold]\n"
    "  nearcast up --detach\n"
    "  nearcast status\n"
    "  nearcast infer magika --site singapore --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=SETTINGS,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nearcast {__version__}")
        raise typer.Exit


@app.callback()
def _shared(
    context: typer.Context,
    data_dir: DataDir = None,
    control: ControlUrl = None,
    token: Token = None,
    ca_file: CaFile = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print this command's version.")
    ] = False,
) -> None:
    context.obj = Given(data_dir=data_dir, control=control, token=token, ca_file=ca_file)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave the process with its exit code."""
    try:
        app(list(arguments) if arguments is not None else None, prog_name="nearcast")
    except Exception as error:  # noqa: BLE001 - the border of the process: every failure ends on one screen
        # Imported here, since a command that works never needs it.
        sys.exit(importlib.import_module("nearcast.cli.failure").show_failure(error))
    sys.exit(0)
