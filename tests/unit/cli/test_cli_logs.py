"""Logs: one form whoever wrote, the order of time, one request through all of them, rotation under a reader."""

import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue

import pytest

from nearcast import logs
from nearcast.cli.log_lines import in_order, parsed, read

REQUEST = "0f36b2ab-43a4-4c41-9eb1-6e1f4a4cf4cb"
ENTRY = {
    "time": "2026-11-20T10:00:02.000Z", "listener": "public", "request_id": REQUEST, "method": "POST",
    "path": "/v2/models/m/infer", "status": 503, "site": "fra", "error": "no_place_ready", "duration_ms": 7,
}  # fmt: skip


def at(second: int) -> datetime:
    return datetime(2026, 11, 20, 10, 0, second, tzinfo=UTC)


def test_our_lines_envoys_and_json_are_read_alike():
    ours = parsed("a", "2026-11-20T10:00:01.000Z WARNING gateway lost pid=7")
    envoy = parsed("g", "2026-11-20T10:00:03.000Z error [config] it is refused")
    access, structured = parsed("r", json.dumps(ENTRY)), parsed("e", '{"time": "x", "level": "info", "message": "m"}')
    assert [(each.time, each.level) for each in (ours, envoy, access)] == [
        (at(1), "warning"), (at(3), "error"), (at(2), "error"),
    ]  # fmt: skip
    assert access.shown.startswith("2026-11-20T10:00:02.000Z ERROR POST /v2/models/m/infer 503 request_id=")
    assert (structured.time, structured.level, structured.message) == (None, "info", "m")
    assert [each.source for each in in_order([envoy, access, ours])] == ["a", "r", "g"]


@pytest.mark.parametrize("text", ["", "{half", "Traceback (most recent call last):", '  File "x"', "\x1b[31m?"])
def test_what_is_none_of_these_is_kept_and_belongs_to_the_line_before(text: str):
    lines = list(read("a", ["2026-11-20T10:00:01.000Z INFO begins", text]))
    assert (lines[1].text, lines[1].time) == (text, at(1))


def test_a_request_is_named_as_a_word():
    line = parsed("a", "2026-11-20T10:00:01.000Z ERROR request failed request_id=abc-1 message=x")
    assert line.names("abc-1")
    assert not line.names("abc")
    assert not line.names("bc-1")


def test_levels_and_forms_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert [logs.level_in({"NEARCAST_LOG_LEVEL": each}) for each in ("DEBUG", "loud", "")] == ["debug", "info", "info"]
    monkeypatch.setenv("NEARCAST_LOG_FORMAT", "json")
    monkeypatch.setenv("NEARCAST_LOG_LEVEL", "warning")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    file = tmp_path / "x.log"
    try:
        logs.set_up(file=file)
        logging.getLogger("x").info("too little")
        logging.getLogger("x").warning(logs.line("told", pid=7))
        for handler in root.handlers:
            handler.close()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (entry,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (entry["level"], entry["message"]) == ("warning", "told pid=7")
    assert parsed("x", file.read_text().strip()).time is not None


def test_a_long_log_keeps_its_end_and_whoever_writes_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "LIMIT_BYTES", 100)
    monkeypatch.setattr(logs, "KEPT_BYTES", 10)
    path = tmp_path / "x.log"
    logs.bound(path)
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        logs.bound(path)
        assert path.stat().st_size == 100
        writer.write(b"0123456789")
        logs.bound(path)
        writer.write(b"new")
    assert (path.read_bytes(), (tmp_path / "x.log.1").read_bytes()) == (b"new", b"0123456789")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "identity").mkdir()
    (tmp_path / "logs").mkdir()
    now = datetime.now(UTC)
    old, young = (f"{now - timedelta(seconds=each):%Y-%m-%dT%H:%M:%S}.000Z" for each in (4000, 10))
    (tmp_path / "logs" / "agent.log").write_text(f"{old} INFO long ago\n{young} INFO just now\n")
    (tmp_path / "logs" / "access.log").write_text(json.dumps({**ENTRY, "time": young}) + "\n")
    (tmp_path / "logs" / "engine.log.1").write_text(f"{young} ERROR request failed request_id={REQUEST}\n")
    (tmp_path / "logs" / "engine.log").write_text(f"{young} ERROR another request_id={REQUEST}-x\n")
    return tmp_path


def command(node: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "nearcast", "logs", "--data-dir", str(node), *options]


def test_one_request_is_followed_through_the_logs_of_a_node(node: Path):
    done = subprocess.run(
        command(node, "--request", REQUEST, "-o", "json"), capture_output=True, text=True, timeout=60, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["source"].partition("/")[2] for each in found} == {"access", "engine"}
    assert len(found) == 2, "an id that merely begins so is another one"
    recent = subprocess.run(command(node, "--since", "5m"), capture_output=True, text=True, timeout=60, check=True)
    assert "just now" in recent.stdout
    assert "long ago" not in recent.stdout


def test_following_survives_rotation_and_a_file_that_comes_later(node: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "LIMIT_BYTES", 1)
    monkeypatch.setattr(logs, "KEPT_BYTES", 1)
    process = subprocess.Popen(command(node, "--follow", "--tail", "1"), stdout=subprocess.PIPE, text=True)
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True)
    reader.start()

    def until(text: str) -> None:
        while text not in lines.get(timeout=30):
            pass

    try:
        until("just now")
        log = node / "logs" / "agent.log"
        logs.bound(log)
        with log.open("a") as writer:
            writer.write("2026-11-20T10:00:05.000Z INFO after the rotation\n")
        until("after the rotation")
        (node / "logs" / "gateway.log").write_text("2026-11-20T10:00:06.000Z warning [x] it came later\n")
        until("it came later")
    finally:
        process.terminate()
        process.wait(20)
        reader.join(10)
        process.stdout.close()
