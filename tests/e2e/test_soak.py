"""The soak in its short form: every kind of disturbance, drawn by a seed, under load. `make soak` runs the long one."""

from pathlib import Path

import pytest

from soak.chaos import KINDS, schedule
from soak.story import SPARED, growth, soak, verdict
from soak.world import SITES

DURATION_S = 80.0
SEED = 20


def planned() -> set[str]:
    return {item.kind for item in schedule(SEED, DURATION_S, SITES, SPARED, pace=2.0)}


@pytest.mark.e2e
@pytest.mark.timeout(420)
def test_a_short_soak_with_every_disturbance(tmp_path: Path) -> None:
    assert planned() == {kind.name for kind in KINDS}, "every kind comes in this time"
    story = soak(tmp_path / "fleet", seed=SEED, duration_s=DURATION_S, every_s=2.0, capacity_s=4.0, pace=2.0)
    assert len(story.disturbances) >= len(KINDS)
    assert story.answered > 20 * DURATION_S
    looks = len({sample["at_s"] for sample in story.census})
    assert growth(story.census, at_least=looks - 2), "some process lived all along"
    # A minute is short for memory, and other work may slow the machine after its capacity was measured.
    assert verdict(story, at_least=looks - 2, growth_kib=24 * 1024, below_capacity=False) == []
