"""What ``up`` prints at its end: where the gateways are, and three lines that lead to a first answer.

The three lines stand in :data:`LINES` and nowhere else.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from rich.text import Text

from nearcast.cli.fleet import FleetFile
from nearcast.cli.listen import metrics_url
from nearcast.cli.screen import show_lines, show_table
from nearcast.cli.session import Given, Session, session_of

LINES: Final = (
    "{python} examples/01-file-types/model.py build/magika && {nearcast} model push magika --version 3.3 build/magika",
    "{nearcast} apply -f examples/01-file-types/deployment.yaml && "
    "{nearcast} wait deployment/magika --for ready --timeout 60s",
    "for site in {sites}; do {environment}{python} examples/01-file-types/classify.py --site $site README.md; done",
)
"""Push a real model, deploy it to one site, ask it through every gateway: the quickstart of the README."""


def show_welcome(session: Session, fleet: FleetFile) -> None:
    """Print the table of the gateways' addresses, and the three lines."""
    rows = [
        (name, site.country, fleet.gateway_url(name), metrics_url(fleet, name) or "")
        for name, site in fleet.sites.items()
    ]
    columns = 4 if fleet.metrics else 3
    show_table(("site", "country", "gateway", "metrics")[:columns], (row[:columns] for row in rows))
    show_lines("", Text("Three lines to paste:", style="bold"), "", *(f"  {line}" for line in lines(session, fleet)))


def lines(session: Session, fleet: FleetFile) -> list[str]:
    """The three lines, for this fleet and for the way in which this command was started."""
    words = {
        "nearcast": nearcast_command(session),
        "python": shlex.quote(_near(Path(sys.executable))),
        "environment": f"NEARCAST_DATA_DIR={shlex.quote(str(session.data_dir))} " if _was_chosen(session) else "",
        "sites": " ".join(fleet.sites),
    }
    return [line.format(**words) for line in LINES]


def nearcast_command(session: Session) -> str:
    """How people type this command here: by its name where that finds it, else by its path; with the data directory."""
    beside = Path(sys.executable).parent / "nearcast"
    found = shutil.which("nearcast")
    is_on_path = found is not None and Path(found).resolve() == beside.resolve()
    program = (
        "nearcast" if is_on_path else _near(beside) if beside.exists() else f"{_near(Path(sys.executable))} -m nearcast"
    )
    return f"{program} --data-dir {shlex.quote(str(session.data_dir))}" if _was_chosen(session) else program


def _was_chosen(session: Session) -> bool:
    """Whether the data directory stood on the command line, so that the next command needs to be told, too."""
    in_environment = session_of(Given(), os.environ).data_dir
    return session.data_dir != in_environment


def _near(path: Path) -> str:
    """A path below the present directory as people would type it there."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
