"""The loops: the fleet is planned, desired state and facts become published plans, and signatures stay fresh.

Only the replica that leads publishes and signs; the others keep what is published in mind, to take over at once.

Decides when: a ring is answered at once, unless the last pass was less than the publish interval ago, so that what
comes together is published together; every few seconds a pass looks for what only time changes (a node falls silent).
Each pass is level-triggered and starts from what is, so a pass that failed or was killed is made good by the next one.
An error that is not one of ours ends the process: its supervisor starts it again from what is.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import perf_counter
from typing import Final

from nearcast.control.backup import RESTORED
from nearcast.control.changes import ensure_models
from nearcast.control.follower import FOLLOW_EVERY_S
from nearcast.control.leader import HOLD_EVERY_S
from nearcast.control.observer import Observer
from nearcast.control.plane import ControlPlane
from nearcast.control.planner import Planner
from nearcast.control.recorder import FAILED, PUBLISH, PUBLISHED
from nearcast.errors import Bug, NearcastError, Unavailable
from nearcast.resources.plan import SitePlan

log = logging.getLogger(__name__)

TICK_S: Final = 5.0
RENEWAL_EVERY_S: Final = 3600.0
PAUSE_S: Final = 5.0
LAST_CALL: Final = timedelta(days=30)
"""How long before its end the list of releases is warned of: only a releaser can sign it, nobody here."""


class Controllers:
    """Brings the published world after the desired one. One at a time per control plane."""

    def __init__(
        self, plane: ControlPlane, observer: Observer, planner: Planner, renew_server: Callable[[datetime], None]
    ) -> None:
        self._plane = plane
        self._planner = planner
        self._changed = asyncio.Event()
        self._observer = observer
        self._renew_server = renew_server
        self._noted: Mapping[str, SitePlan] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publishing())
            group.create_task(self._planning())
            if self._plane.database.is_shared:
                group.create_task(self._leading())
                group.create_task(self._following())
            group.create_task(self._renewing())

    async def _publishing(self) -> None:
        bell, interval_s = self._plane.bell, self._plane.settings.publish_interval_s
        clock = asyncio.get_running_loop().time
        began_s = clock() - interval_s
        rung = True
        while True:
            if rung:
                await asyncio.sleep(began_s + interval_s - clock())
            began_s = clock()
            if not await self._tried(functools.partial(self.step, note=rung)):
                bell.ring()
            rung = await bell.wait(TICK_S)
            if rung:
                self._changed.set()

    async def _planning(self) -> None:
        """Plan again and again; soon after a ring, since what rang may be a change of the desired state.

        A plan that cannot be made must not keep changes from being published: sites go on by the guidance in force,
        and whoever operates the fleet finds the reason in the log and in the count of failed passes.
        """
        while True:
            self._changed.clear()
            try:
                await asyncio.to_thread(self._planner.step)
            except Exception as error:
                self._plane.recorder.count(FAILED)
                expected = isinstance(error, NearcastError) and not isinstance(error, Bug)
                log.warning("planning failed: %s", error, exc_info=None if expected else error)
            least_s = max(self._plane.settings.publish_interval_s, self._planner.took_s)
            await asyncio.sleep(least_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._planner.pause_s - least_s):
                    await self._changed.wait()

    async def _leading(self) -> None:
        while True:
            led = self._plane.leader.leads
            await self._tried(self._plane.leader.hold, pause_s=0.0)
            if self._plane.leader.leads and not led:
                self._plane.bell.ring()
            await asyncio.sleep(HOLD_EVERY_S)

    async def _following(self) -> None:
        while True:
            await self._tried(self._plane.follower.follow, pause_s=0.0)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def _renewing(self) -> None:
        while True:
            while not await self._tried(self.renew):
                pass
            await asyncio.sleep(RENEWAL_EVERY_S)

    async def _tried(self, work: Callable[[], object], pause_s: float = PAUSE_S) -> bool:
        """Whether ``work`` came to its end; a pause comes after a failure that may pass."""
        try:
            await asyncio.to_thread(work)
        except Bug:
            raise
        except NearcastError as error:
            pause_s = max(pause_s, error.retry_after_s if isinstance(error, Unavailable) else 0.0)
            self._plane.recorder.count(FAILED)
            log.warning("it failed and is tried again in %.0f s: %s", pause_s, error)
            await asyncio.sleep(pause_s)
            return False
        return True

    def step(self, *, note: bool = True) -> tuple[str, ...]:
        """One pass: of the leader, a publication; of another replica, a look at what is published.

        Args:
            note: look at every condition even if neither state nor facts changed; statuses may have.

        Returns:
            The sites that got a new plan.
        """
        if not self._plane.leader.leads:
            self._plane.publisher.published(site.name for site in self._plane.store.snapshot().state.sites)
            return ()
        ensure_models(self._plane)
        self._after_restore()
        plans = self._observer.plans(self._plane.store.snapshot())
        began_s = perf_counter()
        published = self._plane.publisher.publish(plans)
        if published:
            self._plane.recorder.count(PUBLISHED, by=len(published))
            self._plane.recorder.time(PUBLISH, perf_counter() - began_s)
            log.info("published plan %d for %d sites", self._version(published[0]), len(published))
        if note or published or plans is not self._noted:
            self._observer.note_conditions()
            self._noted = plans
        return published

    def _after_restore(self) -> None:
        """Sign the list of releases above all that sites may have seen before what was lost (`backup`)."""
        floor = self._plane.database.setting(RESTORED)
        if floor:
            self._plane.releases.raise_to(int(floor))
            self._plane.database.set_setting(RESTORED, "")

    def _version(self, site: str) -> int:
        entry = self._plane.publisher.of(site)
        return entry.plan.version if entry else 0

    def renew(self) -> None:
        """Sign anew what is past half of its life, drop old publications, renew the server's certificate in time."""
        now = self._plane.clock()
        self._renew_server(now)
        if not self._plane.leader.leads:
            return
        self._plane.plans.renew(now)
        self._plane.plans.prune()
        self._plane.publisher.forget(self._plane.plans.take_damaged())
        self._plane.releases.renew(now)
        ends = self._plane.releases.expires_at()
        if ends is not None and ends - now < LAST_CALL:
            log.warning(
                "the list of releases ends on %s, and nothing is installed then: push a release before", ends.date()
            )
