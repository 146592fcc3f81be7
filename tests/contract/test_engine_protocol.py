"""The wire of a model's socket, spoken to a real engine process."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from contract import engine_models as models
from contract.engine_process import Engine, drain, running_engine
from nearcast.resources import wire
from nearcast.resources.load import LoadReport
from nearcast.resources.release import ReleaseManifest

INFER = "/v2/models/adder/infer"
X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine("--max-body", "1000000") as running:
        yield running


@pytest.fixture(scope="module")
def adder(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    folder = tmp_path_factory.mktemp("adder")
    manifest = models.adder(folder)
    engine.load(folder, manifest).raise_for_status()
    return manifest


@pytest.fixture
def client(engine: Engine, adder: ReleaseManifest) -> Iterator[httpx.Client]:
    with engine.model(adder) as client:
        yield client


def raw_request(body: bytes, *headers: str, method: str = "POST", path: str = INFER) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: e", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def infer_body(value: float = 1) -> bytes:
    return json.dumps({"inputs": [X | {"data": [value] * 4}]}).encode()


def test_an_answer_tells_who_computed_it_and_how_long(client: httpx.Client) -> None:
    answer = client.post(INFER, json={"inputs": [X], "id": "7"}, headers={"x-request-id": "abc"})
    assert answer.json() == {
        "model_name": "adder",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 3, 4, 5]}],
    }
    assert answer.headers[wire.MODEL] == "adder@1"
    assert answer.headers[wire.REQUEST_ID] == "abc"
    entries = dict(entry.strip().split(";dur=") for entry in answer.headers[wire.SERVER_TIMING].split(","))
    assert entries.keys() == {"queue", "compute"}
    assert all(float(value) >= 0 for value in entries.values())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/adder/ready", {"name": "adder", "ready": True}),
        ("/v2/models/adder/versions/1/ready", {"name": "adder", "ready": True}),
        ("/v2/models/%61dder/ready?x=1", {"name": "adder", "ready": True}),
    ],
)
def test_health_and_readiness(client: httpx.Client, path: str, expected: dict[str, object]) -> None:
    assert client.get(path).json() == expected
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_metadata(client: httpx.Client) -> None:
    assert client.get("/v2/models/adder").json() == client.get("/v2/models/adder/versions/1").json()
    assert client.get("/v2/models/adder").json() == {
        "name": "adder",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/other", 404, wire.CODE_MODEL_NOT_FOUND),
        ("POST", "/v2/models/adder/versions/2/infer", 404, wire.CODE_MODEL_NOT_FOUND),
        ("GET", "/v2/models/adder/nonsense", 404, wire.CODE_NOT_FOUND),
        ("GET", "/nonsense", 404, wire.CODE_NOT_FOUND),
        ("GET", INFER, 405, wire.CODE_METHOD_NOT_ALLOWED),
        ("DELETE", "/v2/models/adder", 405, wire.CODE_METHOD_NOT_ALLOWED),
    ],
)
def test_wrong_paths_and_methods(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers[wire.ERROR]) == (status, code)
    assert isinstance(answer.json()["error"], str)
    assert ("allow" in answer.headers) == (status == 405)


def test_errors_below_v1_have_the_shape_of_openai(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": "adder", "input": "a"})
    assert answer.status_code == 404
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_the_routed_model_must_be_that_of_the_socket(client: httpx.Client) -> None:
    assert client.post(INFER, json={"inputs": [X]}, headers={wire.MODEL: "adder"}).status_code == 200
    answer = client.post(INFER, json={"inputs": [X]}, headers={"X-Nearcast-Model": "other"})
    assert (answer.status_code, answer.headers[wire.ERROR]) == (400, wire.CODE_MODEL_MISMATCH)


def test_wrong_tensors_are_answered_and_the_connection_lives(client: httpx.Client) -> None:
    answer = client.post(INFER, json={"inputs": [X | {"shape": [1, 3]}]})
    assert (answer.status_code, answer.headers[wire.ERROR]) == (400, wire.CODE_INVALID_TENSOR)
    assert "expected shape [-1, 4], got [1, 3]" in answer.json()["error"]
    assert client.post(INFER, json={"inputs": [X]}).status_code == 200


def test_binary_both_ways(client: httpx.Client) -> None:
    head = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    answer = client.post(
        INFER,
        content=head + struct.pack("<4f", 1, 2, 3, 4),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    size = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:size])["outputs"][0]["parameters"]["binary_data_size"] == 16
    assert struct.unpack("<4f", answer.content[size:]) == (2, 3, 4, 5)


def test_every_datatype_both_ways(engine: Engine, tmp_path: Path) -> None:
    manifest = models.everything(tmp_path)
    engine.load(tmp_path, manifest).raise_for_status()
    inputs = []
    for one in manifest.signature.inputs:
        values: list[object] = [1, 0]
        if one.datatype == "BYTES":
            values = ["ü", ""]
        elif one.datatype == "BOOL":
            values = [True, False]
        inputs.append({"name": one.name, "datatype": one.datatype, "shape": [1, 2], "data": values})
    with engine.model(manifest) as client:
        plain = client.post("/v2/models/everything/infer", json={"inputs": inputs})
        assert [output["data"] for output in plain.json()["outputs"]] == [one["data"] for one in inputs]
        asked = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        answer = client.post("/v2/models/everything/infer", json=asked)
    size = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:size])["outputs"]
    assert sum(output["parameters"]["binary_data_size"] for output in outputs) == len(answer.content) - size
    assert answer.content.endswith(b"\x02\x00\x00\x00\xc3\xbc\x00\x00\x00\x00")


def test_pipelined_requests_are_answered_in_order(engine: Engine, adder: ReleaseManifest) -> None:
    wrong = raw_request(b"{")
    sent = [raw_request(infer_body(n)) for n in range(40)]
    with engine.connect(adder) as sock:
        sock.sendall(b"".join([*sent[:20], wrong, *sent[20:]]))
        answers = drain(sock).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 20 + [b"400"] + [b"200"] * 20
    data = [json.loads(a.partition(b"\r\n\r\n")[2])["outputs"][0]["data"][0] for a in answers if a[:3] == b"200"]
    assert data == [n + 1 for n in range(40)]


def test_a_request_may_come_byte_by_byte(engine: Engine, adder: ReleaseManifest) -> None:
    with engine.connect(adder) as sock:
        for byte in raw_request(infer_body(), "connection: close"):
            sock.send(bytes([byte]))
        assert drain(sock).startswith(b"HTTP/1.1 200")


def test_chunked_bodies(client: httpx.Client) -> None:
    body = infer_body()
    answer = client.post(INFER, content=(body[i : i + 7] for i in range(0, len(body), 7)))
    assert answer.json()["outputs"][0]["data"] == [2, 2, 2, 2]


def test_a_body_in_thousands_of_chunks(engine: Engine, adder: ReleaseManifest) -> None:
    body = infer_body() + b" " * 5000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-nearcast-model: other\r\n\r\n"
    head = f"POST {INFER} HTTP/1.1\r\nhost: e\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    answer = engine.raw(adder, head + chunks)
    assert answer.startswith(b"HTTP/1.1 200")


def test_expect_continue(engine: Engine, adder: ReleaseManifest) -> None:
    body = infer_body()
    with engine.connect(adder) as sock:
        sock.sendall(raw_request(body, "expect: 100-continue", "connection: close")[: -len(body)])
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert drain(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, wire.CODE_INVALID_REQUEST),
        (raw_request(b"")[:-4] + b"\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431, wire.CODE_HEADERS_TOO_LARGE),
        (b"GET /" + b"a" * 300_000, 431, wire.CODE_HEADERS_TOO_LARGE),
        (raw_request(b"x")[:-1].replace(b"length: 1", b"length: 1000001"), 413, wire.CODE_BODY_TOO_LARGE),
        (raw_request(b"x", "content-encoding: gzip"), 400, wire.CODE_INVALID_REQUEST),
        (raw_request(b"x").replace(b"length: 1", b"length: -1"), 400, wire.CODE_INVALID_REQUEST),
        (raw_request(b"x").replace(b"length: 1", b"length: 1\r\ncontent-length: 2"), 400, wire.CODE_INVALID_REQUEST),
    ],
)
def test_requests_that_break_a_limit(
    engine: Engine, adder: ReleaseManifest, data: bytes, status: int, code: str
) -> None:
    answer = engine.raw(adder, data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"{wire.ERROR}: {code}\r\n".encode() in answer
    assert b"connection: close\r\n" in answer


def test_a_chunked_body_that_grows_too_large(engine: Engine, adder: ReleaseManifest) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nhost: e\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    answer = engine.raw(adder, head + b"80000\r\n" + b"a" * 0x80000 + b"\r\n80000\r\n" + b"a" * 0x80000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_large_refused_upload_still_gets_its_answer(engine: Engine, adder: ReleaseManifest) -> None:
    with engine.connect(adder) as sock:
        sock.sendall(raw_request(b"x" * 900_000).replace(b"length: 900000", b"length: 2000000"))
        assert drain(sock).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_closes_is_told_nothing_and_harms_nobody(
    engine: Engine, adder: ReleaseManifest, client: httpx.Client
) -> None:
    for _ in range(20):
        with engine.connect(adder) as sock:
            sock.sendall(raw_request(infer_body()))
    with engine.connect(adder) as sock:
        sock.sendall(raw_request(infer_body())[:50])
    assert client.post(INFER, json={"inputs": [X]}).status_code == 200


def test_http_1_0_is_served_and_upgrades_are_refused(engine: Engine, adder: ReleaseManifest) -> None:
    old = engine.raw(adder, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200")
    upgrade = engine.raw(adder, raw_request(infer_body(), "connection: upgrade", "upgrade: h2c"))
    assert upgrade.startswith(b"HTTP/1.1 400")
    assert b"upgrade" in upgrade


def test_inputs_that_the_model_cannot_compute_fail_alone(engine: Engine, tmp_path: Path) -> None:
    manifest = models.picker(tmp_path)
    engine.load(tmp_path, manifest).raise_for_status()

    def request(index: int) -> bytes:
        given = {"name": "i", "datatype": "INT64", "shape": [1, 1], "data": [index]}
        return raw_request(json.dumps({"inputs": [given]}).encode(), path="/v2/models/picker/infer")

    socks = [engine.connect(manifest) for _ in range(10)]
    try:
        for index, sock in enumerate(socks):
            sock.sendall(request(99 if index == 4 else index % 5))
        answers = [sock.recv(65536) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    assert [answer[9:12] for answer in answers] == [b"422" if index == 4 else b"200" for index in range(10)]
    assert f"{wire.ERROR}: {wire.CODE_INFERENCE_FAILED}".encode() in answers[4]
    assert b'"data":[3.0]' in answers[3]


def test_rows_that_depend_on_one_another_stay_apart(engine: Engine, tmp_path: Path) -> None:
    manifest = models.centred(tmp_path)
    loaded = engine.load(tmp_path, manifest).json()
    assert loaded["profile"]["max_batch"] == 1
    socks = [engine.connect(manifest) for _ in range(8)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(raw_request(infer_body(number), path="/v2/models/centred/infer"))
        answers = [sock.recv(65536) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    assert all(b'"data":[0.0,0.0,0.0,0.0]' in answer for answer in answers)


def test_batches_of_a_client_keep_their_rows(client: httpx.Client) -> None:
    rows = np.arange(400, dtype=np.float32).reshape(100, 4)
    answer = client.post(INFER, json={"inputs": [X | {"shape": [100, 4], "data": rows.tolist()}]})
    assert answer.json()["outputs"][0]["data"] == (rows.ravel() + 1).tolist()


@pytest.mark.parametrize("spoilt", [False, True])
def test_long_json_is_read_aside_and_means_the_same(client: httpx.Client, spoilt: bool) -> None:
    rows = 12_000
    values = list(range(4 * rows))
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": values}]}
    if spoilt:
        body["inputs"][0]["data"].pop()  # type: ignore[index, attr-defined]
    answer = client.post(INFER, json=body, timeout=60)
    if spoilt:
        assert answer.status_code == 400
        assert "holds 48000 elements, data has 47999" in answer.json()["error"]
    else:
        assert answer.json()["outputs"][0]["data"] == [value + 1 for value in values]


def test_load_report_and_metrics(engine: Engine, adder: ReleaseManifest, client: httpx.Client) -> None:
    client.post(INFER, json={"inputs": [X]}).raise_for_status()
    with engine.client(wire.ENGINE_STATUS) as status:
        report = msgspec.json.decode(status.get(wire.LOAD_PATH).content, type=LoadReport)
        load = report.of("adder")
        assert load is not None
        assert load.room == 128
        assert 0 < load.service_s < 1
        assert report.of("nobody") is None
        text = status.get(wire.METRICS_PATH).text
        assert status.get(wire.READY_PATH).status_code == 200
        assert status.get("/nope").json()["error"]["code"] == wire.CODE_NOT_FOUND
        assert status.post(wire.LOAD_PATH).status_code == 405
    counted = next(
        line for line in text.splitlines() if line.startswith('nearcast_engine_answered_total{model="adder"')
    )
    assert float(counted.split()[-1]) >= 1
    assert "nearcast_engine_compute_seconds_bucket" in text
    assert "process_resident_memory_bytes" in text


def test_the_admin_socket_is_private(engine: Engine) -> None:
    assert (engine.run_dir / wire.ENGINE_ADMIN).stat().st_mode & 0o777 == 0o600
