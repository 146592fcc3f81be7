"""Calls to a gateway, as any client makes them, and what its answer headers tell: who computed it, why, how fast.

Knows no control plane. Failures come back in the error tree, by the code that the gateway or the engine gave.
"""

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from nearcast.cli.tensors import Filled, decode, encode
from nearcast.errors import Forbidden, InvalidInput, NearcastError, NotFound, Unavailable
from nearcast.resources import wire
from nearcast.resources.release import Signature, Tensor
from nearcast.resources.unreadable import UNREADABLE

TIMEOUT_S: Final = 60.0
PROBE_TIMEOUT_S: Final = 2.0
ORDER: Final = ("gateway", "upstream", "queue", "compute")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``timings_ms`` holds what the answer's headers said, and ``total`` by our own clock."""

    document: dict[str, Any]
    site: str
    model: str
    reason: str
    timings_ms: dict[str, float]


class Gateway:
    """One gateway.

    Args:
        url: its base URL.
        transport: what carries the requests; by default the network.
        trust: whom to believe that it is the gateway; by default the authorities of this machine, or those that
            ``SSL_CERT_FILE`` names.
    """

    def __init__(
        self, url: str, *, transport: httpx.BaseTransport | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=TIMEOUT_S,
            trust_env=False,
            transport=transport,
            verify=trust or httpx.create_ssl_context(),
        )

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def signature(self, model: str) -> Signature:
        """Inputs and outputs of ``model``, as the place that serves it says."""
        answer = self._send("GET", f"/v2/models/{model}")
        try:
            found = msgspec.json.decode(answer.content, type=_Metadata)
        except UNREADABLE as error:
            raise NearcastError(f"{self.url} did not describe {model}: {error}") from error
        return Signature(inputs=found.inputs, outputs=found.outputs)

    def infer(self, model: str, inputs: list[Filled]) -> Answer:
        """Ask ``model`` with tensors."""
        body, head = encode(inputs)
        headers = {"content-type": "application/octet-stream", wire.INFERENCE_HEADER_LENGTH: str(head)}
        started_s = time.perf_counter()
        answer = self._send("POST", wire.infer_path(model), content=body, headers=headers)
        total_s = time.perf_counter() - started_s
        length = answer.headers.get(wire.INFERENCE_HEADER_LENGTH)
        return _answer(decode(answer.content, int(length) if length else None), answer.headers, total_s)

    def post(self, path: str, document: dict[str, Any]) -> Answer:
        """Send JSON as it is, get JSON as it is."""
        started_s = time.perf_counter()
        answer = self._send(
            "POST", path, content=json.dumps(document).encode(), headers={"content-type": "application/json"}
        )
        total_s = time.perf_counter() - started_s
        try:
            found = answer.json()
        except ValueError as error:
            raise NearcastError(f"{self.url}{path} did not answer with JSON: {error}") from error
        return _answer(found, answer.headers, total_s)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
            is_unknown = "CERTIFICATE_VERIFY_FAILED" in said
            raise Unavailable(
                f"the gateway at {self.url} {'is not known' if is_unknown else 'does not answer'}: {said}",
                hint="SSL_CERT_FILE=FILE names an authority of your own (PEM)"
                if is_unknown
                else "nearcast status shows the gateways and whether they are ready",
            ) from error
        if not answer.is_success:
            raise failure_in(answer)
        return answer


class _Metadata(msgspec.Struct, frozen=True):
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def answers(url: str, trust: ssl.SSLContext | None = None) -> bool:
    """Whether a GET of ``url`` succeeds; ``trust`` as for a :class:`Gateway`."""
    try:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False, verify=trust or True) as client:
            return client.get(url).is_success
    except httpx.TransportError:
        return False


def failure_in(answer: httpx.Response) -> NearcastError:
    """The error that a gateway or engine meant, by its status; the message keeps the machine code."""
    code = answer.headers.get(wire.ERROR, "")
    message = f"{_said(answer)} ({code})" if code else _said(answer)
    if code == wire.CODE_RESIDENCY_REFUSED:
        return Forbidden(message, hint="nearcast route explain MODEL --site SITE names the policy and the places")
    if code == wire.CODE_MODEL_NOT_FOUND:
        return NotFound(message, hint="nearcast get deployments shows what is deployed")
    if code == wire.CODE_NO_PLACE_READY or answer.status_code in {502, 503, 504}:
        return Unavailable(message, hint="nearcast get deployments; nearcast status")
    kinds = {400: InvalidInput, 403: Forbidden, 404: NotFound, 413: InvalidInput, 422: InvalidInput}
    return kinds.get(answer.status_code, NearcastError)(message)


def server_timing(text: str) -> dict[str, float]:
    """Durations in milliseconds by name, out of a ``server-timing`` header; what is not understood is left out."""
    found: dict[str, float] = {}
    for entry in text.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "dur":
                try:
                    found[name] = float(value)
                except ValueError:
                    continue
    return found


def _answer(document: dict[str, Any], headers: Mapping[str, str], total_s: float) -> Answer:
    said = server_timing(headers.get(wire.SERVER_TIMING, ""))
    timings = {name: said[name] for name in ORDER if name in said} | {"total": round(total_s * 1000.0, 3)}
    if "upstream" in timings and "compute" in timings:
        network = timings["upstream"] - timings["compute"] - timings.get("queue", 0.0)
        timings["network"] = round(max(0.0, network), 3)
    return Answer(
        document=document,
        site=headers.get(wire.SITE, ""),
        model=headers.get(wire.MODEL, ""),
        reason=headers.get(wire.REASON, ""),
        timings_ms=timings,
    )


def _said(answer: httpx.Response) -> str:
    """The message in the body, in either of the two shapes; else the status."""
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url} answered {answer.status_code}: {answer.text[:200].strip() or 'no body'}"
