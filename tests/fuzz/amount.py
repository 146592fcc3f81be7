"""How much is thrown at each protocol: a short form in every test run, the full one by `make fuzz`."""

import os
from random import Random

SHORT = 1_000


def amount(short: int = SHORT) -> int:
    """Malformed requests per protocol: ``NEARCAST_FUZZ`` where it is set (``make fuzz``: 10,000), else ``short``."""
    return int(os.environ.get("NEARCAST_FUZZ", short))


def seeded(name: str) -> Random:
    """The dice of one suite. ``NEARCAST_FUZZ_SEED`` gives others; the same seed throws the same."""
    return Random(f"{os.environ.get('NEARCAST_FUZZ_SEED', '1')}/{name}")  # noqa: S311 - dice, not a secret


def limit_s(short_s: int) -> int:
    """How long one suite may take: ``short_s`` in the short form, and room for each request of a full one."""
    return short_s + int(os.environ.get("NEARCAST_FUZZ", "0")) // 3
