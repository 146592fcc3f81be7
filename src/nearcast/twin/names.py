"""The names of policies that the twin can run: light, since shells are offered them between two keys."""

from collections.abc import Iterable
from typing import Final

from nearcast.errors import InvalidInput
from nearcast.resources.problems import did_you_mean

OURS: Final = "nearcast"
RIVALS: Final = ("central", "nearest", "round-robin", "least-loaded", "latency-weighted", "nearest-spill")
"""What `policies` has, in this order."""
BOUND: Final = "clairvoyant"
NAMES: Final = (OURS, *RIVALS, BOUND)


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """``names``, each once and each known.

    Raises:
        InvalidInput: one is not.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in NAMES:
            raise InvalidInput(f"expected policies of {', '.join(NAMES)}; got {name!r}", hint=did_you_mean(name, NAMES))
    return found
