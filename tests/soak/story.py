"""The soak itself: measure capacity, load the fleet to a share of it, disturb it by the schedule, heal it, and judge.

Decides what is counted; what was seen is in :class:`Story`, and :func:`verdict` says whether it is good enough.
"""

import contextlib
import os
import signal
import sqlite3
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from e2e.local_fleet import CommandFailed, LocalFleet, eventually
from nearcast.agent.layout import layout_of
from nearcast.resources import wire
from soak.chaos import SETTLE_S, Disturbance, schedule
from soak.load import IN_FLIGHT, Load, load
from soak.world import LAYERS, SITES, Census, World, open_files, world

SPARED = "ashburn"
SHARE = 0.7
SENT = 0.93
"""Least part of the load to be sent: 65 % of capacity. Processes that start take cores from the fleet for moments, and
the generator, which waits for no more than so many answers at once, then lets requests out."""
GROWTH_KIB, GROWTH_SHARE = 6 * 1024, 0.10
"""A process is flat when the last fifth of its life takes at most the larger of both more than the second fifth."""
CONNECTION_KIB = 32
"""What a connection may cost. Memory of a peak is kept for the next one, so a peak that came later is no leak."""
DRAINED_S = 60.0
"""A replaced version is gone from a ready site after this: two seconds out of the routes, at most thirty of requests in
flight, and what a slow machine adds."""
FILES, IDLE_S = 16, 90.0
"""A process holds at most this many descriptors more than before the load, this long after it."""


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
    files_before: dict[str, int] = field(default_factory=dict)
    files_after: dict[str, int] = field(default_factory=dict)
    inconsistent: list[str] = field(default_factory=list)


def soak(folder: Path, *, seed: int, duration_s: float, every_s: float, capacity_s: float, pace: float = 1.0) -> Story:
    """Run it all, and return what was seen. The fleet is gone afterwards."""
    story = Story(seed, duration_s)
    with world(folder) as fleet:
        story.files_before = _files(fleet)
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
        story.files_after = _quiet_files(fleet, story.files_before)
    left = [f"{site}: {parts}" for site in SITES if (parts := LocalFleet(folder).pids(site))]
    story.inconsistent += [f"processes left after the stop: {line}" for line in left]
    return story


def _files(fleet: World) -> dict[str, int]:
    counts = {name: open_files(pid) for name, pid in fleet.pids().items()}
    return {name: count for name, count in counts.items() if count is not None}


def _quiet_files(fleet: World, before: dict[str, int]) -> dict[str, int]:
    """Descriptors by process once idle connections are closed, or after :data:`IDLE_S`."""
    deadline_s = time.monotonic() + IDLE_S
    while True:
        now = _files(fleet)
        grown = any(count > before.get(name, 0) + FILES for name, count in now.items())
        if not grown or time.monotonic() > deadline_s:
            return now
        time.sleep(2.0)


def _capacity(fleet: World, for_s: float) -> float:
    with load(fleet.gateways, tuple(LAYERS), rate_per_s=None, clients=24) as running:
        time.sleep(2)
        before, begin_s = running.tally.answered, time.monotonic()
        time.sleep(for_s)
        rate_per_s = (running.tally.answered - before) / (time.monotonic() - begin_s)
    assert not running.tally.failures, running.tally.failures[:3]
    return round(rate_per_s, 1)


def _disturb(fleet: World, running: Load, story: Story, pace: float) -> None:
    begin_s = free_s = time.monotonic()
    for planned in schedule(story.seed, story.duration_s, SITES, SPARED, pace=pace):
        # On a slow machine things take longer to come back than planned; one at a time, all the same.
        time.sleep(max(0.0, begin_s + planned.at_s - time.monotonic(), free_s - time.monotonic()))
        at_s = time.monotonic() - begin_s
        failed = len(running.tally.failures)
        _do(fleet, running, planned)
        free_s = time.monotonic() + SETTLE_S / pace
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
    if planned.kind == "change version":
        _change_version(fleet)
    elif planned.kind == "change and kill control":
        _change_version(fleet, kill_after_s=planned.lasts_s)
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


def _change_version(fleet: World, kill_after_s: float | None = None) -> None:
    """The next version of the model that has had fewer; at will, the control plane dies while it is asked for that.

    What was not acknowledged is said again, as an operator would: it must be done once, not twice.
    """
    model = min(fleet.version, key=lambda name: (fleet.version[name], name))
    version = fleet.version[model] + 1
    _insist(lambda: fleet.release(model, version))
    assassin = threading.Timer(kill_after_s or 0.0, fleet.kept["control"].kill)
    if kill_after_s is not None:
        assassin.start()
    _insist(lambda: fleet.deploy(model, version))
    if kill_after_s is not None:
        assassin.join()


def _insist(command: Callable[[], None]) -> None:
    """Say it again until it is acknowledged: the control plane may just have been killed."""
    for attempt in range(30):
        try:
            command()
        except CommandFailed:
            assert attempt < 29, "no control plane for thirty attempts"
            time.sleep(1.0)
        else:
            return


