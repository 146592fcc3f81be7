"""The releaser's own copy of the root for releases, and the newest root that follows from it.

Decides how a broken or foreign copy is told: by its file, with the way out. Which roots follow from one another is
decided in :mod:`nearcast.registry.rotation`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nearcast.durable import read_if_exists
from nearcast.errors import IntegrityError
from nearcast.registry.rotation import newest_root
from nearcast.registry.trust import first_root

ROOT_FILE: Final = "releases.root.json"


def held_root(path: Path) -> bytes | None:
    """The root in ``path``, which is signed by itself; None where there is no such file.

    Raises:
        IntegrityError: the file is none.
    """
    data = read_if_exists(path)
    if data is None:
        return None
    try:
        first_root(data, str(path))
    except IntegrityError as error:
        raise IntegrityError(
            f"expected a root for releases, signed by itself, in {path}; got other bytes: {error.message}",
            hint="take this file from another copy of the releaser's folder; one that is older will do",
        ) from error
    return data


def newest_after(held: bytes, path: Path, published: Sequence[bytes]) -> bytes:
    """The newest root of ``published`` that follows from ``held``, which lies in ``path``.

    Raises:
        IntegrityError: none does.
    """
    try:
        return newest_root(held, published)
    except IntegrityError as error:
        raise IntegrityError(
            f"the roots of the control plane do not follow from that in {path}: {error.message}",
            hint="it is another fleet's, or somebody gives out another root: compare with another copy of the folder",
        ) from error
