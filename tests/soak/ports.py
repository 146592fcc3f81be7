"""Free ports on loopback, below the range that the system gives to outgoing connections."""

import random
import socket

LOW, HIGH = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """``count`` ports that nobody listens on now. Not reserved: take them soon."""
    found: list[int] = []
    for port in random.sample(range(LOW, HIGH), HIGH - LOW):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"expected {count} free ports between {LOW} and {HIGH}, found {len(found)}")
