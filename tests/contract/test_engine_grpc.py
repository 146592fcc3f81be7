"""gRPC as an engine's socket speaks it: HTTP/1.1 as Envoy makes it of a call, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from contract import engine_models as models
from contract.engine_process import Engine, running_engine
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest

SERVICE = wire.GRPC_SERVICE_PATH
CALL = {"content-type": "application/grpc", "te": "trailers"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine("--max-body", "65536") as running:
        yield running


@pytest.fixture(scope="module")
def adder(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    folder = tmp_path_factory.mktemp("adder")
    manifest = models.adder(folder)
    engine.load(folder, manifest).raise_for_status()
    return manifest


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def question(model: str = "adder", rows: int = 1) -> bytes:
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, 4])
    raw = np.ones((rows, 4), np.float32).tobytes()
    return framed(pb.ModelInferRequest(model_name=model, inputs=[given], raw_input_contents=[raw]).SerializeToString())


def ask(
    engine: Engine, manifest: ReleaseManifest, body: bytes, method: str = "ModelInfer", **more: str
) -> httpx.Response:
    with engine.model(manifest) as client:
        headers = CALL | {name.replace("_", "-"): value for name, value in more.items()}
        return client.post(SERVICE + method, content=body, headers=headers)


def refused(answer: httpx.Response) -> tuple[str, str, str]:
    """Status, code and message of a call that ended in its head."""
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.headers["x-nearcast-model"] == "adder@1"
    status = wire.GrpcStatus(int(answer.headers["grpc-status"])).name
    return status, answer.headers["x-nearcast-error"], answer.headers["grpc-message"]


def test_an_answer_ends_with_the_trailer_and_the_connection_stays(engine: Engine, adder: ReleaseManifest) -> None:
    body = question()
    head = f"POST {SERVICE}ModelInfer HTTP/1.1\r\nhost: e\r\ncontent-type: application/grpc\r\nte: trailers\r\n"
    chunked = head.encode() + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    plain = head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    got = engine.raw(adder, chunked + plain)
    first, second, rest = got.split(b"0\r\ngrpc-status: 0\r\n\r\n")
    assert rest == b""
    for answer in (first, second):
        told, _, chunk = answer.partition(b"\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\nx-nearcast-model: adder@1\r\n")
        assert b"server-timing: queue;dur=" in told
        assert b"content-length" not in told
        size, _, message = chunk.partition(b"\r\n")
        assert len(message) == int(size, 16) + 2
        response = pb.ModelInferResponse.FromString(message[5:-2])
        assert response.raw_output_contents[0] == np.full(4, 2, np.float32).tobytes()


def test_header_and_message_must_name_the_same_model(engine: Engine, adder: ReleaseManifest) -> None:
    for body, named in ((question(), "other"), (question("other"), "adder")):
        told = refused(ask(engine, adder, body, x_nearcast_model=named))
        assert told[:2] == ("INVALID_ARGUMENT", "model_mismatch")
        assert "other" in told[2]
    assert ask(engine, adder, question(), x_nearcast_model="adder").content[:1] == b"\0"


def test_what_is_no_call_gets_a_plain_answer(engine: Engine, adder: ReleaseManifest) -> None:
    for content in ("application/json", "application/grpc-web", "application/grpc+json"):
        answer = ask(engine, adder, question(), content_type=content)
        assert (answer.status_code, answer.headers["x-nearcast-error"]) == (415, "unsupported")
        assert "application/grpc" in answer.json()["error"]
    with engine.model(adder) as client:
        assert client.get(f"{SERVICE}ModelInfer").status_code == 405


@pytest.mark.parametrize("method", ["ModelStreamInfer", "RepositoryIndex", "", "modelinfer"])
def test_methods_that_are_not_there_are_unimplemented(engine: Engine, adder: ReleaseManifest, method: str) -> None:
    assert refused(ask(engine, adder, question(), method))[:2] == ("UNIMPLEMENTED", "not_found")


def test_a_message_is_percent_encoded_and_cut(engine: Engine, adder: ReleaseManifest) -> None:
    _, _, message = refused(ask(engine, adder, question("100% ö\n" * 1000)))
    assert "100%25 %C3%B6\\n100%25" in message
    assert len(message) < 4096


def test_a_call_over_the_limit_is_refused_and_the_next_one_served(engine: Engine, adder: ReleaseManifest) -> None:
    assert refused(ask(engine, adder, question(rows=5000)))[:2] == ("RESOURCE_EXHAUSTED", "body_too_large")
    assert ask(engine, adder, question(rows=4000)).content[:1] == b"\0"


@pytest.mark.parametrize("socket", ["model", "status"])
def test_calls_without_a_model_are_answered_at_both_sockets(
    engine: Engine, adder: ReleaseManifest, socket: str
) -> None:
    with engine.model(adder) if socket == "model" else engine.client(wire.ENGINE_STATUS) as client:
        for method, response in (
            ("ServerLive", pb.ServerLiveResponse(live=True)),
            ("ServerReady", pb.ServerReadyResponse(ready=True)),
        ):
            answer = client.post(f"{SERVICE}{method}", content=framed(b""), headers=CALL)
            assert answer.content == framed(response.SerializeToString())
        assert client.post(f"{SERVICE}ServerLive", content=b"", headers=CALL).headers["grpc-status"] == "3"
        assert client.post(f"{SERVICE}Nothing", content=framed(b""), headers=CALL).headers["grpc-status"] == "12"


def test_a_full_queue_says_so_in_the_head(tmp_path: Path) -> None:
    with running_engine() as engine:
        manifest = models.slow(tmp_path, 2000)
        engine.load(tmp_path, manifest, queue=1).raise_for_status()
        sockets = [engine.connect(manifest) for _ in range(6)]
        body = question("slow")
        head = f"POST {SERVICE}ModelInfer HTTP/1.1\r\nhost: e\r\ncontent-type: application/grpc\r\n"
        for sock in sockets:
            sock.sendall(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        got = []
        for sock in sockets:
            sock.settimeout(60)
            got.append(sock.recv(65536))
            sock.close()
    full = [answer for answer in got if b"grpc-status: 8\r\n" in answer]
    assert 1 <= len(full) < len(got)
    for answer in full:
        assert b"x-nearcast-full: queue\r\n" in answer
        assert b"x-nearcast-error: queue_full\r\n" in answer
