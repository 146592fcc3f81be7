"""``doctor``: looks at everything that this machine's part of a fleet depends on, and says what to do.

Decides which checks there are, and in which order. It works offline, without a token, and when everything is broken.
"""

from collections.abc import Iterable
from typing import Final

import typer
from rich.text import Text

from nearcast.cli.doctor import connections, machine, processes, trust, versions
from nearcast.cli.doctor.finding import Check, Finding, examined, ground_of
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import note, show_document, show_lines
from nearcast.cli.session import Session

COMMANDS: Final = {"doctor": application()}
CHECKS: Final[tuple[Check, ...]] = (
    versions.python,
    versions.libraries,
    versions.envoy,
    versions.onnxruntime,
    versions.documents,
    machine.disk,
    machine.open_files,
    machine.inotify,
    machine.ownership,
    machine.secrets,
    trust.certificates,
    trust.metadata,
    processes.fleet,
    processes.nodes,
    processes.sockets,
    processes.ports,
    connections.control,
    connections.plan,
    connections.peers,
    connections.repository,
)
STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@command(COMMANDS["doctor"], "doctor", examples=("doctor", "doctor --data-dir /var/lib/nearcast", "doctor -o json"))
def doctor(session: Session, output: Output = Format.TABLE) -> None:
    """Look at what is here, and say what to do: versions, disk, limits, trust, clocks, processes, connections.

    It asks for no token and changes nothing. The exit code is 1 where there is a problem, else 0.
    """
    ground = ground_of(session.data_dir)
    found = [finding for check in CHECKS for finding in examined(check, ground)]
    if output is Format.TABLE:
        _show(found)
    else:
        shown = ("check", "subject", "verdict", "found", "advice")
        show_document([{name: getattr(each, name) for name in shown} for each in found], output)
    if any(each.verdict == "problem" for each in found):
        raise typer.Exit(1)


def _show(found: Iterable[Finding]) -> None:
    counts = dict.fromkeys(STYLES, 0)
    for each in found:
        counts[each.verdict] += 1
        name = f"{each.check} {each.subject}".strip()
        show_lines(Text.assemble((f"{each.verdict:<8}", STYLES[each.verdict]), (f"{name}: ", "bold"), each.found))
        if each.advice and each.verdict != "ok":
            show_lines(Text.assemble("         ", ("do: ", "cyan"), each.advice))
    note(f"{counts['ok']} are well, {counts['warning']} warnings, {counts['problem']} problems")
