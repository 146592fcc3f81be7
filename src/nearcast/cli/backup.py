"""``backup`` and ``restore``: a control plane's directory in one file, and back."""

from pathlib import Path
from typing import Annotated, Final

import typer

from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import note, show_document
from nearcast.cli.session import Session
from nearcast.control.backup import Written, back_up
from nearcast.control.backup import restore as put_back
from nearcast.control.settings import Settings

COMMANDS: Final = {name: application() for name in ("backup", "restore")}
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", dir_okay=False)]


@command(
    COMMANDS["backup"],
    "backup",
    examples=("backup fleet.tar", "backup --no-blobs /backups/monday.tar --data-dir /var/lib/nearcast"),
)
def backup(
    session: Session,
    file: _File,
    blobs: Annotated[bool, typer.Option(help="With the weights of the models, which may be large.")] = True,
    output: Output = Format.TABLE,
) -> None:
    """Write a control plane into a file, while it runs: its database, its keys, its repository.

    The file holds private keys: keep it as you keep those. For PostgreSQL and buckets use their own tools.
    """
    written = back_up(Settings(_directory(session)), file.expanduser().absolute(), with_blobs=blobs)
    _show(written, file, output, "holds")


@command(COMMANDS["restore"], "restore", examples=("restore fleet.tar --data-dir /var/lib/nearcast",))
def restore(session: Session, file: _File, output: Output = Format.TABLE) -> None:
    """Put a backup into an empty directory; start the control plane on it afterwards.

    Sites go on although they have seen what came after the backup: whatever they compare is numbered above that.
    """
    written = put_back(Settings(_directory(session)), file.expanduser().absolute())
    _show(written, file, output, "is restored:")
    note("start the control plane on this directory; never again the one that was lost")


def _directory(session: Session) -> Path:
    """The directory of the control plane: of a fleet on this machine it is a part of the fleet's."""
    within = session.data_dir / "control"
    return within if (session.data_dir / "fleet.json").exists() else session.data_dir


def _show(written: Written, file: Path, output: Format, what: str) -> None:
    if output is Format.TABLE:
        note(f"{file} {what} the fleet {written.fleet}: {written.files} files, {written.size_bytes} bytes")
        return
    found = {"file": str(file), "fleet": written.fleet, "files": written.files, "size_bytes": written.size_bytes}
    show_document(found, output)
