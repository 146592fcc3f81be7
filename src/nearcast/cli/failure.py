"""How a failure ends a command: one screen that says what happened and the way out, and the exit code of the tree.

An error of the tree is shown as it speaks. So is a path that the machine refuses: users named it, or what it lies in.
Anything else is a defect of ours: one line, and where the traceback is.
"""

import errno
import os
import tempfile
import traceback
from pathlib import Path
from typing import Final

from rich.text import Text

from nearcast.cli.screen import note
from nearcast.errors import MEANING, Bug, InvalidInput, NearcastError, meaning_of

PATHS: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP}
)
"""What a machine says of a path that cannot be used; that a file is not there should have been foreseen."""


def show_failure(error: Exception) -> int:
    """Show why the command fails, and give its exit code."""
    if isinstance(error, NearcastError):
        _show("error", error.message, error.hint)
        return meaning_of(error).exit_code
    if isinstance(error, OSError) and error.filename is not None and error.errno in PATHS:
        said = f"{error.filename} cannot be used: {error.strerror}"
        _show("error", said, "look at what is there, and who may use it")
        return MEANING[InvalidInput].exit_code
    said = " ".join(str(error).split())[:200]
    kept = _keep_traceback(error)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    _show("defect", what, f"the traceback is in {kept}; please report it together with what you ran")
    return MEANING[Bug].exit_code


def _show(label: str, message: str, way_out: str) -> None:
    note(Text.assemble((f"{label}: ", "bold red"), message))
    if way_out:
        note(Text.assemble(("way out: ", "bold cyan"), way_out))


def _keep_traceback(error: Exception) -> Path:
    handle, name = tempfile.mkstemp(prefix="nearcast-", suffix=".traceback")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return Path(name)
