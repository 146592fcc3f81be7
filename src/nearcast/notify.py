"""A process and its service manager, by systemd's protocol (``sd_notify``): ready, stopping, alive; and its end.

Does nothing where nobody listens (no ``NOTIFY_SOCKET``). A message that cannot be delivered is no reason to stop.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"


def notify(message: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send one message."""
    where = environment.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.setblocking(False)
        out.sendto(message.encode(), f"\0{where[1:]}" if where.startswith("@") else where)


def interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """How often to say that we are alive: half of what the manager waits; None where it does not."""
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() and int(text) else None


def ignore_signals() -> None:
    """The process is at its end: a further signal to stop must not turn its exit code into a death by signal.

    Called on the loop's thread, when nothing is left to do; closing the loop would else bring the default back.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


async def stay_alive() -> None:
    """Say that the loop turns, until cancelled; where nobody asks, only wait."""
    pause_s = interval_s()
    while True:
        if pause_s is not None:
            notify(ALIVE)
        await asyncio.sleep(pause_s or 3600.0)
