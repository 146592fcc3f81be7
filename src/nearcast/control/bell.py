"""A bell: threads ring it when something changed, the loop wakes and looks. Many rings before it looks are one."""

import asyncio
import threading


class Bell:
    """Rung from any thread, waited for by one task."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rung = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    def ring(self) -> None:
        """Wake whoever waits, or whoever waits next."""
        with self._guard:
            self._rung = True
            if self._loop is not None and self._event is not None:
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most ``timeout_s``. Returns: whether it rang since the last wait ended."""
        with self._guard:
            self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()
            event = self._event
            if self._rung:
                event.set()
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            with self._guard:
                self._loop = self._event = None
                rung, self._rung = self._rung, False
        return rung
