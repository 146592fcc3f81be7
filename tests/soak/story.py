"""The soak itself: measure capacity, load the fleet to a share of it, disturb it by the schedule, heal it, and judge.

Decides what is counted; what was seen is in :class:`Story`, and :func:`verdict` says whether it is good enough.
"""

import contextlib
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from e2e.local_fleet import LocalFleet, eventually
from soak.chaos import Disturbance, schedule
from soak.load import Load, load
from soak.world import HOLDERS, LAYERS, SITES, Census, World, world

SPARED = "ashburn"
SHARE = 0.7
GROWTH_KIB, GROWTH_SHARE = 6 * 1024, 0.10
"""A process is flat when the last fifth of its life takes at most the larger of both more than the second fifth."""
FILES = 40


@dataclass
class Story:
    """What happened. All times in seconds from the begin of the load."""

    seed: int
    duration_s: float
    capacity_per_s: float = 0.0
    offered_per_s: float = 0.0
    disturbances: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    refused: int = 0
    not_sent: int = 0
    by_place: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, object]] = field(default_factory=list)
    rerouted: list[dict[str, object]] = field(default_factory=list)
    wait_ms: dict[str, float] = field(default_factory=dict)
    wait_by_10_s: list[dict[str, float]] = field(default_factory=list)
    census: list[dict[str, Any]] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)


def soak(folder: Path, *, seed: int, duration_s: float, every_s: float, capacity_s: float, pace: float = 1.0) -> Story:
    """Run it all, and return what was seen. The fleet is gone afterwards."""
    story = Story(seed, duration_s)
    with world(folder) as fleet:
        story.capacity_per_s = _capacity(fleet, capacity_s)
        story.offered_per_s = round(SHARE * story.capacity_per_s, 1)
        say(f"capacity {story.capacity_per_s:.0f}/s, offering {story.offered_per_s:.0f}/s for {duration_s:.0f} s")
        with Census(fleet, every_s) as census:
            with load(fleet.gateways, tuple(LAYERS), rate_per_s=story.offered_per_s, seed=seed) as running:
                _disturb(fleet, running, story, pace)
            fleet.settle()
            _tell(story, running)
        story.census = census.samples
        story.inconsistent = list(inconsistencies(fleet))
    left = [f"{site}: {parts}" for site in SITES if (parts := LocalFleet(folder).pids(site))]
    story.inconsistent += [f"processes left after the stop: {line}" for line in left]
    return story


def _capacity(fleet: World, for_s: float) -> float:
    with load(fleet.gateways, tuple(LAYERS), rate_per_s=None, clients=24) as running:
        time.sleep(2)
        before, begin_s = running.tally.answered, time.monotonic()
        time.sleep(for_s)
        rate_per_s = (running.tally.answered - before) / (time.monotonic() - begin_s)
    assert not running.tally.failures, running.tally.failures[:3]
    return round(rate_per_s, 1)


def _disturb(fleet: World, running: Load, story: Story, pace: float) -> None:
    begin_s = time.monotonic()
    for planned in schedule(story.seed, story.duration_s, SITES, SPARED, pace=pace):
        time.sleep(max(0.0, begin_s + planned.at_s - time.monotonic()))
        at_s = time.monotonic() - begin_s
        failed = len(running.tally.failures)
        _do(fleet, running, planned)
        story.disturbances.append(
            asdict(planned) | {"began_s": round(at_s, 2), "failures": len(running.tally.failures) - failed}
        )
        say(
            f"{at_s:6.0f} s {planned.kind} {planned.site}: "
            f"{running.tally.answered} answered, {len(running.tally.failures)} failed"
        )
    time.sleep(max(0.0, begin_s + story.duration_s - time.monotonic()))


def _do(fleet: World, running: Load, planned: Disturbance) -> None:
    """Disturb, hold as long as the schedule says, undo, and see that what was killed is back."""
    verb, _, what = planned.kind.partition(" ")
    if verb == "change":
        _change_version(fleet)
    elif planned.kind == "kill control":
        fleet.kept["control"].kill()
        time.sleep(planned.lasts_s)
    elif verb == "kill":
        _kill(fleet, running, planned.site, what)
    elif verb == "freeze":
        _freeze(fleet, planned)
    else:
        link = f"{'peers' if what == 'peers' else 'uplink'}:{planned.site}"
        fleet.links.tell(verb, link)
        time.sleep(planned.lasts_s)
        fleet.links.tell("heal", link)


def _change_version(fleet: World) -> None:
    model = min(fleet.version, key=lambda name: (fleet.version[name], name))
    version = fleet.version[model] + 1
    fleet.release(model, version)
    fleet.deploy(model, version)


def _kill(fleet: World, running: Load, site: str, part: str) -> None:
    if part == "gateway":
        running.excuse(site)
    died = fleet.pids().get(f"{site}/{part}")
    if died is None:
        return  # it is being replaced already
    os.kill(died, signal.SIGKILL)
    eventually(lambda: fleet.pids().get(f"{site}/{part}", died) != died, f"a new {part} at {site}", timeout_s=60)


def _freeze(fleet: World, planned: Disturbance) -> None:
    pid = fleet.pids().get(f"{planned.site}/engine")
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(planned.lasts_s)
        os.kill(pid, signal.SIGCONT)


