"""The life of model versions and of the engine: loading beside serving, refusing, draining, dying."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from contract import engine_models as models
from contract.engine_process import Engine, drain, running_engine
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine("--queue", "4") as running:
        yield running


def loaded(engine: Engine, folder: Path, manifest: ReleaseManifest, **more: object) -> dict[str, object]:
    answer = engine.load(folder, manifest, **more)
    assert answer.status_code == 200, answer.text
    document: dict[str, object] = answer.json()
    return document


def ask(engine: Engine, manifest: ReleaseManifest) -> httpx.Response:
    with engine.model(manifest) as client:
        return client.post(wire.infer_path(manifest.model), json=BODY)


def raw_infer(manifest: ReleaseManifest) -> bytes:
    body = json.dumps(BODY).encode()
    path = wire.infer_path(manifest.model)
    return f"POST {path} HTTP/1.1\r\nhost: e\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def in_threads(count: int, call: Callable[[], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end, "it did not happen within 20 s"
        time.sleep(0.01)


def test_versions_come_and_go_side_by_side(engine: Engine, tmp_path: Path) -> None:
    one = models.adder(tmp_path / "1", "1", 1.0)
    two = models.adder(tmp_path / "2", "2", 10.0)
    first = loaded(engine, tmp_path / "1", one)
    assert (first["state"], first["socket"]) == ("ready", str(engine.socket_of(one)))
    loaded(engine, tmp_path / "2", two)
    assert ask(engine, one).json()["outputs"][0]["data"] == [2, 3, 4, 5]
    assert ask(engine, two).json()["outputs"][0]["data"] == [11, 12, 13, 14]
    with engine.client(wire.ENGINE_ADMIN) as admin:
        listed = admin.get(wire.ADMIN_MODELS_PATH).json()["models"]
    assert [(entry["version"], entry["state"]) for entry in listed] == [("1", "ready"), ("2", "ready")]
    assert engine.unload(one).json()["state"] == "unloaded"
    assert not engine.socket_of(one).exists()
    assert ask(engine, two).status_code == 200
    assert engine.unload(one).status_code == 200  # again: nothing to do


def test_the_same_order_again_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    manifest = models.adder(tmp_path)
    loaded(engine, tmp_path, manifest)
    inode = engine.socket_of(manifest).stat().st_ino
    loaded(engine, tmp_path, manifest)
    assert engine.socket_of(manifest).stat().st_ino == inode
    other = engine.load(tmp_path, msgspec.structs.replace(manifest, task="other"))
    assert (other.status_code, other.json()["error"]["code"]) == (409, wire.CODE_CONFLICT)


def test_orders_for_one_version_at_the_same_time_are_one(engine: Engine, tmp_path: Path) -> None:
    manifest = models.adder(tmp_path)
    answers = in_threads(4, lambda: engine.load(tmp_path, manifest))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert engine.log.read_text().count("serving adder@1") == 1


@pytest.mark.parametrize("change", ["file", "absent", "shape", "datatype", "names", "tokenizer"])
def test_a_model_that_is_not_what_it_claims_is_refused_and_nothing_listens(
    engine: Engine, tmp_path: Path, change: str
) -> None:
    manifest = models.adder(tmp_path)
    claimed = manifest.signature.inputs[0]
    if change == "file":
        (tmp_path / "model.onnx").write_bytes(b"not a model")
    elif change == "absent":
        (tmp_path / "model.onnx").unlink()
    elif change == "tokenizer":
        manifest = models.embedder(tmp_path)
        (tmp_path / "tokenizer.json").write_text("{}")
    else:
        wrong = {"shape": {"shape": (-1, 5)}, "datatype": {"datatype": "FP64"}, "names": {"name": "z"}}[change]
        inputs = (msgspec.structs.replace(claimed, **wrong),)
        manifest = msgspec.structs.replace(
            manifest, signature=msgspec.structs.replace(manifest.signature, inputs=inputs)
        )
    answer = engine.load(tmp_path, manifest)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, wire.CODE_INVALID_MODEL)
    assert not engine.socket_of(manifest).exists()
    repaired = models.adder(tmp_path)
    loaded(engine, tmp_path, repaired)


@pytest.mark.parametrize(
    "order", [b"", b"{}", b"[1]", b'{"directory":"/tmp","manifest":{}}', b'{"directory":"/tmp","manifest":{},"x":1}']
)
def test_orders_that_are_none(engine: Engine, order: bytes) -> None:
    with engine.client(wire.ENGINE_ADMIN) as admin:
        answer = admin.put(wire.admin_model_path("m", "1"), content=order)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, wire.CODE_INVALID_REQUEST)
        assert admin.post(wire.admin_model_path("m", "1")).status_code == 405
        assert admin.get("/nope").status_code == 404
        assert admin.delete(wire.admin_model_path("m", "1"), params={"drain_s": "soon"}).status_code == 400


def test_a_full_queue_refuses_and_says_that_it_is_full_not_broken(engine: Engine, tmp_path: Path) -> None:
    manifest = models.slow(tmp_path)
    document = loaded(engine, tmp_path, manifest, queue=1)
    profile = msgspec.convert(document["profile"], dict)
    assert profile["inline"] is False
    socks = [engine.connect(manifest) for _ in range(40)]
    try:
        for sock in socks:
            sock.sendall(raw_infer(manifest))
        answers = [sock.recv(65536) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers if answer not in refused)
    assert refused
    assert len(refused) < len(answers)
    for answer in refused:
        assert f"{wire.FULL}: {wire.FULL_QUEUE}\r\n".encode() in answer
        assert f"{wire.ERROR}: {wire.CODE_QUEUE_FULL}\r\n".encode() in answer
        assert f"{wire.RETRY_AFTER}: ".encode() in answer
    with engine.client(wire.ENGINE_STATUS) as status:
        text = status.get(wire.METRICS_PATH).text
    counted = next(line for line in text.splitlines() if line.startswith("nearcast_engine_refused_total"))
    assert float(counted.split()[-1]) == len(refused)


def metric(engine: Engine, name: str) -> float:
    with engine.client(wire.ENGINE_STATUS) as status:
        lines = status.get(wire.METRICS_PATH).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"nearcast_engine_{name}")).split()[-1])


def test_work_of_clients_that_left_is_not_computed(engine: Engine, tmp_path: Path) -> None:
    manifest = models.slow(tmp_path, turns=1500)
    loaded(engine, tmp_path, manifest, queue=100)
    before = metric(engine, "rows_total")
    with engine.connect(manifest) as first:
        first.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 0)
        leaving = [engine.connect(manifest) for _ in range(10)]
        for sock in leaving:
            sock.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 10)
        for sock in leaving:
            sock.close()
        eventually(lambda: metric(engine, "cancelled_total") == 10)
        assert metric(engine, "queue_length") == 0
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert ask(engine, manifest).status_code == 200
    assert metric(engine, "rows_total") - before == 2


def test_a_slow_model_does_not_hold_up_others(engine: Engine, tmp_path: Path) -> None:
    slow, fast = models.slow(tmp_path / "s", turns=3000), models.adder(tmp_path / "f")
    loaded(engine, tmp_path / "s", slow)
    loaded(engine, tmp_path / "f", fast)
    with engine.connect(slow) as sock:
        sock.sendall(raw_infer(slow))
        for _ in range(3):
            assert ask(engine, fast).status_code == 200
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)  # the slow one is still at it
        sock.settimeout(20)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_loading_does_not_hold_up_serving(engine: Engine, tmp_path: Path) -> None:
    slow, fast = models.slow(tmp_path / "s", turns=1000), models.adder(tmp_path / "f")
    loaded(engine, tmp_path / "f", fast)
    loading = threading.Thread(target=lambda: loaded(engine, tmp_path / "s", slow))
    loading.start()
    served = 0
    while loading.is_alive():
        assert ask(engine, fast).status_code == 200
        served += 1
    loading.join()
    assert served > 5


def test_draining_answers_what_is_in_flight_and_what_still_arrives(engine: Engine, tmp_path: Path) -> None:
    manifest = models.slow(tmp_path, turns=1500)
    loaded(engine, tmp_path, manifest)
    with engine.connect(manifest) as busy, engine.connect(manifest) as late:
        busy.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 0)
        unloading = threading.Thread(target=lambda: engine.unload(manifest, drain_s=20))
        unloading.start()
        eventually(lambda: not engine.socket_of(manifest).exists())
        late.sendall(raw_infer(manifest))
        for sock in (busy, late):
            answer = drain(sock, silence_s=20)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close\r\n" in answer
        unloading.join()
    assert not engine.socket_of(manifest).exists()


def test_an_unload_that_may_not_wait_refuses_what_waits(engine: Engine, tmp_path: Path) -> None:
    manifest = models.slow(tmp_path, turns=1500)
    loaded(engine, tmp_path, manifest)
    with engine.connect(manifest) as first, engine.connect(manifest) as second:
        first.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 0)
        second.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 1)
        assert engine.unload(manifest, drain_s=0).status_code == 200
        answer = drain(second)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert f"{wire.FULL}: {wire.FULL_NO_MODEL}".encode() in answer


def test_sigterm_drains_and_leaves_no_socket(engine: Engine, tmp_path: Path) -> None:
    manifest = models.slow(tmp_path, turns=1000)
    loaded(engine, tmp_path, manifest)
    with engine.connect(manifest) as sock:
        sock.sendall(raw_infer(manifest))
        eventually(lambda: metric(engine, "queue_length") == 0)
        engine.process.send_signal(signal.SIGTERM)
        assert drain(sock, silence_s=20).startswith(b"HTTP/1.1 200 ")
    assert engine.process.wait(20) == 0
    assert [entry.name for entry in engine.run_dir.iterdir() if entry.is_socket()] == []


def test_after_kill_9_a_new_engine_takes_the_place(engine: Engine, tmp_path: Path) -> None:
    manifest, other = models.adder(tmp_path), models.adder(tmp_path, "2")
    loaded(engine, tmp_path, manifest)
    engine.process.kill()
    engine.process.wait()
    assert engine.socket_of(manifest).exists()  # nobody could tidy up
    with running_engine(run_dir=engine.run_dir) as second:
        assert not second.socket_of(manifest).exists()
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(second.socket_of(other)))
        stale.close()
        loaded(second, tmp_path, other)
        assert ask(second, other).status_code == 200


def test_a_second_engine_in_the_same_place_gives_up(engine: Engine, tmp_path: Path) -> None:
    manifest = models.adder(tmp_path)
    loaded(engine, tmp_path, manifest)
    command = [sys.executable, "-m", "nearcast.engine", "--run-dir", str(engine.run_dir)]
    second = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert second.returncode == 5
    assert b"another engine" in second.stderr
    assert ask(engine, manifest).status_code == 200
