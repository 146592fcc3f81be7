"""The client of the control plane: what it repeats, and what its errors mean."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from nearcast.client import ControlClient, Target, Unreachable
from nearcast.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    NearcastError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

STATUS = {"fleet": "f.test", "control": {"url": "https://c.test", "version": "1", "new": 1}, "sites": []}


def client_of(handler: Callable[[httpx.Request], httpx.Response], naps: list[float] | None = None) -> ControlClient:
    return ControlClient(
        Target(url="https://c.test", token="t"),
        transport=httpx.MockTransport(handler),
        sleep=(naps if naps is not None else []).append,
        jitter=lambda: 1.0,
    )


def answering(*answers: httpx.Response | Exception) -> tuple[Callable[[httpx.Request], httpx.Response], list[str]]:
    """A server that gives ``answers`` in turn, and the methods that it saw."""
    rest, seen = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request.method)
        answer = rest.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, seen


def refusal(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "m", "hint": "h"}}, headers=headers or {})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_input", InvalidInput),
        (401, "unauthenticated", Unauthenticated),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (422, "integrity", IntegrityError),
    ],
)
def test_an_error_keeps_its_meaning_and_is_not_repeated(status: int, code: str, kind: type[Exception]) -> None:
    handle, seen = answering(refusal(status, code))
    with client_of(handle) as client, pytest.raises(kind) as caught:
        client.status()
    assert (caught.value.message, caught.value.hint) == ("m", "h")  # type: ignore[attr-defined]
    assert seen == ["GET"]


def test_an_error_that_is_not_ours_is_told_by_its_status() -> None:
    handle, _ = answering(httpx.Response(404, text="<html>proxy</html>"))
    with client_of(handle) as client, pytest.raises(NotFound, match="proxy"):
        client.status()


def test_reads_are_repeated_with_growing_pauses_and_as_long_as_the_server_asks() -> None:
    busy = refusal(503, "unavailable", {"retry-after": "3"})
    handle, seen = answering(busy, httpx.ReadError("reset"), refusal(502, "x"), httpx.Response(200, json=STATUS))
    naps: list[float] = []
    with client_of(handle, naps) as client:
        assert client.status().fleet == "f.test"
    assert len(seen) == 4
    assert naps == [3.0, 0.4, 0.8]


def test_at_the_end_the_last_error_stands() -> None:
    handle, seen = answering(*(refusal(503, "unavailable", {"retry-after": "2"}) for _ in range(4)))
    with client_of(handle) as client, pytest.raises(Unavailable) as caught:
        client.status()
    assert caught.value.retry_after_s == 2.0
    assert len(seen) == 4


def test_a_change_that_may_have_arrived_is_not_sent_again() -> None:
    handle, seen = answering(httpx.ReadError("reset"))
    with client_of(handle) as client, pytest.raises(Unreachable):
        client.apply([{"kind": "Site"}])
    assert seen == ["POST"]


def test_a_change_that_certainly_did_not_arrive_is_sent_again_once() -> None:
    handle, seen = answering(httpx.ConnectError("refused"), httpx.Response(200, json={"results": []}))
    with client_of(handle) as client:
        assert client.apply([]) == []
    assert seen == ["POST", "POST"]


def test_nobody_there_is_said_soon() -> None:
    handle, seen = answering(httpx.ConnectError("refused"), httpx.ConnectError("refused"))
    with client_of(handle) as client, pytest.raises(Unreachable, match=r"nobody answers at https://c\.test: refused"):
        client.status()
    assert len(seen) == 2


def test_a_certificate_of_somebody_else_ends_the_call() -> None:
    handle, seen = answering(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"))
    with client_of(handle) as client, pytest.raises(IntegrityError, match="not trusted"):
        client.status()
    assert len(seen) == 1


def test_is_ready_asks_once_and_takes_silence_for_no() -> None:
    handle, seen = answering(httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(200))
    with client_of(handle) as client:
        assert [client.is_ready() for _ in range(3)] == [False, False, True]
    assert len(seen) == 3


def test_an_upload_that_breaks_is_begun_again_and_its_progress_counts_each_byte_once(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"w" * 3_000_000)
    bodies: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        if len(bodies) == 1:
            raise httpx.WriteError("broken pipe")
        assert request.headers["content-length"] == "3000000"
        return httpx.Response(201, json={})

    sent: list[int] = []
    with client_of(handle) as client:
        client.put_blob(f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", path, progress=sent.append)
    assert [len(body) for body in bodies] == [3_000_000, 3_000_000]
    assert sum(sent) == 3_000_000


@pytest.mark.parametrize("body", [b'{"fleet": 7}', b"<html>Log in to the network</html>", b""])
def test_an_answer_of_another_form_is_said_to_be_one(body: bytes) -> None:
    handle, _ = answering(httpx.Response(200, content=body))
    with client_of(handle) as client, pytest.raises(NearcastError, match="did not answer with a FleetStatus"):
        client.status()


def test_an_authority_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="PEM"):
        ControlClient(Target(url="https://c.test", ca_pem="-----BEGIN nonsense"))


def test_secrets_do_not_stand_in_representations() -> None:
    assert "hush" not in repr(Target(url="https://c.test", token="hush", ca_pem="hush"))
