"""Why bytes are not believed, as a type: which attack it looks like, on which role, in which file.

Whoever reports a refusal reads it from here and never out of a message. What is believed is decided in `trust`,
`client` and `artifacts`; an honest accident (a half-copied mirror, a flipped bit) is told by the same words.
"""

from enum import StrEnum
from typing import Final

from nearcast.errors import IntegrityError


class Attack(StrEnum):
    """What a refusal looks like. The values are the words of messages and of ``docs/explanation/trust.md``."""

    ROLLBACK = "rollback"
    FREEZE = "freeze"
    CHANGED = "changed bytes"
    WRONG_SITE = "wrong site"
    ENDLESS = "endless data"
    ARBITRARY = "arbitrary bytes"
    SIGNATURE = "wrong signature"
    FOREIGN_ROOT = "foreign root"
    UNSIGNED = "unsigned release"
    WRONG_RELEASE = "wrong release"
    TAMPERED = "tampered"
    ON_DISK = "changed on disk"
    INCONSISTENT = "inconsistent metadata"


BLOB: Final = "blob"
PLAN: Final = "plan"
MANIFEST: Final = "manifest"
"""Roles beside those of The Update Framework: what the signed targets vouch for."""

_MESSAGE_MAX: Final = 600


class TrustRefused(IntegrityError):
    """Bytes that nobody we trust has vouched for. What runs keeps running.

    Args:
        attack: what it looks like.
        role: ``root``, ``timestamp``, ``snapshot``, ``targets``, ``plan``, ``manifest`` or ``blob``.
        file: path in the repository or on the disk; of several files that do not fit, the one at which it showed.
        details: what was expected and what came.
        hint: the way out.
    """

    def __init__(
        self,
        attack: Attack,
        role: str,
        file: str,
        details: str,
        *,
        hint: str = "what runs keeps running; nothing from this repository is installed",
    ) -> None:
        super().__init__(f"{file}: {attack} ({role}): {details}"[:_MESSAGE_MAX], hint=hint)
        self.attack = attack
        self.role = role
        self.file = file


def role_of(file: str) -> str:
    """The role that a file of a repository has by its name: ``plans/fra/metadata/7.targets.json`` is ``targets``."""
    folder, _, name = file.rpartition("/")
    if folder.endswith("/metadata"):
        return name.removesuffix(".json").rpartition(".")[2]
    if file.startswith("blobs/"):
        return BLOB
    return PLAN if file.startswith("plans/") else MANIFEST
