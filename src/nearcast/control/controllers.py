"""The loop: desired state and facts become published plans, signatures stay fresh, times are noted.

Decides when: at once after a ring and a pause that gathers what comes together, and every few seconds for what only
time changes (a node falls silent). Each pass is level-triggered and starts from what is, so a pass that failed or was
killed is made good by the next one. It stops only with the process; an error that is not one of ours ends the process.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from nearcast.control.changes import ensure_models
from nearcast.control.observer import Observer
from nearcast.control.plane import ControlPlane
from nearcast.errors import Bug, NearcastError, Unavailable
from nearcast.resources.plan import SitePlan

log = logging.getLogger(__name__)

TICK_S: Final = 5.0
RENEWAL_EVERY: Final = timedelta(hours=1)
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


class Controllers:
    """Brings the published world after the desired one. One at a time per control plane."""

    def __init__(self, plane: ControlPlane, observer: Observer, renew_server: Callable[[datetime], None]) -> None:
        self._plane = plane
        self._observer = observer
        self._renew_server = renew_server
        self._renewed_at: datetime | None = None
        self._noted: Mapping[str, SitePlan] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        pause_s = FIRST_PAUSE_S
        self._plane.bell.ring()
        while True:
            rung = await self._plane.bell.wait(TICK_S)
            if rung:
                await asyncio.sleep(self._plane.settings.publish_interval_s)
            try:
                await asyncio.to_thread(self.step, note=rung)
            except Bug:
                raise
            except NearcastError as error:
                log.warning("a pass failed and is tried again in %.0f s: %s", pause_s, error)
                await asyncio.sleep(max(pause_s, error.retry_after_s if isinstance(error, Unavailable) else 0.0))
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                self._plane.bell.ring()
            else:
                pause_s = FIRST_PAUSE_S

    def step(self, *, note: bool = True) -> tuple[str, ...]:
        """One pass.

        Args:
            note: look at every condition even if neither state nor facts changed; statuses may have.

        Returns:
            The sites that got a new plan.
        """
        ensure_models(self._plane)
        self._renew()
        plans = self._observer.plans(self._plane.store.snapshot())
        published = self._plane.publisher.publish(plans)
        if published:
            log.info("published plan %d for %d sites", self._version(published[0]), len(published))
        if note or published or plans is not self._noted:
            self._observer.note_conditions()
            self._noted = plans
        return published

    def _version(self, site: str) -> int:
        entry = self._plane.publisher.of(site)
        return entry.plan.version if entry else 0

    def _renew(self) -> None:
        """Sign anew what is past half of its life, and renew the server's certificate: at start, then hourly."""
        now = self._plane.clock()
        if self._renewed_at is not None and now - self._renewed_at < RENEWAL_EVERY:
            return
        self._plane.releases.renew(now)
        self._plane.plans.renew(now)
        self._plane.plans.prune()
        self._renew_server(now)
        self._renewed_at = now
