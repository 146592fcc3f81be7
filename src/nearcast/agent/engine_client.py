"""Talking to this node's engine over its two sockets. What is asked, and when, is decided elsewhere.

Loading and unloading block until the engine is done (a thread each, from asyncio); the load report is asked every
second and does not.
"""

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import msgspec

from nearcast.agent.states import Key
from nearcast.errors import InvalidInput, NearcastError, Unavailable
from nearcast.gateway.pipe import PipeConnection
from nearcast.gateway.process import listener_of
from nearcast.resources import wire
from nearcast.resources.load import LoadReport
from nearcast.resources.release import ReleaseManifest
from nearcast.resources.status import EngineProfile
from nearcast.resources.unreadable import UNREADABLE

LOAD_TIMEOUT_S: Final = 300.0
"""A model that has not loaded by then will not."""
ANSWER_TIMEOUT_S: Final = 5.0
LIVE_TIMEOUT_S: Final = 2.0
_WIRE_MAX: Final = 4 * 1024 * 1024


class BrokenOff(NearcastError):
    """The engine ended the conversation in the middle: it died, most likely of what it was asked."""

    code = "broken_off"


class _Model(msgspec.Struct, frozen=True):
    model: str
    version: str
    state: str
    release: str = ""


class _Models(msgspec.Struct, frozen=True):
    models: tuple[_Model, ...]


class _Error(msgspec.Struct, frozen=True):
    code: str = "error"
    message: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Error


_reports = msgspec.json.Decoder(LoadReport)
_profiles = msgspec.json.Decoder(EngineProfile)


class EngineClient:
    """The engine of ``run_dir``. Blocking; safe for several threads."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def loaded(self) -> Mapping[Key, str]:
        """What the engine serves now: version -> digest of its release.

        Raises:
            Unavailable: nobody answers.
        """
        status, body = self._call(wire.ENGINE_ADMIN, "GET", wire.ADMIN_MODELS_PATH, timeout_s=ANSWER_TIMEOUT_S)
        if status != 200:
            raise Unavailable(f"the engine answered {status} when it was asked for its models")
        try:
            found = msgspec.json.decode(body, type=_Models).models
        except UNREADABLE as error:
            raise Unavailable(f"the engine's list of models cannot be read: {error}") from error
        return {Key(item.model, item.version): item.release for item in found if item.state == "ready"}

    def load(self, manifest: ReleaseManifest, directory: Path) -> None:
        """Serve the release in ``directory``; returns when its socket listens.

        Raises:
            InvalidInput: the engine cannot serve it.
            BrokenOff: the engine died meanwhile.
            Unavailable: it was not there, or took longer than :data:`LOAD_TIMEOUT_S`.
        """
        order = {
            "directory": str(directory),
            "manifest": manifest,
            "socket": str(self.model_socket(Key(manifest.model, manifest.version))),
        }
        path = wire.admin_model_path(manifest.model, manifest.version)
        status, body = self._call(wire.ENGINE_ADMIN, "PUT", path, msgspec.json.encode(order), timeout_s=LOAD_TIMEOUT_S)
        if status != 200:
            raise _refusal(status, body)

    def unload(self, key: Key, drain_s: float) -> None:
        """Stop serving ``key`` after what is in flight has finished, at most ``drain_s``.

        Raises:
            Unavailable: the engine is not there, or did not come to an end.
        """
        path = f"{wire.admin_model_path(key.model, key.version)}?drain_s={drain_s:g}"
        try:
            status, body = self._call(wire.ENGINE_ADMIN, "DELETE", path, timeout_s=drain_s + ANSWER_TIMEOUT_S)
        except BrokenOff as error:
            raise Unavailable(error.message) from error
        if status not in {200, 404}:
            raise Unavailable(_refusal(status, body).message)

    def is_live(self) -> bool:
        """Whether the engine answers."""
        try:
            return self._call(wire.ENGINE_STATUS, "GET", wire.LIVE_PATH, timeout_s=LIVE_TIMEOUT_S)[0] == 200
        except (Unavailable, BrokenOff):
            return False

    def pid(self) -> int | None:
        """Process id of whoever listens on the admin socket; None where nobody does or the system does not tell."""
        return listener_of(self._run_dir / wire.ENGINE_ADMIN, ANSWER_TIMEOUT_S)

    def model_socket(self, key: Key) -> Path:
        """The socket that serves ``key``."""
        return self._run_dir / wire.model_socket(key.model, key.version)

    def _call(
        self, socket_name: str, method: str, path: str, body: bytes | None = None, *, timeout_s: float
    ) -> tuple[int, bytes]:
        connection = PipeConnection(self._run_dir / socket_name, timeout_s, connect_timeout_s=ANSWER_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise Unavailable(f"the engine does not listen at {socket_name}: {error}") from error
        try:
            connection.request(method, path, body, {"content-type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read(_WIRE_MAX)
        except TimeoutError as error:
            raise Unavailable(f"the engine did not answer {method} {path} within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOff(f"the engine broke off during {method} {path}: {type(error).__name__} {error}") from error
        finally:
            connection.close()


class EngineReports:
    """The load report and the profile of the own engine, over one kept connection."""

    def __init__(self, run_dir: Path) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(run_dir / wire.ENGINE_STATUS), retries=0)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=2.0, trust_env=False)

    async def load(self) -> LoadReport | None:
        """How busy the engine is; None where it does not say."""
        try:
            answer = await self._client.get(wire.LOAD_PATH)
            return _reports.decode(answer.content) if answer.status_code == 200 else None
        except (httpx.HTTPError, *UNREADABLE):
            return None

    async def profile(self) -> EngineProfile | None:
        """What its models cost and what it has; None where it does not say."""
        try:
            answer = await self._client.get(wire.PROFILE_PATH)
            return _profiles.decode(answer.content) if answer.status_code == 200 else None
        except (httpx.HTTPError, *UNREADABLE):
            return None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _refusal(status: int, body: bytes) -> NearcastError:
    try:
        message = msgspec.json.decode(body, type=_Refused).error.message
    except UNREADABLE:
        message = body[:200].decode(errors="replace")
    if 400 <= status < 500:
        return InvalidInput(f"the engine refuses it: {message}")
    return Unavailable(f"the engine answered {status}: {message}")