def _kill(fleet: World, running: Load, site: str, part: str) -> None:
    if part == "gateway":
        running.excuse(site)
    died = fleet.pids().get(f"{site}/{part}")
    if died is None:
        return  # it is being replaced already
    os.kill(died, signal.SIGKILL)
    eventually(lambda: fleet.pids().get(f"{site}/{part}", died) != died, f"a new {part} at {site}", timeout_s=60)
    before = {model: running.answered_at(site, model) for model in LAYERS}
    eventually(
        lambda: all(running.answered_at(site, model) > count for model, count in before.items()),
        f"answers of every model at {site}, whose {part} was killed",
        timeout_s=60,
    )
    if part == "gateway":
        running.is_back(site)


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
    sites = fleet.commands.status()["sites"]
    for site in sites:
        if len(site["nodes"]) != 1:
            yield f"{site['name']}: one node joined, {len(site['nodes'])} are known"
    versions = {(node["plan_version"], node["routed_version"]) for site in sites for node in site["nodes"]}
    if any(plan != routed for plan, routed in versions):
        yield f"plans and routes differ (plan, routed): {sorted(versions)}"
    for model, version in fleet.version.items():
        document = fleet.commands.json("get", "deployment", model)
        if document["spec"]["version"] != str(version):
            yield f"{model}: version {version} was acknowledged last, {document['spec']['version']} is wanted"
        if document["status"]["observedGeneration"] != fleet.changes[model]:
            generation = document["status"]["observedGeneration"]
            yield f"{model}: {fleet.changes[model]} changes were acknowledged, its generation is {generation}"
    for site in SITES:
        yield from _odd_sockets(fleet, site)
    yield from _damage(fleet)
    yield from _wrong_answers(fleet)


def _odd_sockets(fleet: World, site: str) -> Iterator[str]:
    """Sockets must be those of the versions that are wanted, and no others, once what was replaced has drained."""
    wanted = {wire.model_socket(model, str(version)) for model, version in fleet.version.items()}
    deadline_s = time.monotonic() + DRAINED_S
    while (found := _sockets(fleet, site)) != wanted and time.monotonic() < deadline_s:
        time.sleep(0.5)
    if found != wanted:
        yield f"{site}: sockets {sorted(found)}, wanted {sorted(wanted)}"


def _sockets(fleet: World, site: str) -> set[str]:
    return {path.name for path in layout_of(fleet.node(site)).run_dir.iterdir() if path.name.startswith("m-")}


def _damage(fleet: World) -> Iterator[str]:
    for path in (fleet.folder / "control").glob("*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (answer,) = database.execute("PRAGMA integrity_check").fetchone()
        if answer != "ok":
            yield f"{path.name}: {answer}"


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
            {"name": name, "pid": pid, "samples": len(life), "files_more": _later_peak(life, 2 * fifth)}
            | {
                f"anon_kib_{when}": statistics.median(sample["anon_kib"] for sample in part)
                for when, part in (("early", early), ("late", late))
            }
        )
    return grown


def _later_peak(life: list[dict[str, Any]], until: int) -> int:
    """By how many descriptors the peak after the first ``until`` samples was above the one before."""
    before, after = (max(sample["files"] for sample in part) for part in (life[:until], life[until:]))
    return max(0, after - before)


def verdict(story: Story, *, at_least: int, growth_kib: int = GROWTH_KIB, below_capacity: bool = True) -> list[str]:
    """What is wrong; empty when the fleet passed.

    Args:
        at_least: samples of its memory that a process must have for its growth to mean something.
        growth_kib: what it may grow by.
        below_capacity: whether it is wrong that all queues were full, or that less than :data:`SENT` of the load was
            sent.
    """
    wrong = [f"a request failed that had another place to go: {failure}" for failure in story.failures[:10]]
    if len(story.failures) > 10:
        wrong.append(f"… and {len(story.failures) - 10} more")
    wrong += story.inconsistent
    for name, files in story.files_after.items():
        if files > story.files_before.get(name, files) + FILES:
            wrong.append(f"{name} held {story.files_before[name]} descriptors before the load, {files} after it")
    for life in growth(story.census, at_least=at_least):
        more_kib = life["anon_kib_late"] - life["anon_kib_early"] - CONNECTION_KIB * life["files_more"]
        if more_kib > max(growth_kib, GROWTH_SHARE * life["anon_kib_early"]):
            wrong.append(f"{life['name']} grew from {life['anon_kib_early']:.0f} to {life['anon_kib_late']:.0f} KiB")
    sent = story.answered + story.refused + len(story.failures)
    if below_capacity and (story.refused or sent < SENT * (sent + story.not_sent)):
        wrong.append(
            f"the offer was above capacity: {story.not_sent} of {sent + story.not_sent} requests were not sent since "
            f"{IN_FLIGHT} were waiting, {story.refused} found every queue full"
        )
    return wrong


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"  {text}\n")
