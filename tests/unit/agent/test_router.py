"""The keeper of the gateway: files are written only when they differ, offers are answered, a lost Envoy comes back."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nearcast.agent.book import ProcessBook
from nearcast.agent.estimate import Probe
from nearcast.agent.layout import Layout
from nearcast.agent.measure import Measurements
from nearcast.agent.memory import Memory
from nearcast.agent.router import BASE_TRUST_S, Aside, Router
from nearcast.agent.settings import Settings
from nearcast.agent.states import Event, GatewayAccepted, GatewayRefused, GatewayUp, Key, Serving
from nearcast.agent.supervise import GATEWAY
from nearcast.errors import Bug, InvalidInput
from nearcast.gateway.render import GatewayFiles, Identity
from nearcast.resources.plan import Peer, PlannedModel, PlannedShare, ServedModel, SiteFacts, SitePlan

M1 = Key("m", "1")
HERE = SiteFacts(name="here", tier="edge", country="DE")
AWAY = SiteFacts(name="away", tier="edge", country="US")
PLAN = SitePlan(
    fleet="f",
    site=HERE,
    version=1,
    revision="r",
    models=(PlannedModel(model="m", version="1", release="sha256:r", deployment="m"),),
    peers=(
        Peer(
            site=AWAY,
            addresses=("127.0.0.1:9",),
            server_name="away.f",
            round_trip_s=0.1,
            models=(ServedModel(model="m", version="1"),),
        ),
    ),
    catalog=("m",),
)


class FakeGateway:
    """An Envoy that confirms everything, or what the test lets it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.files: list[GatewayFiles] = []
        self.start_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.alive = False

    def start_or_adopt(self, files: GatewayFiles) -> str:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error
        self.alive = True
        self.files.append(files)
        return "started"

    def pid(self) -> int | None:
        return os.getpid() if self.alive else None

    def install_identity(self, identity: Identity) -> bool:
        self.calls.append("identity")
        return True

    def apply(self, files: GatewayFiles) -> str:
        self.calls.append("apply")
        if self.apply_error is not None:
            raise self.apply_error
        self.files.append(files)
        return files.version

    def retire(self, files: GatewayFiles) -> None:
        self.calls.append("retire")

    def stats(self, pattern: str = "") -> dict[str, str]:
        return {}

    def kill(self) -> None:
        self.alive = False

    def tend(self) -> None:
        self.calls.append("tend")

    def turn_away(self, files: GatewayFiles, linger_s: float) -> None:
        self.calls.append("turn away")
        self.files.append(files)

    def drain_and_stop(self, *, timeout_s: float = 10.0) -> None:
        self.calls.append("stop")
        self.alive = False


class Silent:
    async def probe(self, site: str) -> Probe:
        await asyncio.sleep(3600)
        raise AssertionError


