"""When a node asks, measures and reports."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nearcast.agent.estimate import Probe
from nearcast.agent.measure import MAX_PEERS, Measurements
from nearcast.agent.poll import REFRESH_S, Poller
from nearcast.agent.report import MOVED_S, SETTLED_S, Reporter, Troubles
from nearcast.agent.states import Event, PlanUnchanged
from nearcast.errors import Unauthenticated, Unavailable
from nearcast.registry.refused import Attack, TrustRefused
from nearcast.resources.status import EngineStatus, GatewayStatus, ModelDemand, NodeStatus, Share

STATUS = NodeStatus(
    site="here",
    node="n",
    software="test",
    started_at="then",
    plan_version=1,
    plan_revision="r",
    routed_version=1,
    gateway=GatewayStatus(url="http://x", peer_address="x:1", ready=True),
    engine=EngineStatus(ready=True),
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Control:
    """An uplink that remembers reports, or fails."""

    def __init__(self) -> None:
        self.reports: list[NodeStatus] = []
        self.error: Exception | None = None
        self.newest = 1

    async def report(self, status: NodeStatus) -> int:
        if self.error is not None:
            raise self.error
        self.reports.append(status)
        return self.newest

    async def renew(self, csr_pem: str) -> str:
        raise NotImplementedError


class Bench:
    """A reporter whose rounds the test turns by hand."""

    def __init__(self, folder: Path) -> None:
        self.control, self.clock, self.troubles, self.hints = Control(), Clock(), Troubles(), list[int]()
        self.status = STATUS
        self.file = folder / "status.json"
        self.reporter = Reporter(
            lambda: self.status,
            asyncio.Event(),
            self.control,
            self.file,
            60.0,
            self.hints.append,
            self.troubles,
            self.clock,
        )

    def turn(self, seconds: float = 0.0) -> int:
        """One round, ``seconds`` later; reports so far."""
        self.clock.now_s += seconds

        async def once() -> None:
            await self.reporter._write(self.status)
            if self.reporter._is_due(self.status):
                await self.reporter._send(self.status)

        asyncio.run(once())
        return len(self.control.reports)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_standing_is_told_at_once_and_nothing_is_told_twice(bench: Bench) -> None:
    assert bench.turn() == 1
    assert bench.turn(1.0) == 1
    bench.status = msgspec.structs.replace(STATUS, plan_version=2)
    assert bench.turn(0.1) == 2
    assert bench.turn(0.1) == 2


def test_without_news_a_report_comes_every_interval(bench: Bench) -> None:
    bench.turn()
    assert bench.turn(47.0) == 1
    assert bench.turn(26.0) == 2


def test_shares_that_move_are_told_some_seconds_later(bench: Bench) -> None:
    bench.turn()
    bench.status = msgspec.structs.replace(STATUS, routes={"m": (Share(percent=100, order=("a",)),)})
    assert bench.turn(MOVED_S / 2) == 1
    assert bench.turn(MOVED_S / 2) == 2
    assert bench.turn(MOVED_S) == 2


def test_a_surge_of_demand_is_told_some_seconds_later_and_a_steady_one_is_not(bench: Bench) -> None:
    bench.turn()
    bench.status = msgspec.structs.replace(STATUS, demand={"m": ModelDemand(rate_per_s=100.0)})
    assert bench.turn(MOVED_S / 2) == 1
    assert bench.turn(MOVED_S / 2) == 2
    bench.status = msgspec.structs.replace(STATUS, demand={"m": ModelDemand(rate_per_s=110.0)})
    assert bench.turn(MOVED_S) == 2
    bench.status = STATUS
    assert bench.turn(MOVED_S) == 3


def test_where_figures_come_to_rest_after_they_moved_is_told_too_once(bench: Bench) -> None:
    bench.turn()
    bench.status = msgspec.structs.replace(STATUS, demand={"m": ModelDemand(rate_per_s=100.0)})
    assert bench.turn(MOVED_S) == 2
    bench.status = msgspec.structs.replace(STATUS, demand={"m": ModelDemand(rate_per_s=115.0)})
    assert bench.turn(MOVED_S) == 2
    assert bench.turn(1.2 * SETTLED_S) == 3
    assert bench.turn(1.2 * SETTLED_S) == 3


def test_a_hint_is_passed_on_only_when_the_plan_is_newer(bench: Bench) -> None:
    bench.turn()
    assert bench.hints == []
    bench.control.newest = 9
    bench.turn(120.0)
    assert bench.hints == [9]


def test_a_lost_uplink_is_a_condition_and_retries_back_off(bench: Bench) -> None:
    bench.control.error = Unavailable("down")
    bench.turn()
    (condition,) = bench.troubles.now()
    assert (condition.type, condition.status, condition.reason) == ("Uplink", False, "Unreachable")
    bench.control.error = None
    assert bench.turn(0.01) == 0, "not before the wait is over"
    bench.status = msgspec.structs.replace(STATUS, conditions=bench.troubles.now())
    assert bench.turn(1.0) == 1
    assert bench.control.reports[-1].conditions == (), "what arrives had an uplink"
    assert bench.troubles.now() == ()
    bench.control.error = Unauthenticated("revoked")
    bench.turn(120.0)
    assert [item.reason for item in bench.troubles.now()] == ["Unauthenticated"]


def test_an_agent_that_starts_before_its_control_plane_finds_it_within_a_second(bench: Bench) -> None:
    bench.control.error = Unavailable("down")
    for _ in range(20):
        bench.turn(1.0)
    bench.control.error = None
    assert bench.turn(1.0) == 1
    bench.control.error = Unavailable("down again")
    bench.turn(100.0)
    for _ in range(10):
        bench.turn(1.0)
    bench.control.error = None
    assert bench.turn(1.0) == 1, "one that goes away later is asked ever more seldom"


def test_the_status_lies_on_the_node_with_or_without_an_uplink(bench: Bench) -> None:
    bench.control.error = Unavailable("down")
    bench.turn()
    assert msgspec.json.decode(bench.file.read_bytes(), type=NodeStatus) == STATUS
    bench.file.unlink()
    bench.turn(0.1)
    assert not bench.file.exists(), "not written again without news"
    bench.turn(2.0)
    assert bench.file.exists()


def test_a_poller_asks_again_at_once_after_a_hint() -> None:
    seen: list[Event] = []

    class Asked:
        def poll(self) -> PlanUnchanged:
            return PlanUnchanged()

        def refresh_releases(self) -> None:
            raise AssertionError

    async def story() -> None:
        poller = Poller(Asked(), seen.append, 3600.0, "n", Troubles())  # type: ignore[arg-type]
        task = asyncio.create_task(poller.run())
        await until(lambda: len(seen) == 1)
        poller.hint()
        await until(lambda: len(seen) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - no time passes
            await asyncio.sleep(0)


def test_peers_are_followed_and_forgotten() -> None:
    asked: list[str] = []

    class Prober:
        async def probe(self, site: str) -> Probe:
            asked.append(site)
            await asyncio.sleep(0)
            return Probe(at_s=1.0, round_trip_s=0.1)

    async def story() -> None:
        measurements = Measurements(Prober(), lambda: 3600.0)
        measurements.follow(tuple(f"site-{n}" for n in range(MAX_PEERS + 3)))
        await until(lambda: len(measurements.estimates) == MAX_PEERS)
        measurements.follow(("site-1", "new"))
        await until(lambda: measurements.estimates.keys() == {"site-1", "new"})
        assert asked.count("site-1") == 1, "one that is followed already is not asked anew"
        await measurements.stop()
        assert measurements.estimates == {}

    asyncio.run(story())


def test_releases_that_are_refused_are_a_condition_until_they_are_well_again() -> None:
    """The daily look: nobody waits for it, so only a condition can tell."""

    class Asked:
        error: TrustRefused | None = TrustRefused(Attack.FREEZE, "timestamp", "releases/metadata/timestamp.json", "old")
        looks = 0

        def poll(self) -> PlanUnchanged:
            return PlanUnchanged()

        def refresh_releases(self) -> None:
            self.looks += 1
            if self.error is not None:
                raise self.error

    async def story() -> None:
        asked, clock, troubles = Asked(), Clock(), Troubles()
        poller = Poller(asked, lambda _event: None, 3600.0, "n", troubles, clock)  # type: ignore[arg-type]
        task = asyncio.create_task(poller.run())
        await asyncio.sleep(0)
        for error in (asked.error, None):
            asked.error, before = error, asked.looks
            clock.now_s += REFRESH_S
            poller.hint()
            await until(lambda before=before: asked.looks > before)
            await until(lambda error=error: bool(troubles.now()) == (error is not None))
            told = [(item.type, item.status, item.reason) for item in troubles.now()]
            assert told == ([("ReleasesTrusted", False, "TrustRefused")] if error else [])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


def test_told_to_stop_in_the_tick_of_a_hint_the_poller_ends() -> None:
    """What it waited for is done, and it is cancelled before it went on: the cancellation must not be lost."""
    asked: list[Event] = []

    class Asked:
        def poll(self) -> Event:
            return PlanUnchanged()

    async def story() -> bool:
        poller = Poller(Asked(), asked.append, 3600.0, "n", Troubles())  # type: ignore[arg-type]
        polling = asyncio.create_task(poller.run())
        await until(lambda: len(asked) == 1)
        await asyncio.sleep(0)
        poller.hint()
        polling.cancel()
        done, _ = await asyncio.wait([polling], timeout=1.0)
        polling.cancel()
        return bool(done)

    assert asyncio.run(story())
