"""Which process a pid means, and which Envoy is ours."""

import os
import subprocess
import sys

from nearcast.gateway.envoy import EnvoyProcess, Launch, binary
from nearcast.gateway.process import started_at


def test_a_living_process_has_one_start_and_a_dead_one_none():
    mine = started_at(os.getpid())
    assert mine
    assert started_at(os.getpid()) == mine
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        theirs = started_at(child.pid)
        assert theirs
        assert theirs != mine
    finally:
        child.communicate(b"\n")
    assert started_at(child.pid) is None


def test_a_zombie_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # its end: the process is ending, and nobody has asked for its status yet
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(child.pid) is None
    child.stdout.close()
    child.wait()


def launch(tmp_path, **fields):
    given = {"concurrency": 1, **fields}
    return Launch(tmp_path / "bootstrap.json", tmp_path / "log", tmp_path / "process.json", tmp_path / "admin", **given)


def test_how_an_envoy_was_started_tells_apart_what_it_cannot_change(tmp_path):
    how = launch(tmp_path).how(b"{}")
    assert how == launch(tmp_path).how(b"{}")
    assert len({how, launch(tmp_path).how(b"{ }"), launch(tmp_path, concurrency=2).how(b"{}")}) == 3


def test_the_command_refuses_unknown_fields_and_shares_nothing_with_other_envoys(tmp_path):
    command = launch(tmp_path).command()
    assert command[0] == str(binary())
    assert {"--reject-unknown-dynamic-fields", "--disable-hot-restart"} <= set(command)


def test_without_a_readable_record_there_is_no_process(tmp_path):
    process = EnvoyProcess(launch(tmp_path))
    assert process.find() is False
    assert process.pid is None
    for text in (
        "",
        "{}",
        '{"pid": 1, "started": "long ago", "how": ""}',
        f'{{"pid": {os.getpid()}, "started": "", "how": ""}}',
    ):
        (tmp_path / "process.json").write_text(text)
        assert process.find() is False
    process.stop()  # nobody to signal
    process.kill()


def test_log_lines_are_given_without_time_and_place(tmp_path):
    process = EnvoyProcess(launch(tmp_path))
    assert process.log_since(0) == []
    text = "2026-11-20T16:46:08.755Z warning [config] update rejected: bad\nplain\n"
    (tmp_path / "log").write_text(f"before\n{text}")
    assert process.log_since(len("before\n")) == ["update rejected: bad", "plain"]
