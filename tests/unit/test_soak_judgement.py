"""The soak's judgement can say no: each thing that it promises to notice is planted here."""

from itertools import pairwise

from soak.chaos import KILLS, KINDS, schedule
from soak.story import Story, growth, verdict

SITES = ("a", "b", "c")


def life(name: str, kib: list[int], files: int = 20) -> list[dict[str, object]]:
    return [{"at_s": n, "name": name, "pid": 7, "anon_kib": value, "files": files} for n, value in enumerate(kib)]


def test_a_schedule_is_the_same_for_the_same_seed_and_disturbs_one_site_at_a_time() -> None:
    once, again = schedule(3, 1800, SITES, "c"), schedule(3, 1800, SITES, "c")
    assert once == again
    assert once != schedule(4, 1800, SITES, "c")
    assert {item.kind for item in once} == {kind.name for kind in KINDS}
    assert all(a.end_s < b.at_s for a, b in pairwise(once))
    assert once[-1].end_s < 1800


def test_no_process_of_the_spared_site_is_killed() -> None:
    for seed in range(20):
        assert all(item.site != "c" for item in schedule(seed, 900, SITES, "c") if item.kind in KILLS)


def test_a_leak_is_told_from_noise() -> None:
    flat = [100_000 + (n * 37) % 500 for n in range(100)]
    leak = [100_000 + n * 400 for n in range(100)]
    assert verdict(Story(1, 10, census=life("flat", flat)), at_least=50) == []
    assert verdict(Story(1, 10, census=life("leak", leak)), at_least=50) == ["leak grew from 111800 to 135800 KiB"]


def test_memory_of_a_later_peak_of_connections_is_no_leak() -> None:
    grown = life("gateway", [32_000] * 60) + life("gateway", [44_000] * 40)
    peak = [sample | {"files": 400 if n < 60 else 900} for n, sample in enumerate(grown)]
    assert verdict(Story(1, 10, census=peak), at_least=50) == []
    assert verdict(Story(1, 10, census=grown), at_least=50) == ["gateway grew from 32000 to 44000 KiB"]


def test_a_process_that_was_started_again_begins_a_new_life() -> None:
    first = life("engine", [50_000] * 40)
    second = [sample | {"pid": 8, "anon_kib": 90_000} for sample in life("engine", [0] * 40)]
    assert verdict(Story(1, 10, census=first + second), at_least=20) == []
    assert len(growth(first + second, at_least=20)) == 2


def test_lost_descriptors_failures_and_what_does_not_fit_are_said() -> None:
    files = {"files_before": {"gateway": 20}, "files_after": {"gateway": 60}}
    story = Story(1, 10, **files, failures=[{"text": "503"}], inconsistent=["two nodes"], not_sent=3, refused=5)
    said = " ".join(verdict(story, at_least=20))
    for words in ("descriptors", "503", "two nodes", "3 of 9 requests were not sent", "5 found every queue full"):
        assert words in said


def test_a_load_that_was_sent_but_for_moments_was_below_capacity() -> None:
    assert verdict(Story(1, 10, answered=940, not_sent=60), at_least=20) == []
    assert "100 of 1000 requests were not sent" in verdict(Story(1, 10, answered=900, not_sent=100), at_least=20)[0]
