"""SKELETON: lifetimes, and the pure rules of the chain of metadata; being filled in."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

Clock = Callable[[], datetime]
"""The time, aware, UTC."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signed metadata is fresh. Renewal happens at half of it."""

    timestamp: timedelta = timedelta(days=7)
    snapshot: timedelta = timedelta(days=30)
    targets: timedelta = timedelta(days=365)
    root: timedelta = timedelta(days=3650)
