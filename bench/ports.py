"""Ports of the loopback interface: free ones, and ones that somebody listens on."""

import socket
import time
from collections.abc import Callable


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, *, timeout_s: float = 20.0, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until somebody listens on `port`.

    Raises:
        TimeoutError: nobody did in time, or whoever should is not `alive` any more.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and alive():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
