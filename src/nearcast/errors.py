"""The one error tree, branched by who must act.

A message says what was expected, what came, and the id of the object; ``hint`` is the way out. Expected outcomes
(a place refused by policy, a full queue) are return values, not errors.

:data:`MEANING` is the only place where an error becomes an HTTP status or an exit code.
"""

from dataclasses import dataclass
from typing import ClassVar


class NearcastError(Exception):
    """Root of the tree. ``code`` is the stable, machine-readable name of the failure.

    Args:
        message: what was expected, what came, and where.
        hint: what the reader can do about it, or the empty string.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(NearcastError):
    """The caller sent something wrong and must change it."""

    code = "invalid_input"


class Unauthenticated(NearcastError):
    """The caller must say who it is: a token is missing, unknown or spent."""

    code = "unauthenticated"


class Forbidden(NearcastError):
    """The caller is known and may not do this; somebody else must decide."""

    code = "forbidden"


class NotFound(NearcastError):
    """The thing named does not exist."""

    code = "not_found"


class Conflict(NearcastError):
    """The thing changed meanwhile: read it again, then retry."""

    code = "conflict"


class Unavailable(NearcastError):
    """It may work later: wait ``retry_after_s`` seconds, then retry.

    Args:
        retry_after_s: seconds after which a retry makes sense.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class IntegrityError(NearcastError):
    """Bytes are not what somebody vouched for. Stop; a retry with the same bytes can never help."""

    code = "integrity"


class Bug(NearcastError):
    """A state that our own code promised never to reach."""

    code = "bug"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error is called on the other side of a border."""

    http_status: int
    exit_code: int


MEANING: dict[type[NearcastError], Meaning] = {
    InvalidInput: Meaning(400, 2),
    Unauthenticated: Meaning(401, 3),
    Forbidden: Meaning(403, 3),
    NotFound: Meaning(404, 4),
    Conflict: Meaning(409, 5),
    Unavailable: Meaning(503, 6),
    IntegrityError: Meaning(422, 7),
    Bug: Meaning(500, 70),
    NearcastError: Meaning(500, 1),
}


def meaning_of(error: NearcastError) -> Meaning:
    """The border names of ``error``: those of its nearest ancestor in :data:`MEANING`."""
    return next(MEANING[kind] for kind in type(error).__mro__ if kind in MEANING)


def error_from(code: str, message: str, *, hint: str = "") -> NearcastError:
    """The error that a peer meant by ``code``; an unknown code gives the root of the tree."""
    for kind in MEANING:
        if kind.code == code:
            return kind(message, hint=hint)
    return NearcastError(message, hint=hint)
