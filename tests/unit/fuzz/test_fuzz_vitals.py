"""The measurement that all fuzz suites rest on: it must see a planted leak, and nothing where there is none."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fuzz.vitals import Bounds, Vitals, Watch, grown, traces, vitals_here

LEAKY = """
    import sys, socket, threading
    held = []
    what = sys.argv[1]
    for line in sys.stdin:
        for _ in range(int(line)):
            if what == "memory":
                held.append(bytearray(b"x" * 1024))
            elif what == "descriptors":
                held.append(socket.socket())
            elif what == "threads":
                held.append(threading.Thread(target=threading.Event().wait, daemon=True)); held[-1].start()
            else:
                bytearray(b"x" * 1024)
        print("done", flush=True)
"""
BOUNDS = Bounds(memory_bytes=4 << 20, descriptors=12, threads=8)


def worked(what: str, requests: int) -> Watch:
    """A process that leaks ``what`` once per request, watched over that many requests after a warm-up."""
    command = [sys.executable, "-c", textwrap.dedent(LEAKY), what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(20, file=process.stdin, flush=True)
            process.stdout.readline()
            watch = Watch(lambda: {"leaky": process.pid}, BOUNDS)
            print(requests, file=process.stdin, flush=True)
            process.stdout.readline()
            watch.check(settle_s=0)
        finally:
            process.stdin.close()
            process.wait(20)
    return watch


@pytest.mark.parametrize(("what", "requests"), [("memory", 10_000), ("descriptors", 40), ("threads", 40)])
def test_a_planted_leak_is_seen(what: str, requests: int) -> None:
    with pytest.raises(AssertionError, match=f"held more than before.*{what}"):
        worked(what, requests)


def test_work_that_leaks_nothing_is_not_accused() -> None:
    worked("nothing", 10_000)


def test_a_planted_leak_of_tasks_is_seen() -> None:
    async def story() -> None:
        before = vitals_here()
        forgotten = [asyncio.create_task(asyncio.sleep(60)) for _ in range(20)]
        after = vitals_here()
        assert any(line.startswith("tasks: ") for line in grown(before, after, Bounds()))
        for task in forgotten:
            task.cancel()
        await asyncio.gather(*forgotten, return_exceptions=True)
        assert not [line for line in grown(before, vitals_here(), Bounds()) if line.startswith("tasks")]

    asyncio.run(story())


def test_a_process_that_was_replaced_has_crashed() -> None:
    pids = iter([{"engine": os.getpid()}, {"engine": os.getppid()}])
    watch = Watch(lambda: next(pids))
    with pytest.raises(AssertionError, match="a process ended"):
        watch.check()


def test_growth_within_the_bounds_is_none() -> None:
    one = Vitals(100, 10, 4)
    assert grown(one, Vitals(100 + (1 << 20), 12, 5), Bounds()) == []
    assert grown(one, Vitals(50, 1, 1), Bounds()) == []


def test_traces_are_found_from_a_mark_on(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("Traceback (most recent call last)\n")
    mark = {log: log.stat().st_size}
    assert traces([log], mark) == []
    log.write_text(log.read_text() + "fine\nTraceback (most recent call last)\n")
    assert traces([log, tmp_path / "absent.log"], mark) == ["engine.log: Traceback (most recent call last)"]


def test_descriptors_of_this_process_are_counted() -> None:
    async def story() -> None:
        before = vitals_here()
        with socket.socket(), socket.socket():
            assert vitals_here().descriptors == before.descriptors + 2

    asyncio.run(story())
