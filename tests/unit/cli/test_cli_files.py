"""Where commands write what the user named: files are replaced whole, what is no file is written into."""

import os
from pathlib import Path

import pytest

from nearcast.cli.files import check_target, write_named
from nearcast.errors import InvalidInput


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_bytes(b"old")
    before = target.stat().st_ino
    write_named(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_ino != before
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_target(pipe)
        write_named(pipe, b"told")
        assert os.read(reader, 100) == b"told"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_a_device_stays_one(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        terminal = Path(os.ttyname(theirs))
        (tmp_path / "out").symlink_to(terminal)
        write_named(tmp_path / "out", b"told")
        assert os.read(ours, 100) == b"told"
        assert terminal.is_char_device()
        assert (tmp_path / "out").is_symlink()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path, *, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "report.html", tmp_path / "latest.html"
    if there:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_named(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [each.name for each in target.parent.iterdir()] == ["report.html"]


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is a folder"):
        check_target(tmp_path)


def test_links_in_a_circle_are_no_target(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(InvalidInput, match="in a circle"):
        check_target(one)