def _tell(story: Story, running: Load) -> None:
    tally = running.tally
    story.answered, story.refused, story.not_sent = tally.answered, tally.refused, tally.not_sent
    story.failures, story.rerouted = tally.failures, tally.rerouted
    places: Counter[str] = Counter()
    for (gateway, site, served), count in tally.answers.items():
        places[f"{gateway} > {site}: {served.partition('@')[0]}"] += count
    story.by_place = dict(sorted(places.items()))
    waits = sorted(wait_s for _, wait_s in tally.waits)
    story.wait_ms = {
        name: _quantile(waits, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }
    slices: dict[int, list[float]] = {}
    for at_s, wait_s in tally.waits:
        slices.setdefault(int(at_s // 10), []).append(wait_s)
    story.wait_by_10_s = [
        {
            "at_s": n * 10.0,
            "requests": len(part),
            "p50_ms": _quantile(sorted(part), 0.5),
            "p99_ms": _quantile(sorted(part), 0.99),
        }
        for n, part in sorted(slices.items())
    ]


def _quantile(ordered: list[float], q: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3, 2) if ordered else 0.0


def inconsistencies(fleet: World) -> Iterator[str]:
    """What does not fit together on a fleet that is healed and was given time to settle."""
    status = fleet.commands.status()
    for site in status["sites"]:
        nodes = site["nodes"]
        if len(nodes) != 1:
            yield f"{site['name']}: one node joined, {len(nodes)} are known"
    for model, version in fleet.version.items():
        document = fleet.commands.json("get", "deployment", model)
        if document["spec"]["version"] != str(version):
            yield f"{model}: version {version} was acknowledged last, {document['spec']['version']} is wanted"
        for site in HOLDERS[model]:
            loaded = sorted(path.name for path in fleet.node(site).glob("models/*") if path.is_dir())
            if not loaded:
                yield f"{site}: no model lies on its disk"
    revisions = {
        model: fleet.commands.json("get", "deployment", model)["metadata"].get("generation") for model in LAYERS
    }
    for model, generation in revisions.items():
        wanted = sum(1 for name, _ in fleet.acknowledged if name == model)
        if generation is not None and generation != wanted:
            yield f"{model}: {wanted} changes were acknowledged, its generation is {generation}"
    yield from _wrong_answers(fleet)


def _wrong_answers(fleet: World) -> Iterator[str]:
    with load(fleet.gateways, tuple(LAYERS), rate_per_s=40.0) as running:
        eventually(lambda: running.tally.answered + len(running.tally.failures) > 120, "answers at the end")
    for failure in running.tally.failures[:3]:
        yield f"after the end: {failure}"
    served = {name for _, _, name in running.tally.answers}
    wanted = {f"{model}@{version}" for model, version in fleet.version.items()}
    if served != wanted:
        yield f"after the end {sorted(served)} answer, {sorted(wanted)} are wanted"


def growth(samples: list[dict[str, Any]], *, at_least: int) -> list[dict[str, Any]]:
    """Per process that lived for ``at_least`` samples: medians of the second and the last fifth of its life."""
    lives: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for sample in samples:
        lives.setdefault((sample["name"], sample["pid"]), []).append(sample)
    grown = []
    for (name, pid), life in sorted(lives.items()):
        fifth = len(life) // 5
        if len(life) < at_least or not fifth:
            continue
        early, late = life[fifth : 2 * fifth], life[-fifth:]
        grown.append(
            {"name": name, "pid": pid, "samples": len(life)}
            | {
                f"{key}_{when}": statistics.median(sample[key] for sample in part)
                for key in ("anon_kib", "files")
                for when, part in (("early", early), ("late", late))
            }
        )
    return grown


def verdict(
    story: Story, *, at_least: int, growth_kib: int = GROWTH_KIB, files: int = FILES, below_capacity: bool = True
) -> list[str]:
    """What is wrong; empty when the fleet passed.

    Args:
        at_least: samples of its memory that a process must have for its growth to mean something.
        growth_kib: what it may grow by.
        files: how many more descriptors it may hold.
        below_capacity: whether it is wrong that all queues were full, or that too many requests waited to send more.
    """
    wrong = [f"a request failed that had another place to go: {failure}" for failure in story.failures[:10]]
    if len(story.failures) > 10:
        wrong.append(f"… and {len(story.failures) - 10} more")
    wrong += story.inconsistent
    for life in growth(story.census, at_least=at_least):
        more_kib = life["anon_kib_late"] - life["anon_kib_early"]
        if more_kib > max(growth_kib, GROWTH_SHARE * life["anon_kib_early"]):
            wrong.append(f"{life['name']} grew from {life['anon_kib_early']:.0f} to {life['anon_kib_late']:.0f} KiB")
        if life["files_late"] - life["files_early"] > files:
            wrong.append(f"{life['name']} went from {life['files_early']:.0f} to {life['files_late']:.0f} descriptors")
    if below_capacity and (story.not_sent or story.refused):
        wrong.append(
            f"the offer was above capacity: {story.not_sent} requests were not sent since 512 were waiting, "
            f"{story.refused} found every queue full"
        )
    return wrong


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"  {text}\n")
