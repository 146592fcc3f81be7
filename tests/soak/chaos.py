"""What is done to the fleet, and when: a seeded schedule, drawn before anything runs.

Pure: the same seed gives the same schedule. What a schedule must keep is kept here, not hoped for: at any moment at
most one site is disturbed, and models live on more than one, so every request has another place to go.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

SETTLE_S = 4.0
"""From the end of one disturbance to the begin of the next."""


@dataclass(frozen=True)
class Kind:
    """One way to disturb a fleet: how often it is drawn, and for how long it goes on, in seconds."""

    name: str
    weight: int
    lasts_s: tuple[float, float]
    of_a_site: bool = True


KINDS = (
    Kind("kill engine", 4, (2.0, 2.0)),
    Kind("kill gateway", 3, (2.0, 2.0)),
    Kind("kill agent", 3, (2.0, 2.0)),
    Kind("kill control", 2, (3.0, 3.0), of_a_site=False),
    Kind("freeze engine", 2, (1.0, 3.0)),
    Kind("cut peers", 3, (2.0, 15.0)),
    Kind("stall peers", 2, (2.0, 8.0)),
    Kind("cut uplink", 3, (5.0, 25.0)),
    Kind("change version", 6, (2.0, 2.0), of_a_site=False),
    Kind("change and kill control", 3, (0.1, 1.2), of_a_site=False),
)
KILLS = ("kill engine", "kill gateway", "kill agent")


@dataclass(frozen=True)
class Disturbance:
    """Something that is done at ``at_s`` and undone ``lasts_s`` later, where it can be undone."""

    at_s: float
    kind: str
    site: str
    lasts_s: float

    @property
    def end_s(self) -> float:
        return self.at_s + self.lasts_s


def schedule(
    seed: int, duration_s: float, sites: tuple[str, ...], spared: str, *, pace: float = 1.0
) -> list[Disturbance]:
    """Disturbances over ``duration_s``. No process of ``spared`` is killed: its memory tells of leaks over all of it.

    Every kind comes once, in a drawn order, before any comes again by weight. ``pace`` 2 halves all times.
    """
    dice = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    first = list(KINDS)
    dice.shuffle(first)
    made: list[Disturbance] = []
    at_s, settle_s = SETTLE_S / pace, SETTLE_S / pace
    while True:
        kind = first.pop() if first else dice.choices(KINDS, [kind.weight for kind in KINDS])[0]
        lasts_s = dice.uniform(*kind.lasts_s) / pace
        if at_s + lasts_s + settle_s > duration_s:
            break
        able = [site for site in sites if site != spared or kind.name not in KILLS]
        made.append(Disturbance(at_s, kind.name, dice.choice(able) if kind.of_a_site else "", lasts_s))
        at_s += lasts_s + settle_s + dice.uniform(0, 4.0) / pace
    assert all(a.end_s < b.at_s for a, b in pairwise(made)), "one at a time"
    return made
