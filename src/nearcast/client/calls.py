"""How the control plane is called.

It decides how a call is made: which authority is trusted, what is retried, and which error of the one tree an answer
means. It does not decide what to ask for, nor what to show.

Invariants:
    * With ``ca_pem`` only that authority is trusted: a certificate of anybody else ends the call, never a downgrade.
    * A call is sent again only where a second one changes nothing (reads, uploads by digest), or where the
      first one certainly did not arrive. Pauses grow and carry jitter, so that many clients do not return in step.
    * Answers may hold more fields than this client knows: an older client reads a newer control plane.
"""

import base64
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from nearcast import __version__
from nearcast.client.failures import Unreachable, certificate_problem, failure_in
from nearcast.client.views import (
    Applied,
    Decisions,
    Document,
    Documents,
    FleetStatus,
    Releases,
    ReleaseView,
    Results,
    Stored,
    Targets,
    Trust,
)
from nearcast.errors import IntegrityError, InvalidInput, NearcastError, NotFound, Unavailable
from nearcast.planning.explanation import Explanation
from nearcast.planning.fleet.explanation import PlanExplanation, PlanHeading
from nearcast.resources.unreadable import UNREADABLE

ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
CHUNK_BYTES: Final = 1 << 20
RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
TARGETS_VERSION: Final = "x-nearcast-targets-version"
REPEATABLE: Final = frozenset({"GET", "HEAD"})

