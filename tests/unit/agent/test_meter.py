"""When the meters are read, and what is told while somebody does not answer."""

import asyncio
from collections.abc import Mapping

from nearcast.agent.meter import PROFILE_S, Meter
from nearcast.errors import Unavailable
from nearcast.gateway.demand import Asked
from nearcast.resources.status import EngineProfile, ModelProfile, NodeCapacity

PROFILE = EngineProfile(
    capacity=NodeCapacity(workers=1.0, memory_bytes=1 << 30),
    profiles=(ModelProfile(model="m", version="1", service_s=0.01, work_s=0.002),),
)


class Node:
    """A gateway and an engine that say what the test lets them."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.totals: Mapping[str, Asked] | None = {}
        self.told: EngineProfile | None = PROFILE
        self.questions = 0
        self.meter = Meter(self, self, lambda: ("m",), lambda: self.now_s)

    def asked(self) -> Mapping[str, Asked]:
        if self.totals is None:
            raise Unavailable("no Envoy")
        return self.totals

    async def profile(self) -> EngineProfile | None:
        self.questions += 1
        return self.told

    def read(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        asyncio.run(self.meter.read())


def test_before_anybody_has_answered_nothing_is_claimed() -> None:
    meter = Node().meter
    assert (meter.demand, meter.profiles, meter.capacity) == ({}, (), None)


def test_demand_profiles_and_capacity_are_read() -> None:
    node = Node()
    node.read()
    node.totals = {"m": Asked(requests=50)}
    node.read()
    assert node.meter.demand["m"].rate_per_s > 0
    assert (node.meter.profiles, node.meter.capacity) == (PROFILE.profiles, PROFILE.capacity)


def test_the_engine_is_asked_seldom() -> None:
    node = Node()
    for _ in range(10):
        node.read(PROFILE_S / 4)
    assert node.questions == 3


def test_a_gateway_that_does_not_answer_leaves_the_rates_and_the_next_answer_is_spread_over_the_pause() -> None:
    node = Node()
    node.read()
    node.totals = None
    for _ in range(9):
        node.read()
    assert node.meter.demand == {}
    node.totals = {"m": Asked(requests=100)}
    node.read()
    assert 0 < node.meter.demand["m"].rate_per_s <= 10.0


def test_an_engine_that_has_gone_has_no_profile_but_the_node_is_what_it_was() -> None:
    node = Node()
    node.read()
    node.told = None
    node.read(PROFILE_S)
    assert (node.meter.profiles, node.meter.capacity) == ((), PROFILE.capacity)


def test_an_engine_is_asked_until_it_has_told_its_capacity() -> None:
    node = Node()
    node.told = None
    node.read()
    node.told = PROFILE
    node.read()
    assert node.meter.capacity == PROFILE.capacity, "without one, the node would be taken for one of an older release"
