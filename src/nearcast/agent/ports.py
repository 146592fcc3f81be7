"""The addresses of a node's gateway: chosen once where the choice was left open, and the same ones ever after.

A port that was chosen here and never served may have been taken by somebody else in the moment between choosing and
listening; then another is chosen. A port that has served is an address that clients know, so it is waited for.
"""

import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nearcast.agent.settings import Address, Settings
from nearcast.durable import read_if_exists, write_whole
from nearcast.resources.unreadable import UNREADABLE


class _Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """``ports.json``. ``proven`` says that a gateway has listened on them."""

    public: int
    peer: int
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where this node's gateway listens, and what others are told."""

    public: Address
    peer: Address
    advertised_peer: Address
    is_public_tls: bool = False

    @property
    def url(self) -> str:
        """The gateway for clients. A wildcard is shown as the name that peers use."""
        host = self.advertised_peer.host if self.public.is_wildcard else self.public.host
        return f"{'https' if self.is_public_tls else 'http'}://{Address(host, self.public.port)}"


def addresses(settings: Settings, file: Path) -> Addresses:
    """The addresses that ``settings`` ask for, open ports taken from ``file`` or chosen and written there."""
    chosen = _read(file)
    public = settings.public.port or (chosen.public if chosen else 0)
    peer = settings.peer.port or (chosen.peer if chosen else 0)
    if not public or not peer or chosen is None or (chosen.public, chosen.peer) != (public, peer):
        public, peer = _free(settings, public, peer)
        _write(file, _Chosen(public=public, peer=peer))
    advertised = settings.advertise_peer or settings.peer
    return Addresses(
        public=Address(settings.public.host, public),
        peer=Address(settings.peer.host, peer),
        advertised_peer=Address(advertised.host, advertised.port or peer),
        is_public_tls=settings.public_tls is not None,
    )


def prove(file: Path) -> None:
    """Note that the gateway listens on the chosen ports: from now on they stay."""
    chosen = _read(file)
    if chosen is not None and not chosen.proven:
        _write(file, msgspec.structs.replace(chosen, proven=True))


def reconsider(settings: Settings, file: Path) -> bool:
    """Forget open ports that never served, because one of them is taken; whether there is now a new choice to make."""
    chosen = _read(file)
    if chosen is None or chosen.proven or (settings.public.port and settings.peer.port):
        return False
    file.unlink(missing_ok=True)
    return True


def _free(settings: Settings, public: int, peer: int) -> tuple[int, int]:
    """``public`` and ``peer`` with free ports in place of zeros; both are held while choosing, so that they differ."""
    with _held(settings.public.host, public) as first, _held(settings.peer.host, peer) as second:
        return public or int(first.getsockname()[1]), peer or int(second.getsockname()[1])


def _held(host: str, port: int) -> socket.socket:
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    if not port:
        held.bind((host, 0))
    return held


def _read(file: Path) -> _Chosen | None:
    data = read_if_exists(file)
    try:
        return None if data is None else msgspec.json.decode(data, type=_Chosen)
    except UNREADABLE:
        return None


def _write(file: Path, chosen: _Chosen) -> None:
    write_whole(file, msgspec.json.encode(chosen))
