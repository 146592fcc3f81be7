"""Reading the node's meters: what clients ask, from the own Envoy, and what models cost, from the own engine.

Decides when: Envoy every second, the engine every :data:`PROFILE_S`. What is read means nothing here: `demand` makes
rates of it, and the engine has learned already. Nothing is asked per request.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from nearcast.agent.demand import Demand
from nearcast.errors import Unavailable
from nearcast.gateway.demand import Asked
from nearcast.resources.status import EngineProfile, ModelDemand, ModelProfile, NodeCapacity

TICK_S: Final = 1.0
PROFILE_S: Final = 2.0
PROFILES_MAX: Final = 128
"""Profiles told of: models on one node are few."""

log = logging.getLogger(__name__)


class Counts(Protocol):
    """The gateway's totals; `gateway.apply.Gateway` has them."""

    def asked(self) -> Mapping[str, Asked]:
        """What clients have asked, by model. Blocks; raises Unavailable where nobody answers."""


class Profiles(Protocol):
    """The engine's profile; `engine_client.EngineReports` has it."""

    async def profile(self) -> EngineProfile | None:
        """What models cost and what there is; None where the engine does not say."""


class Meter:
    """The meters of one node. For the loop's thread.

    Args:
        gateway, engine: are asked.
        catalog: models of the plan in force.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        gateway: Counts,
        engine: Profiles,
        catalog: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._engine = engine
        self._catalog = catalog
        self._clock = clock
        self._demand = Demand()
        self._profile: EngineProfile | None = None
        self._capacity: NodeCapacity | None = None
        self._asked_s = -PROFILE_S

    @property
    def demand(self) -> dict[str, ModelDemand]:
        """What clients ask here."""
        return self._demand.now()

    @property
    def profiles(self) -> tuple[ModelProfile, ...]:
        """What the loaded models cost; empty while the engine does not say."""
        return () if self._profile is None else self._profile.profiles[:PROFILES_MAX]

    @property
    def capacity(self) -> NodeCapacity | None:
        """What there is; None until the engine said it once. One that starts again is on the same node, and a node that
        tells no capacity is taken for one of an older release: its plan would change with each crash."""
        return self._capacity

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(TICK_S)

    async def read(self) -> None:
        """Read once what is due. A gateway that does not answer asks nothing of anybody: its rates stand still."""
        try:
            totals = await asyncio.to_thread(self._gateway.asked)
        except Unavailable:
            pass
        else:
            self._demand.take(totals, self._catalog(), self._clock())
        if self._capacity is None or self._clock() - self._asked_s >= PROFILE_S:
            self._asked_s = self._clock()
            self._profile = await self._engine.profile()
            self._capacity = self._profile.capacity if self._profile is not None else self._capacity
