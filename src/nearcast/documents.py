"""The number of the form that JSON documents on disk are in, one for all that nearcast writes into a data directory.

A document that says nothing is of the first form, and no document of the first form says anything, so that the version
before this one reads what this one writes. Whoever changes what a document means raises :data:`FORMAT`, writes it as
``"format"`` into that document, and reads the older one as well. What damaged documents become, their readers decide;
:func:`read_document` is for those that cannot go on without.
"""

from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from nearcast.durable import read_if_exists
from nearcast.errors import Conflict, IntegrityError
from nearcast.resources.unreadable import UNREADABLE

FORMAT: Final = 1

Kind = TypeVar("Kind")


class TooNew(Conflict):
    """A document was written by a newer nearcast: what it says may mean something else here."""


class _Head(msgspec.Struct, frozen=True):
    format: Any = 1


def refuse_newer(*files: Path) -> None:
    """Look at what ``files`` say of themselves, before anything is read from them. Those that are not there are fine.

    Raises:
        TooNew: naming the first that a newer nearcast has written.
    """
    for file in files:
        data = read_if_exists(file)
        try:
            found = 1 if data is None else msgspec.json.decode(data, type=_Head).format
        except UNREADABLE:
            continue
        if isinstance(found, int) and found > FORMAT:
            raise TooNew(
                f"{file} is of format {found}, this nearcast understands format {FORMAT} and older",
                hint="use the nearcast that wrote it, or a newer one; nothing was changed",
            )


def read_document(file: Path, kind: type[Kind], hint: str) -> Kind | None:
    """What ``file`` says, or None where there is none.

    Args:
        file: written whole, by nearcast.
        kind: what it is read as.
        hint: what to do where it is damaged.

    Raises:
        TooNew: a newer nearcast has written it.
        IntegrityError: it is damaged.
    """
    refuse_newer(file)
    data = read_if_exists(file)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise IntegrityError(f"{file} is not what nearcast wrote there: {error}", hint=hint) from error
