"""Asking for new plans, forever: every poll interval with jitter, sooner after a hint, and never in anybody's way."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

from nearcast.agent.backoff import Backoff, eager_s
from nearcast.agent.pull import Puller
from nearcast.agent.report import Troubles
from nearcast.agent.states import Event, PlanRefused
from nearcast.errors import NearcastError

REFRESH_S: Final = 24 * 3600.0
"""Between two looks for newer metadata of releases when no plan asks for it: this is how a withdrawal gets here."""
FIRST_RETRY_S: Final = 0.5
RELEASES_TRUSTED: Final = "ReleasesTrusted"


class Poller:
    """Asks for plans. For the loop's thread.

    Args:
        puller: asks, in a thread.
        post: hands the answer to the reconciler.
        poll_s: between two questions.
        who: names the node; spreads its retries.
        troubles: where releases whose metadata is refused are noted; what is refused of plans is in the answer.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        puller: Puller,
        post: Callable[[Event], None],
        poll_s: float,
        who: str,
        troubles: Troubles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._puller = puller
        self._post = post
        self._poll_s = poll_s
        self._who = who
        self._troubles = troubles
        self._clock = clock
        self._hinted = asyncio.Event()

    def hint(self) -> None:
        """There is a newer plan: ask now."""
        self._hinted.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        retry = Backoff(base_s=min(FIRST_RETRY_S, self._poll_s), factor=2.0, cap_s=self._poll_s)
        failures, refreshed_s, answered, began_s = 0, self._clock(), False, self._clock()
        while True:
            self._hinted.clear()
            outcome = await asyncio.to_thread(self._puller.poll)
            self._post(outcome)
            failures = failures + 1 if isinstance(outcome, PlanRefused) else 0
            answered = answered or not failures
            if not failures and self._clock() - refreshed_s >= REFRESH_S:
                refreshed_s = self._clock()
                await self._refresh()
            pause_s = self._poll_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
            if failures:
                pause_s = retry.delay_s(failures, self._who)
                pause_s = pause_s if answered else eager_s(pause_s, self._clock() - began_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hinted.wait()

    async def _refresh(self) -> None:
        try:
            await asyncio.to_thread(self._puller.refresh_releases)
        except NearcastError as error:
            self._troubles.set(RELEASES_TRUSTED, error)
        else:
            self._troubles.clear(RELEASES_TRUSTED)