class Desk:
    """A router whose rounds the test turns by hand, under a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self.aside = Aside()
        self.gateway = FakeGateway()
        self.events: list[Event] = []
        self.layout = Layout(data_dir=folder / "data", run_dir=folder / "run" / "x")
        self.layout.make()
        self.book = ProcessBook(self.layout.processes)
        self.measurements = Measurements(Silent())
        self.settings = Settings(data_dir=self.layout.data_dir)
        self.router = Router(
            self.gateway,
            self.settings,
            self.layout,
            "n",
            Identity("cert", "key", "ca"),
            self.measurements,
            Memory(self.layout.plan),
            self.book,
            self.events.append,
            lambda: self.now_s,
            lambda: self.aside,
        )

    async def turn(self, seconds: float = 1.0) -> list[Event]:
        """One round; the events that it brought."""
        self.now_s += seconds
        self.events.clear()
        assert self.router._offer is not None
        await self.router._keep(*self.router._offer)
        return list(self.events)


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Desk], object]], None]:
    def run(story: Callable[[Desk], object]) -> None:
        async def whole() -> None:
            desk = Desk(tmp_path)
            await story(desk)  # type: ignore[misc]
            await desk.measurements.stop()
            if desk.router._watch is not None:
                desk.router._watch.cancel()

        asyncio.run(whole())

    return run


Play = Callable[[Callable[[Desk], object]], None]
EMPTY = Serving(PLAN)
FULL = Serving(PLAN, frozenset({M1}), {"m": "1"})


def test_the_first_offer_starts_the_gateway_and_later_ones_are_applied(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, EMPTY)
        assert await desk.turn() == [GatewayUp(), GatewayAccepted(1, EMPTY)]
        desk.router.offer(2, FULL)
        assert await desk.turn() == [GatewayAccepted(2, FULL)]
        assert desk.gateway.calls == ["start", "apply"]
        assert desk.book.find(GATEWAY) is not None
        first, second = desk.gateway.files
        assert first.version != second.version
        in_force = desk.router.in_force
        assert in_force is not None
        assert in_force.version == second.version

    play(story)


def test_nothing_is_written_while_nothing_changes(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, FULL)
        await desk.turn()
        for _ in range(3):
            assert await desk.turn(0.1) == []
        assert desk.gateway.calls == ["start"]

    play(story)


def test_the_same_content_under_a_new_generation_is_confirmed_again(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, FULL)
        await desk.turn()
        desk.router.offer(2, FULL)
        assert await desk.turn() == [GatewayAccepted(2, FULL)]

    play(story)


def test_refused_files_are_not_tried_again_before_a_new_offer(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, EMPTY)
        await desk.turn()
        desk.gateway.apply_error = Bug("no such field")
        desk.router.offer(2, FULL)
        assert await desk.turn() == [GatewayRefused(2, "Rejected", "no such field")]
        assert await desk.turn() == []
        desk.gateway.apply_error = None
        desk.router.offer(3, FULL)
        assert await desk.turn() == [GatewayAccepted(3, FULL)]

    play(story)


def test_a_gateway_that_does_not_start_is_tried_with_growing_waits(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.gateway.start_error = Bug("no such field")
        desk.router.offer(1, EMPTY)
        assert await desk.turn() == [GatewayRefused(1, "Rejected", "no such field")]
        assert await desk.turn(0.01) == []
        starts = 0
        for _ in range(100):
            await desk.turn(1.0)
            starts = desk.gateway.calls.count("start")
        assert 8 <= starts <= 30

    play(story)


def test_an_open_port_that_is_taken_is_chosen_anew_unless_it_has_served(play: Play) -> None:
    async def story(desk: Desk) -> None:
        first = desk.router.addresses
        desk.gateway.start_error = InvalidInput("Address already in use")
        desk.router.offer(1, EMPTY)
        assert await desk.turn() == [GatewayRefused(1, "AddressInUse", "Address already in use")]
        second = desk.router.addresses
        assert second != first
        desk.gateway.start_error = None
        await desk.turn(30.0)
        assert desk.router.addresses == second
        desk.router._failed_start(1, InvalidInput("Address already in use"))
        assert desk.router.addresses == second, "clients know it"

    play(story)


def test_old_clusters_go_after_a_quiet_while(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, EMPTY)
        await desk.turn()
        desk.router.offer(2, FULL)
        await desk.turn()
        await desk.turn(3.0)
        assert "retire" not in desk.gateway.calls
        await desk.turn(3.0)
        assert desk.gateway.calls.count("retire") == 1
        await desk.turn(30.0)
        assert desk.gateway.calls.count("retire") == 1

    play(story)


def test_local_serves_while_it_is_loaded_and_the_peer_otherwise(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, EMPTY)
        await desk.turn()
        in_force = desk.router.in_force
        assert in_force is not None
        assert [share.order[0] for share in in_force.table.models["m"].shares] == ["away"]
        desk.router.offer(2, FULL)
        for _ in range(10):
            await desk.turn()
        in_force = desk.router.in_force
        assert in_force is not None
        assert [share.order[0] for share in in_force.table.models["m"].shares] == ["here"]

    play(story)


def test_shares_of_the_plan_count_while_the_control_plane_is_heard_of(play: Play) -> None:
    async def story(desk: Desk) -> None:
        planned = msgspec.structs.replace(PLAN, routes={"m": (PlannedShare(site="away", share=1.0),)})
        desk.router.offer(1, Serving(planned, frozenset({M1}), {"m": "1"}))
        desk.aside = Aside(contact_age_s=1.0)

        async def first_places() -> list[str]:
            for _ in range(12):
                await desk.turn()
            assert desk.router.in_force is not None
            return [share.order[0] for share in desk.router.in_force.table.models["m"].shares]

        assert await first_places() == ["away"]
        desk.aside = Aside(contact_age_s=BASE_TRUST_S + 1.0)
        assert await first_places() == ["here"]
        desk.aside = Aside(contact_age_s=None)
        assert await first_places() == ["away"], "since the start it has not been long"

    play(story)


def test_shares_in_force_outlive_the_agent(play: Play, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, FULL)
        await desk.turn()
        kept = Memory(desk.layout.plan).routes()
        assert kept is not None
        assert kept.models["m"].shares[0].order[0] == "here"

    play(story)


def test_peers_are_sent_elsewhere_before_the_end(play: Play) -> None:
    async def story(desk: Desk) -> None:
        desk.router.offer(1, Serving(msgspec.structs.replace(PLAN, callers=(AWAY,)), frozenset({M1}), {"m": "1"}))
        await desk.turn()
        serving = desk.gateway.files[-1]
        await desk.router.stop(1.0)
        assert desk.gateway.calls[-2:] == ["turn away", "stop"]
        leaving = desk.gateway.files[-1]
        assert b"x-nearcast-full" in leaving.routes["peer"].encode()
        assert b"engine:" in serving.routes["peer"].encode()
        assert b"engine" not in leaving.routes["peer"].encode()
        assert leaving.routes["public"] == serving.routes["public"]  # own clients are served to the end

    play(story)


@pytest.mark.parametrize("has_plan", [False, True])
def test_nobody_is_sent_elsewhere_by_a_node_that_nobody_asks(play: Play, has_plan: bool) -> None:
    async def story(desk: Desk) -> None:
        if has_plan:
            desk.router.offer(1, EMPTY)
            await desk.turn()
        await desk.router.stop(1.0)
        assert "turn away" not in desk.gateway.calls
        assert desk.gateway.calls[-1] == "stop"

    play(story)
