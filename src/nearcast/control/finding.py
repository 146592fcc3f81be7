"""A condition before it has a time, and names as its message lists them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

MAX_NAMES: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has a time."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def listed(names: Iterable[str]) -> str:
    """Names for people, shortened where they are many."""
    items = list(names)
    return ", ".join(items[:MAX_NAMES]) + (f" and {len(items) - MAX_NAMES} more" if len(items) > MAX_NAMES else "")