Progress = Callable[[int], None]
"""Called with the bytes that were sent since the last call."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call.

    Attributes:
        url: ``https://host:port`` of the control plane; of several replicas with commas between them.
        token: admin token; empty for the calls that need none.
        ca_pem: the only authority to trust, PEM; None for the machine's own trust store.
        timeout_s: for one exchange, connecting included; uploads have it per read and write.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_pem: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0

    @property
    def urls(self) -> tuple[str, ...]:
        """The replicas, one URL each."""
        return tuple(url.strip().rstrip("/") for url in self.url.split(",") if url.strip()) or (self.url,)


CONNECT_S: Final = 5.0
"""For the connection alone: what is there shakes hands sooner, also from the other side of the earth."""

_Answer = TypeVar("_Answer")


class ControlClient:
    """Calls to one control plane. Not safe for use by several threads at once; close it, or use it in ``with``.

    Args:
        target: whom to call, and how to know them.
        transport: what carries the requests; by default HTTPS that trusts ``target.ca_pem`` only.
        sleep: how to wait between attempts.
        jitter: gives numbers between 0 and 1.
    """

    def __init__(
        self,
        target: Target,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.target = target
        self._at = 0
        self._sleep = sleep
        self._jitter = jitter
        headers = {"user-agent": f"nearcast/{__version__}"}
        if target.token:
            headers["authorization"] = f"Bearer {target.token}"
        self._http = httpx.Client(
            base_url=target.urls[0],
            headers=headers,
            timeout=httpx.Timeout(target.timeout_s, connect=min(CONNECT_S, target.timeout_s)),
            transport=transport or httpx.HTTPTransport(verify=_tls(target.ca_pem)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    # --- the control plane itself

    def is_ready(self) -> bool:
        """Whether the control plane says that it can take changes; False where nobody answers. Never retried."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError as error:
            if certificate_problem(error):
                raise self._lost(error) from error
            return False

    def trust(self) -> Trust:
        """Authority and trust roots of the fleet."""
        return _typed(self._call("GET", "/v1/trust"), Trust)

    def status(self) -> FleetStatus:
        """The fleet at a glance."""
        return _typed(self._call("GET", "/v1/status"), FleetStatus)

    def status_document(self) -> Document:
        """The same, as the control plane wrote it."""
        return _document(self._call("GET", "/v1/status"))

    def explain(self, model: str, site: str, node: str | None = None) -> Explanation:
        """Why requests for ``model`` that enter at ``site`` (there at ``node``) go where they go."""
        params = {"model": model, "site": site} | ({"node": node} if node else {})
        return _typed(self._call("GET", "/v1/route/explain", params=params), Explanation)

    # --- plans

    def decisions(self, limit: int) -> list[PlanHeading]:
        """What the planner decided, newest first."""
        return _typed(self._call("GET", "/v1/decisions", params={"limit": str(limit)}), Decisions).items

    def decision(self, number: int) -> bytes:
        """The record of a decision, as JSON. Raises :class:`NotFound`."""
        return self._call("GET", f"/v1/decisions/{number}").content

    def explain_plan(self, name: str, site: str | None = None, decision: int | None = None) -> PlanExplanation:
        """Why a deployment or model is planned as it is; with ``site``, also where its requests go."""
        params = {"name": name} | ({"site": site} if site else {}) | ({"decision": str(decision)} if decision else {})
        return _typed(self._call("GET", "/v1/decisions/explain", params=params), PlanExplanation)

    def snapshot(self) -> bytes:
        """The fleet at this moment as planning sees it (`planning.fleet.snapshot`), as JSON."""
        return self._call("GET", "/v1/snapshot").content

    # --- resources

    def resources(self, plural: str) -> list[Document]:
        """All resources of a kind, by name."""
        items = _typed(self._call("GET", f"/v1/resources/{plural}"), Documents).items
        return sorted(items, key=lambda item: str(item["metadata"]["name"]))

    def resource(self, plural: str, name: str) -> Stored:
        """One resource.

        Raises:
            NotFound: there is none of that name.
        """
        answer = self._call("GET", f"/v1/resources/{plural}/{name}")
        return Stored(_document(answer), _revision(answer))

    def delete(self, plural: str, name: str, *, revision: str = "") -> None:
        """Remove a resource; with ``revision``, only if it still is that one.

        Raises:
            NotFound: there is none of that name.
            Conflict: it changed since ``revision``.
        """
        headers = {"if-match": f'"{revision}"'} if revision else {}
        self._call("DELETE", f"/v1/resources/{plural}/{name}", headers=headers)

    def revisions(self, plural: str, name: str) -> list[Document]:
        """What the resource has been, oldest first."""
        return _typed(self._call("GET", f"/v1/resources/{plural}/{name}/revisions"), Documents).items

    def apply(self, manifests: Sequence[Document], *, dry_run: bool = False) -> list[Applied]:
        """Make the fleet hold ``manifests``: all of them, or none where one is refused."""
        body = {"manifests": list(manifests), "dry_run": dry_run}
        return _typed(self._call("POST", "/v1/apply", json=body), Results).results

    # --- nodes

    def join_token(self, site: str, *, ttl_s: float | None = None) -> str:
        """A token that lets one node join ``site``; it can be shown only now.

        Raises:
            NotFound: there is no such site.
        """
        body = {} if ttl_s is None else {"ttl_s": ttl_s}
        return str(_document(self._call("POST", f"/v1/sites/{site}/join-tokens", json=body))["token"])

    def nodes(self) -> list[Document]:
        """Every node that joined, with its last status."""
        return _typed(self._call("GET", "/v1/nodes"), Documents).items

    def drain(self, site: str, node: str, *, force: bool = False) -> Document:
        """Have a node serve no model, while its gateway goes on answering; the node as it then is.

        Raises:
            NotFound: there is no such node.
            Conflict: it is the only place of a model, and ``force`` is not set.
        """
        return _document(self._call("PUT", f"/v1/nodes/{site}/{node}/drain", json={"force": force}, repeatable=True))

    def undrain(self, site: str, node: str) -> Document:
        """Let a node serve again; the node as it then is. Raises :class:`NotFound`."""
        return _document(self._call("DELETE", f"/v1/nodes/{site}/{node}/drain", repeatable=True))

    def revoke(self, site: str, node: str, *, drained: bool = False) -> None:
        """No longer honour a node's identity.

        Raises:
            NotFound: there is no such node.
            Conflict: ``drained`` is asked for, and the node still serves.
        """
        self._call("DELETE", f"/v1/nodes/{site}/{node}", params={"drained": str(drained).lower()})

    # --- releases

    def has_blob(self, digest: str) -> bool:
        """Whether the fleet's store holds the bytes called ``digest``."""
        try:
            self._call("HEAD", f"/v1/blobs/{digest}")
        except NotFound:
            return False
        return True

    def put_blob(self, digest: str, path: Path, *, progress: Progress | None = None) -> None:
        """Send the file ``path`` as the blob ``digest``; a blob that is there already is no error.

        Raises:
            IntegrityError: the bytes that arrived are not those that ``digest`` names.
        """
        sent = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent
            offset = 0
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
                    offset += len(chunk)
                    if progress and offset > sent:
                        progress(offset - sent)
                        sent = offset

        headers = {"content-length": str(path.stat().st_size), "content-type": "application/octet-stream"}
        self._call("PUT", f"/v1/blobs/{digest}", body=chunks, headers=headers, repeatable=True)

    def releases(self) -> list[ReleaseView]:
        """Every release, by model and version."""
        found = _typed(self._call("GET", "/v1/releases"), Releases).items
        return sorted(found, key=lambda entry: (entry.model, entry.version))

    def releases_targets(self) -> Targets:
        """The signed list of releases, to be signed anew with one more.

        Raises:
            NotFound: this fleet has no releases repository yet.
        """
        answer = self._call("GET", "/v1/releases/targets")
        return Targets(answer.content, int(answer.headers[TARGETS_VERSION]))

    def add_release(self, targets: bytes, manifest: bytes, *, expected_version: int) -> None:
        """Publish a release: ``targets`` is the new list, signed by the releaser.

        Raises:
            Conflict: the list is no longer at ``expected_version``, or that version of the model has other content.
            IntegrityError: the signature is not one that the releases root vouches for.
        """
        body = {"targets": _base64(targets), "manifest": _base64(manifest), "expected_version": expected_version}
        self._call("POST", "/v1/releases", json=body)

    def start_releases(self, root: bytes, targets: bytes) -> None:
        """Give the fleet its releases repository. Once only.

        Raises:
            Conflict: it has another one already.
        """
        self._call("POST", "/v1/releases/root", json={"root": _base64(root), "targets": _base64(targets)})

    def releases_roots(self) -> list[bytes]:
        """Every version of the root of trust of releases, from the first."""
        return [base64.b64decode(item) for item in self._call("GET", "/v1/releases/roots").json()["items"]]

    def change_release_keys(self, root: bytes, targets: bytes) -> None:
        """Put another root of releases in force, and the list signed under it.

        Raises:
            Conflict: keys or list were changed meanwhile.
        """
        body = {"root": _base64(root), "targets": _base64(targets)}
        self._call("POST", "/v1/releases/keys", json=body, repeatable=True)

    # --- how a call is made

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """One exchange, with further attempts where they are safe; an answer that is no success is raised."""
        again = repeatable or method in REPEATABLE
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            request = self._http.build_request(
                method,
                self.target.urls[self._at] + path,
                params=params,
                json=json,
                content=body() if body else None,
                headers=headers,
            )
            try:
                answer = self._http.send(request)
            except httpx.TransportError as error:
                not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                # One that has taken its time has been asked enough.
                others = attempt < len(self.target.urls)
                refused = not_sent and not others and (attempt > 1 or isinstance(error, httpx.ConnectTimeout))
                if last or refused or certificate_problem(error) or not (again or not_sent):
                    raise self._lost(error) from error
                self._next()
                self._sleep(self._pause_s(attempt))
                continue
            if answer.is_success:
                return answer
            failure = failure_in(answer)
            if last or not again or answer.status_code not in RETRIED_STATUSES:
                raise failure
            self._next()
            asked_s = failure.retry_after_s if isinstance(failure, Unavailable) else 0.0
            self._sleep(min(LONGEST_PAUSE_S, max(asked_s, self._pause_s(attempt))))
        raise AssertionError("the last attempt returns or raises")

    def _next(self) -> None:
        """Turn to the next replica; one that answered is asked first from then on."""
        self._at = (self._at + 1) % len(self.target.urls)

    def _pause_s(self, attempt: int) -> float:
        whole: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (attempt - 1))
        return whole * (0.5 + 0.5 * self._jitter())

    def _lost(self, error: httpx.TransportError) -> NearcastError:
        if problem := certificate_problem(error):
            return IntegrityError(
                f"the control plane at {self.target.url} shows a certificate that is not trusted: {problem}",
                hint="check the address, and that --ca-file holds the authority of this fleet (GET /v1/trust)",
            )
        if isinstance(error, httpx.TimeoutException):
            took_s = CONNECT_S if isinstance(error, httpx.ConnectTimeout) else self.target.timeout_s
            return Unreachable(
                f"the control plane at {self.target.url} did not answer in {min(took_s, self.target.timeout_s):g} s",
                hint="something listens there and is stopped, hung or overloaded; sites go on serving without it",
            )
        return Unreachable(f"nobody answers at {self.target.url}: {str(error) or type(error).__name__}")


def _tls(ca_pem: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_pem)
    except ssl.SSLError as error:
        raise InvalidInput(f"expected PEM certificates of the authority, got something else: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _typed(answer: httpx.Response, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except UNREADABLE as error:  # also what is no JSON at all: the page of a proxy, say
        raise NearcastError(
            f"{answer.request.url.path} did not answer with a {kind.__name__}: {error}",
            hint=f"this client is {__version__}; `nearcast version` also shows the version of the control plane",
        ) from error


def _document(answer: httpx.Response) -> Document:
    return _typed(answer, Document)


def _revision(answer: httpx.Response) -> str:
    return str(answer.headers.get("etag", "")).removeprefix("W/").strip('"')


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
