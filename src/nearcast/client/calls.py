"""What the control plane is asked: one typed method for each of its calls.

Decides paths, bodies and the types of answers, and which changes may be sent twice. How a call is made, `exchanges`
decides; what to ask for, and what to show, whoever calls.

Answers may hold more fields than this client knows: an older client reads a newer control plane.
"""

import base64
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
import msgspec

from nearcast import __version__
from nearcast.client.exchanges import Exchanges, Target
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
from nearcast.errors import NearcastError, NotFound
from nearcast.planning.explanation import Explanation
from nearcast.planning.fleet.explanation import PlanExplanation, PlanHeading
from nearcast.resources.unreadable import UNREADABLE

CHUNK_BYTES: Final = 1 << 20
TARGETS_VERSION: Final = "x-nearcast-targets-version"

Progress = Callable[[int], None]
"""Called with the bytes that were sent since the last call."""


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
        self._exchanges = Exchanges(target, transport, sleep, jitter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._exchanges.close()

    # --- the control plane itself

    def is_ready(self) -> bool:
        """Whether the control plane says that it can take changes; False where nobody answers. Never retried."""
        return self._exchanges.succeeds("/readyz")

    def trust(self) -> Trust:
        """Authority and trust roots of the fleet."""
        return _typed(self._exchanges.call("GET", "/v1/trust"), Trust)

    def status(self) -> FleetStatus:
        """The fleet at a glance."""
        return _typed(self._exchanges.call("GET", "/v1/status"), FleetStatus)

    def status_document(self) -> Document:
        """The same, as the control plane wrote it."""
        return _document(self._exchanges.call("GET", "/v1/status"))

    def explain(self, model: str, site: str, node: str | None = None) -> Explanation:
        """Why requests for ``model`` that enter at ``site`` (there at ``node``) go where they go."""
        params = {"model": model, "site": site} | ({"node": node} if node else {})
        return _typed(self._exchanges.call("GET", "/v1/route/explain", params=params), Explanation)

    # --- plans

    def decisions(self, limit: int) -> list[PlanHeading]:
        """What the planner decided, newest first."""
        return _typed(self._exchanges.call("GET", "/v1/decisions", params={"limit": str(limit)}), Decisions).items

    def decision(self, number: int) -> bytes:
        """The record of a decision, as JSON. Raises :class:`NotFound`."""
        return self._exchanges.call("GET", f"/v1/decisions/{number}").content

    def explain_plan(self, name: str, site: str | None = None, decision: int | None = None) -> PlanExplanation:
        """Why a deployment or model is planned as it is; with ``site``, also where its requests go."""
        params = {"name": name} | ({"site": site} if site else {}) | ({"decision": str(decision)} if decision else {})
        return _typed(self._exchanges.call("GET", "/v1/decisions/explain", params=params), PlanExplanation)

    def snapshot(self) -> bytes:
        """The fleet at this moment as planning sees it (`planning.fleet.snapshot`), as JSON."""
        return self._exchanges.call("GET", "/v1/snapshot").content

    # --- resources

    def resources(self, plural: str) -> list[Document]:
        """All resources of a kind, by name."""
        items = _typed(self._exchanges.call("GET", f"/v1/resources/{plural}"), Documents).items
        return sorted(items, key=lambda item: str(item["metadata"]["name"]))

    def resource(self, plural: str, name: str) -> Stored:
        """One resource.

        Raises:
            NotFound: there is none of that name.
        """
        answer = self._exchanges.call("GET", f"/v1/resources/{plural}/{name}")
        return Stored(_document(answer), _revision(answer))

    def delete(self, plural: str, name: str, *, revision: str = "") -> None:
        """Remove a resource; with ``revision``, only if it still is that one.

        Raises:
            NotFound: there is none of that name.
            Conflict: it changed since ``revision``.
        """
        headers = {"if-match": f'"{revision}"'} if revision else {}
        self._exchanges.call("DELETE", f"/v1/resources/{plural}/{name}", headers=headers)

    def revisions(self, plural: str, name: str) -> list[Document]:
        """What the resource has been, oldest first."""
        return _typed(self._exchanges.call("GET", f"/v1/resources/{plural}/{name}/revisions"), Documents).items

    def apply(self, manifests: Sequence[Document], *, dry_run: bool = False) -> list[Applied]:
        """Make the fleet hold ``manifests``: all of them, or none where one is refused."""
        body = {"manifests": list(manifests), "dry_run": dry_run}
        return _typed(self._exchanges.call("POST", "/v1/apply", json=body), Results).results

    # --- nodes

    def join_token(self, site: str, *, ttl_s: float | None = None) -> str:
        """A token that lets one node join ``site``; it can be shown only now.

        Raises:
            NotFound: there is no such site.
        """
        body = {} if ttl_s is None else {"ttl_s": ttl_s}
        return str(_document(self._exchanges.call("POST", f"/v1/sites/{site}/join-tokens", json=body))["token"])

    def nodes(self) -> list[Document]:
        """Every node that joined, with its last status."""
        return _typed(self._exchanges.call("GET", "/v1/nodes"), Documents).items

    def drain(self, site: str, node: str, *, force: bool = False) -> Document:
        """Have a node serve no model, while its gateway goes on answering; the node as it then is.

        Raises:
            NotFound: there is no such node.
            Conflict: it is the only place of a model, and ``force`` is not set.
        """
        return _document(
            self._exchanges.call("PUT", f"/v1/nodes/{site}/{node}/drain", json={"force": force}, repeatable=True)
        )

    def undrain(self, site: str, node: str) -> Document:
        """Let a node serve again; the node as it then is. Raises :class:`NotFound`."""
        return _document(self._exchanges.call("DELETE", f"/v1/nodes/{site}/{node}/drain", repeatable=True))

    def revoke(self, site: str, node: str, *, drained: bool = False) -> None:
        """No longer honour a node's identity.

        Raises:
            NotFound: there is no such node.
            Conflict: ``drained`` is asked for, and the node still serves.
        """
        self._exchanges.call("DELETE", f"/v1/nodes/{site}/{node}", params={"drained": str(drained).lower()})

    # --- releases

    def has_blob(self, digest: str) -> bool:
        """Whether the fleet's store holds the bytes called ``digest``."""
        try:
            self._exchanges.call("HEAD", f"/v1/blobs/{digest}")
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
        self._exchanges.call("PUT", f"/v1/blobs/{digest}", body=chunks, headers=headers, repeatable=True)

    def releases(self) -> list[ReleaseView]:
        """Every release, by model and version."""
        found = _typed(self._exchanges.call("GET", "/v1/releases"), Releases).items
        return sorted(found, key=lambda entry: (entry.model, entry.version))

    def releases_targets(self) -> Targets:
        """The signed list of releases, to be signed anew with one more.

        Raises:
            NotFound: this fleet has no releases repository yet.
        """
        answer = self._exchanges.call("GET", "/v1/releases/targets")
        return Targets(answer.content, int(answer.headers[TARGETS_VERSION]))

    def add_release(self, targets: bytes, manifest: bytes, *, expected_version: int) -> None:
        """Publish a release: ``targets`` is the new list, signed by the releaser.

        Raises:
            Conflict: the list is no longer at ``expected_version``, or that version of the model has other content.
            IntegrityError: the signature is not one that the releases root vouches for.
        """
        body = {"targets": _base64(targets), "manifest": _base64(manifest), "expected_version": expected_version}
        self._exchanges.call("POST", "/v1/releases", json=body)

    def start_releases(self, root: bytes, targets: bytes) -> None:
        """Give the fleet its releases repository. Once only.

        Raises:
            Conflict: it has another one already.
        """
        self._exchanges.call("POST", "/v1/releases/root", json={"root": _base64(root), "targets": _base64(targets)})

    def releases_roots(self) -> list[bytes]:
        """Every version of the root of trust of releases, from the first."""
        return [base64.b64decode(item) for item in self._exchanges.call("GET", "/v1/releases/roots").json()["items"]]

    def change_release_keys(self, root: bytes, targets: bytes) -> None:
        """Put another root of releases in force, and the list signed under it.

        Raises:
            Conflict: keys or list were changed meanwhile.
        """
        body = {"root": _base64(root), "targets": _base64(targets)}
        self._exchanges.call("POST", "/v1/releases/keys", json=body, repeatable=True)


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
