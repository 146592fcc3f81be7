"""Hosts that are network namespaces, and the wires between them: real packets, with delay, loss and cuts.

A host is a namespace with one network device (TUN). All devices end in one :class:`Wires`, a thread that carries every
packet from one to the other: half of the round trip of either end later, or not at all. So any pair, and any direction,
can be slow, lossy or cut, by a seed, on every kernel that has TUN; `tc netem` is a kernel's option that many lack.

Names of hosts are files below ``/etc/netns``, which `ip netns exec` shows to its process as ``/etc/hosts``. Everything
is called ``nc-…`` and removed whatever happens.
"""

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ETC = Path("/etc/netns")
TUN = Path("/dev/net/tun")
MTU = 9000
QUEUE_LIMIT = 20_000
"""Packets on their way at once; more are lost, as a router would."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def why_not() -> str:
    """Why there can be no network here, or nothing."""
    if sys.platform != "linux":
        return "network namespaces are a thing of Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is missing (Debian: iproute2)"
    if not TUN.exists():
        return f"{TUN} is missing: this kernel has no TUN devices"
    probe = f"nc-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"this kernel gives no network namespaces: {made.stderr.strip()}"


@dataclass
class Link:
    """What the way between a host and everybody else is like."""

    round_trip_s: float
    loss: float
    is_cut: bool = False


class Wires:
    """Carries packets between devices until stopped. Links and cuts may be changed at any time from any thread."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - which packets are lost is no secret
        self._devices: dict[bytes, int] = {}
        self._links: dict[bytes, Link] = {}
        self._one_way: set[tuple[bytes, bytes]] = set()
        self._due: list[tuple[float, int, bytes, bytes]] = []
        self._count = 0
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, address: bytes, device: int, link: Link) -> None:
        self._links[address] = link
        self._devices[address] = device
        self._selector.register(device, selectors.EVENT_READ, address)

    def cut_one_way(self, source: bytes, target: bytes) -> None:
        self._one_way.add((source, target))

    def mend_one_way(self, source: bytes, target: bytes) -> None:
        self._one_way.discard((source, target))

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)
        for device in self._devices.values():
            os.close(device)
        self._selector.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            pause_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 0.05
            for key, _ in self._selector.select(min(pause_s, 0.05)):
                self._take(key.fd)
            self._deliver()

    def _take(self, device: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(device, 65_536)
            except OSError:  # nothing more for now, or the cable was pulled
                return
            if packet[0] >> 4 != 4:
                continue
            source, target = packet[12:16], packet[16:20]
            here, there = self._links.get(source), self._links.get(target)
            if here is None or there is None or (source, target) in self._one_way or here.is_cut or there.is_cut:
                continue
            if self._random.random() < 1 - (1 - here.loss) * (1 - there.loss) or len(self._due) >= QUEUE_LIMIT:
                continue
            self._count += 1
            due_s = time.monotonic() + (here.round_trip_s + there.round_trip_s) / 2
            heapq.heappush(self._due, (due_s, self._count, target, packet))

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._due and self._due[0][0] <= now_s:
            _, _, target, packet = heapq.heappop(self._due)
            if not self._links[target].is_cut:
                with contextlib.suppress(OSError):
                    os.write(self._devices[target], packet)


class Host:
    """A namespace with one address."""

    def __init__(self, namespace: str, number: int, wires: Wires, link: Link) -> None:
        self.address = f"10.77.0.{number}"
        self.namespace = namespace
        self.link = link
        self._packed = bytes((10, 77, 0, number))
        self._wires = wires
        self._device = f"nct{os.getpid() % 100_000}x{number}"[:15]

    def make(self) -> None:
        run("ip", "netns", "add", self.namespace)
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", self._device.encode(), _IFF_TUN | _IFF_NO_PI))
        run("ip", "link", "set", self._device, "netns", self.namespace)
        self.ip("addr", "add", f"{self.address}/24", "dev", self._device)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "set", self._device, "mtu", str(MTU), "up")
        self._wires.add(self._packed, device, self.link)

    def ip(self, *arguments: str) -> None:
        run(*self.command(["ip", *arguments]))

    def cut(self) -> None:
        """Nothing goes in or out any more, and nobody is told."""
        self.link.is_cut = True

    def pull_cable(self) -> None:
        """The device is down: the host itself knows."""
        self.ip("link", "set", self._device, "down")

    def mend(self) -> None:
        """End both."""
        self.link.is_cut = False
        self.ip("link", "set", self._device, "up")

    def lose_way_to(self, other: "Host") -> None:
        """A one-way cut: packets from here to ``other`` are lost; those from there arrive."""
        self._wires.cut_one_way(self._packed, other._packed)

    def find_way_to(self, other: "Host") -> None:
        """End it."""
        self._wires.mend_one_way(self._packed, other._packed)

    def part_from(self, other: "Host") -> None:
        """Cut this pair, both ways; all others still reach both."""
        self.lose_way_to(other)
        other.lose_way_to(self)

    def meet(self, other: "Host") -> None:
        """End it."""
        self.find_way_to(other)
        other.find_way_to(self)

    def command(self, command: Sequence[str]) -> list[str]:
        """``command`` as one that runs on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def know(self, names: dict[str, str]) -> None:
        """Let processes that start here from now on know hosts by name."""
        folder = ETC / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")

    def processes(self) -> list[int]:
        """Whoever runs here."""
        done = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()]

    def power_off(self) -> None:
        """Everything that runs here is gone, and so is the link: no goodbye of any kind reaches anybody."""
        self.cut()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        self.power_off()
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)
        shutil.rmtree(ETC / self.namespace, ignore_errors=True)


class Network:
    """Hosts, and the wires between them."""

    def __init__(self, seed: int = 1) -> None:
        self._wires = Wires(seed)
        self.hosts: dict[str, Host] = {}

    def host(self, name: str, *, round_trip_ms: float = 0.0, loss_percent: float = 0.0) -> Host:
        """A new host; ``round_trip_ms`` and ``loss_percent`` are those of its own link: between two hosts they add."""
        link = Link(round_trip_ms / 1000, loss_percent / 100)
        host = Host(f"nc-{os.getpid()}-{name}", len(self.hosts) + 1, self._wires, link)
        self.hosts[name] = host
        host.make()
        return host

    def power_off(self) -> None:
        for host in self.hosts.values():
            host.power_off()

    def remove(self) -> None:
        for host in self.hosts.values():
            host.remove()
        self._wires.stop()


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextmanager
def network() -> Iterator[Network]:
    """A network without hosts; skipped where there can be none, and gone afterwards with all that runs on it."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = Network()
    try:
        yield made
    finally:
        made.remove()
