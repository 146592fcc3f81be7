"""Which process is ours: records that mean one process, and a log that does not grow for ever."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from nearcast.agent import supervise
from nearcast.agent.supervise import (
    ENGINE,
    GATEWAY,
    SILENT_LOOKS,
    STUCK_LOOKS,
    EngineLaunch,
    ProcessBook,
    ProcessRecord,
    Silence,
    is_alive,
    until_gone,
)


@pytest.fixture
def book(tmp_path: Path) -> ProcessBook:
    return ProcessBook(tmp_path / "run.json")


def test_a_living_process_is_found_again(book: ProcessBook) -> None:
    record = book.note(ENGINE, os.getpid(), "how")
    assert record is not None
    assert is_alive(record)
    assert book.find(ENGINE) == record
    assert book.find(GATEWAY) is None
    book.note(GATEWAY, os.getpid())
    book.forget(ENGINE)
    assert book.find(ENGINE) is None
    assert book.find(GATEWAY) is not None


def test_a_pid_that_came_round_again_is_not_the_process(book: ProcessBook, tmp_path: Path) -> None:
    record = book.note(ENGINE, os.getpid())
    assert record is not None
    other = msgspec.structs.replace(record, started=f"{record.started}0")
    (tmp_path / "run.json").write_bytes(msgspec.json.encode({ENGINE: other}))
    assert book.find(ENGINE) is None
    rebooted = msgspec.structs.replace(record, boot="another boot")
    assert not is_alive(rebooted)


def test_a_process_that_is_gone_leaves_no_record(book: ProcessBook) -> None:
    book.note(ENGINE, os.getpid())
    assert book.note(ENGINE, 2**22 + 12345) is None
    assert book.find(ENGINE) is None


def test_a_damaged_book_is_an_empty_one(book: ProcessBook, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    assert book.find(ENGINE) is None
    assert book.note(ENGINE, os.getpid()) is not None


def test_others_read_pid_and_start_time(book: ProcessBook, tmp_path: Path) -> None:
    book.note(ENGINE, os.getpid())
    found = msgspec.json.decode((tmp_path / "run.json").read_bytes(), type=dict[str, ProcessRecord])
    assert found[ENGINE].pid == os.getpid()
    assert found[ENGINE].started


def test_another_way_of_starting_is_another_engine(tmp_path: Path) -> None:
    launch = EngineLaunch(tmp_path, tmp_path / "engine.log")
    assert launch.command()[:3] == [sys.executable, "-m", "nearcast.engine"]
    assert launch.how() == EngineLaunch(tmp_path, tmp_path / "engine.log").how()
    assert launch.how() != EngineLaunch(tmp_path, tmp_path / "engine.log", threads=2).how()


def test_a_process_that_lives_and_answers_nobody_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False, True, False, False])
    killed: list[int] = []

    async def story() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        async def gone(pid: int) -> None:
            await ended.wait()

        def kill() -> None:
            killed.append(1)
            loop.call_soon_threadsafe(ended.set)

        monkeypatch.setattr(supervise, "gone", gone)
        monkeypatch.setattr(supervise, "LOOK_S", 0.0)
        monkeypatch.setattr(supervise, "work_done", lambda pid: 7)
        await until_gone("engine", 1, lambda: next(answers, True), kill)

    asyncio.run(story())
    assert killed == [1]
    assert next(answers, None) is None


def test_silence_is_death_soon_where_nothing_is_done_and_late_where_something_is() -> None:
    stuck = busy = Silence(work=1)
    for _ in range(STUCK_LOOKS):
        assert not stuck.is_death
        stuck = stuck.after(answered=False, work=1)
    assert stuck.is_death
    for look in range(SILENT_LOOKS):
        assert not busy.is_death
        busy = busy.after(answered=False, work=look + 2)
    assert busy.is_death
    assert not stuck.after(answered=True, work=1).is_death


def test_where_work_is_not_known_silence_takes_long() -> None:
    silence = Silence()
    for _ in range(SILENT_LOOKS - 1):
        silence = silence.after(answered=False, work=None)
    assert not silence.is_death
    assert silence.after(answered=False, work=None).is_death
