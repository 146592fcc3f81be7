"""The control plane's API under malformed requests: by its own OpenAPI document, and by raw bytes.

A real process is asked over TLS, as operators, as a node, and as nobody. Each answer is a clean refusal in one shape;
the process holds no more afterwards than before; an honest request is answered all the while.
"""

import asyncio
import json
import ssl
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import hypothesis.strategies as st
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode

from fuzz.amount import amount, seeded
from fuzz.malformed import body_of, broken
from fuzz.raw import Closed, Connection, tcp
from fuzz.vitals import Bounds, Watch, grown, traces, vitals_here
from nearcast.control.app import create_app

Process, Fleet = Any, Any
SITE = {"apiVersion": "nearcast.dev/v1alpha1", "kind": "Site", "metadata": {"name": "fra"}, "spec": {"country": "DE"}}
DEPLOYMENT = {
    "apiVersion": "nearcast.dev/v1alpha1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {"model": "m", "version": "1", "placement": {"sites": ["fra"]}},
}
OPERATIONS = [
    (operation.ok().method.upper(), operation.ok().path)
    for operation in schemathesis.openapi.from_dict(create_app(None).openapi()).get_all_operations()
]


class Stand:
    """A control plane in a process, with a site, and a client for each who may call."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.admin = process.client()
        self.nobody = process.client()
        self.nobody.headers.pop("authorization")
        self.stranger = process.client()
        self.stranger.headers["authorization"] = "Bearer nc_not-a-token"
        answer = self.admin.post("/v1/apply", json={"manifests": [SITE]})
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        for client in (self.admin, self.nobody, self.stranger):
            client.close()

    def pids(self) -> dict[str, int]:
        assert self.process.process.poll() is None, self.process.log.read_text()
        return {"control": self.process.process.pid}

    def assert_honest_is_answered(self) -> None:
        answer = self.admin.post("/v1/apply", json={"manifests": [SITE], "dry_run": True})
        assert answer.status_code == 200, answer.text
        assert [item["kind"] for item in answer.json()["results"]] == ["Site"]


@pytest.fixture
def stand(lasting: Any) -> Iterator[Stand]:
    made = Stand(lasting)
    yield made
    made.close()


def assert_clean(answer: httpx.Response) -> None:
    """No 5xx; a refusal in the one shape, in words. Who fails to join too often waits: the only 503."""
    waits = answer.status_code == 503 and "retry-after" in answer.headers and answer.url.path == "/v1/join"
    assert answer.status_code < 500 or waits, (answer.request.method, answer.url, answer.text[:500])
    assert "Traceback" not in answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        error = answer.json()["error"]
        assert {"code", "message", "hint"} <= set(error), answer.text
        assert len(error["message"]) > 8, answer.text
        assert len(answer.content) < 100_000, "a refusal does not send the input back"


def ascii_only(value: object) -> str:
    return str(value).encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "").strip()


def send(client: httpx.Client, case: Any) -> httpx.Response:
    """A generated case, as it is: path and query escaped already or here, a body of any kind."""
    body = None if isinstance(case.body, NotSet) else case.body
    content = body if isinstance(body, bytes) else None if body is None else _json(body)
    headers = {ascii_only(name): ascii_only(value) for name, value in (case.headers or {}).items()}
    own = {name: value for name, value in headers.items() if name and name.lower() not in _FRAME and _is_token(name)}
    query = urllib.parse.urlencode(case.query or {}, doseq=True, errors="replace")
    path = case.path.format(**case.path_parameters or {}) + (f"?{query}" if query else "")
    return client.request(case.method, path, content=content, headers=own)


_FRAME = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "authorization",
    "expect",
    "upgrade",
    "te",
    "trailer",
}


def _is_token(name: str) -> bool:
    return all(letter.isalnum() or letter in "-_" for letter in name)


def _json(value: object) -> bytes:
    return json.dumps(value, default=str).encode("utf-8", "replace")


def test_every_operation_as_everybody(stand: Stand) -> None:
    """Cases out of our own OpenAPI document: such as it allows, and such as it does not."""
    schema = schemathesis.openapi.from_dict(stand.nobody.get("/openapi.json").json())
    each = max(2, amount(300) // len(OPERATIONS) // 2)
    mark = {stand.process.log: stand.process.log.stat().st_size}
    watch: Watch | None = None
    thrown = 0
    for round_of in ("warm-up", "measured"):
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                thrown += _throw(stand, operation, mode, each if round_of == "measured" else 2)
        stand.assert_honest_is_answered()
        if watch is None:
            watch, thrown = Watch(stand.pids, Bounds(memory_bytes=32 << 20)), 0
    assert thrown >= amount(300) // 2
    assert watch is not None
    watch.check()
    assert traces([stand.process.log], mark) == []


def _throw(stand: Stand, operation: Any, mode: GenerationMode, count: int) -> int:
    thrown = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(
        case=operation.as_strategy(generation_mode=mode), who=st.sampled_from(["admin", "admin", "nobody", "stranger"])
    )
    def call(case: Any, who: str) -> None:
        nonlocal thrown
        thrown += 1
        assert_clean(send(getattr(stand, who), case))

    try:
        call()
    except Unsatisfiable:
        return 0  # nothing of this kind can be wrong with an operation that takes nothing
    return thrown


@pytest.mark.parametrize("valid", [SITE, DEPLOYMENT], ids=lambda manifest: str(manifest["kind"]))
def test_manifests(stand: Stand, valid: dict[str, Any]) -> None:
    dice, mark = seeded(f"control-{valid['kind']}"), {stand.process.log: stand.process.log.stat().st_size}
    watch: Watch | None = None
    for index in range(amount(150)):
        if index == 50:
            watch = Watch(stand.pids, Bounds(memory_bytes=32 << 20))
        whole = dice.random() < 0.5
        data = body_of(dice, {"manifests": [valid], "dry_run": True} if whole else valid)
        if not whole:
            data = b'{"dry_run": true, "manifests": [' + data + b"]}"
        answer = stand.admin.post("/v1/apply", content=data)
        assert_clean(answer)
        if index % 25 == 0:
            stand.assert_honest_is_answered()
    assert watch is not None
    watch.check()
    assert traces([stand.process.log], mark) == []


JOIN = {"token": "nct1.abc.def", "node": "n1", "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END"}
STATUS = {"site": "fra", "node": "n1", "software": "x", "started_at": "then", "plan_version": 1, "plan_revision": "r"}


def test_the_calls_of_nodes(stand: Stand) -> None:
    """Join without a credential, and what only a node may call, as strangers."""
    dice, mark = seeded("control-nodes"), {stand.process.log: stand.process.log.stat().st_size}
    for index in range(amount(150)):
        path, valid = dice.choice(
            (("/v1/join", JOIN), ("/v1/nodes/self/status", STATUS), ("/v1/nodes/self/certificate", JOIN))
        )
        method = "PUT" if path.endswith("status") else "POST"
        client = dice.choice((stand.nobody, stand.stranger, stand.admin))
        assert_clean(client.request(method, path, content=body_of(dice, valid)))
        if index % 25 == 0:
            stand.assert_honest_is_answered()
    assert traces([stand.process.log], mark) == []


def raw_request(dice: Random, token: str) -> bytes:
    body = json.dumps({"manifests": [SITE], "dry_run": True}).encode()
    head = (
        f"POST /v1/apply HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    good = head.encode() + body
    how = dice.randrange(6)
    if how == 0:
        return good.replace(
            b"content-length:", dice.choice((b"transfer-encoding: chunked\r\ncontent-length:", b"x y:", b":"))
        )
    if how == 1:
        return good.replace(
            b"/v1/apply", dice.choice((b"/v1/../v1/apply", b"//v1/apply", b"/v1/apply%00", b"*", b"http://x/y"))
        )
    if how == 2:
        return good.replace(
            b"host: x", b"x-a: " + dice.choice((b"y" * 200_000, b"\x00", b"\xff\xfe", b"a\rb", b"a\n b"))
        )
    if how == 3:
        return dice.randbytes(dice.randrange(1, 3000))
    return broken(dice, good)


def test_what_is_no_http_is_refused_in_our_shape(stand: Stand) -> None:
    trust = ssl.create_default_context(cafile=stand.process.info["ca_file"])
    plain = tcp("127.0.0.1", stand.process.port)
    for data in (b"\x00\x01\r\n\r\n", b"GET / SPDY/9\r\n\r\n", b"GET / HTTP/1.1\r\nx y: z\r\n\r\n"):
        with Connection(lambda: trust.wrap_socket(plain(), server_hostname="127.0.0.1")) as line:
            line.send(data)
            reply = line.receive()
        assert (reply.status, reply.closed) == (400, True)
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["error"]["code"] == "invalid_input"
        assert "HTTP/1.1" in reply.message


def test_raw_bytes(stand: Stand) -> None:
    """Through TLS, and at its door: what is not HTTP, or not TLS."""
    dice, mark = seeded("control-raw"), {stand.process.log: stand.process.log.stat().st_size}
    trust = ssl.create_default_context(cafile=stand.process.info["ca_file"])
    token = Path(stand.process.info["admin_token_file"]).read_text().strip()
    plain = tcp("127.0.0.1", stand.process.port)
    watch: Watch | None = None
    for index in range(amount(150)):
        if index == 40:
            watch = Watch(stand.pids)
        data = raw_request(dice, token)
        inside = dice.random() < 0.7
        with Connection((lambda: trust.wrap_socket(plain(), server_hostname="127.0.0.1")) if inside else plain) as line:
            line.send(data)
            if inside and data.startswith(b"POST"):
                line.finish_sending()
                try:
                    reply = line.receive()
                except (Closed, OSError, ValueError):
                    continue  # cut short, or closed without a word: no answer is none that is wrong
                assert reply.status < 500, (reply, data[:300])
                assert reply.status < 400 or len(reply.message) > 8, (reply, data[:300])
        if index % 50 == 0:
            stand.assert_honest_is_answered()
    stand.assert_honest_is_answered()
    assert watch is not None
    watch.check()
    assert traces([stand.process.log], mark) == []


def test_no_task_stays_behind(fleet: Fleet) -> None:
    """The application in this process: whatever is refused, its tasks end."""
    dice = seeded("control-tasks")

    async def story() -> None:
        transport = httpx.ASGITransport(fleet.app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {fleet.admin}"}
        async with httpx.AsyncClient(transport=transport, base_url="https://c.test", headers=headers) as client:
            for index in range(60):
                if index == 20:
                    before = vitals_here()
                calls = [client.post("/v1/apply", content=body_of(dice, {"manifests": [SITE]})) for _ in range(5)]
                for answer in await asyncio.gather(*calls):
                    assert_clean(answer)
            await asyncio.sleep(0)
            assert not [line for line in grown(before, vitals_here(), Bounds()) if not line.startswith("memory")]

    asyncio.run(story())
