"""The way to the control plane: HTTPS with the fleet's own authority pinned. One exchange per call, bounded in time.

Decides what an answer means as an error of ours. Does not decide when to try again: every caller has its own schedule,
and nothing that serves requests ever waits for this.
"""

import ssl
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from nearcast.errors import InvalidInput, NearcastError, Unavailable, error_from
from nearcast.resources.join import JoinAnswer, JoinRequest
from nearcast.resources.status import NodeStatus
from nearcast.resources.unreadable import UNREADABLE

TIMEOUT_S: Final = 10.0
ANSWER_LIMIT_BYTES: Final = 8 * 1024 * 1024


class Trust(msgspec.Struct, frozen=True):
    """What ``GET /v1/trust`` says; nothing of it is believed before it matches a join token."""

    ca_pem: str


class _Hint(msgspec.Struct, frozen=True):
    plan_version: int = 0


class _Certificate(msgspec.Struct, frozen=True):
    certificate_pem: str


class _Error(msgspec.Struct, frozen=True):
    code: str = "error"
    message: str = ""
    hint: str = ""


class _Failure(msgspec.Struct, frozen=True):
    error: _Error


_Kind = TypeVar("_Kind")


class Uplink(Protocol):
    """What a member asks of its control plane. Every method raises an error of the tree when it fails."""

    async def report(self, status: NodeStatus) -> int:
        """Hand in the status; the version of the newest plan, 0 before the first."""

    async def renew(self, csr_pem: str) -> str:
        """The next certificate (PEM) for this node; not checked yet."""


class ControlUplink:
    """An :class:`Uplink` over HTTPS.

    Args:
        url: of the control plane; of several replicas with commas between them, asked in turn when one fails.
        authority_pem: the only authority believed; None only to ask for trust before there is any.
        credential: of this node, or None before it has joined.
        transport: carries the exchanges; a TLS connection by default.

    Raises:
        InvalidInput: no such URL, or a credential that would travel in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        authority_pem: str | None,
        credential: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._urls = [each.strip().rstrip("/") for each in url.split(",") if each.strip()] or [url]
        self._at = 0
        parts = urlsplit(next((each for each in self._urls if urlsplit(each).scheme != "https"), self._urls[0]))
        here = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if parts.scheme != "https" or not parts.hostname:
            raise InvalidInput(f"expected the https URL of the control plane, got {url!r}")
        self._client = httpx.AsyncClient(
            verify=_context(authority_pem),
            transport=transport,
            timeout=TIMEOUT_S,
            headers={"authorization": f"Bearer {credential}"} if credential else {},
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=1, keepalive_expiry=90.0),
            follow_redirects=False,
            trust_env=not here,
        )

    async def trust(self) -> Trust:
        """What the fleet says its authority is. To be held against a join token."""
        return await self._call("GET", "/v1/trust", None, Trust)

    async def join(self, request: JoinRequest) -> JoinAnswer:
        """Become a member."""
        return await self._call("POST", "/v1/join", msgspec.json.encode(request), JoinAnswer)

    async def report(self, status: NodeStatus) -> int:
        """See :class:`Uplink`."""
        hint = await self._call("PUT", "/v1/nodes/self/status", msgspec.json.encode(status), _Hint)
        return hint.plan_version

    async def renew(self, csr_pem: str) -> str:
        """See :class:`Uplink`."""
        body = msgspec.json.encode({"csr_pem": csr_pem})
        answer = await self._call("POST", "/v1/nodes/self/certificate", body, _Certificate)
        return answer.certificate_pem

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: bytes | None, kind: type[_Kind]) -> _Kind:
        for left in range(len(self._urls) - 1, -1, -1):
            try:
                return await self._ask(method, path, body, kind)
            except Unavailable:  # whatever we ask may be asked twice
                if left == 0:
                    raise
                self._at = (self._at + 1) % len(self._urls)
        raise Unavailable("no control plane")

    @property
    def _url(self) -> str:
        return self._urls[self._at]

    async def _ask(self, method: str, path: str, body: bytes | None, kind: type[_Kind]) -> _Kind:
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            answer = await self._client.request(method, f"{self._url}{path}", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"cannot reach {self._url}: {type(error).__name__} {error}", retry_after_s=5.0) from error
        if not answer.is_success:
            raise _refusal(answer, f"{method} {path}")
        if len(answer.content) > ANSWER_LIMIT_BYTES:
            raise Unavailable(f"{self._url} answered {method} {path} with {len(answer.content)} bytes")
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except UNREADABLE as error:
            raise Unavailable(f"{self._url} answered {method} {path} with something else: {error}") from error


def _refusal(answer: httpx.Response, what: str) -> NearcastError:
    try:
        error = msgspec.json.decode(answer.content, type=_Failure).error
    except UNREADABLE:
        error = _Error()
    if error.code == "error" or answer.status_code >= 500:
        return Unavailable(f"{what} was answered {answer.status_code}: {error.message}", retry_after_s=5.0)
    return error_from(error.code, error.message, hint=error.hint)


def _context(authority_pem: str | None) -> ssl.SSLContext:
    if authority_pem is not None:
        try:
            return ssl.create_default_context(cadata=authority_pem)
        except ssl.SSLError as error:
            raise InvalidInput(f"expected the certificate of an authority: {error}") from error
    # Only for what a join token vouches for: the answer is held against its hash before anything is believed or sent.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
