"""A file that finds no room is not half written, and says which one it is; what is there already needs none."""

import errno
import os
from pathlib import Path

import pytest

from nearcast.durable import DiskFull, write_if_changed, write_whole
from nearcast.errors import Unavailable, meaning_of


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_without_room_the_old_file_stays_and_nothing_is_left_beside_it(tmp_path: Path, full: None) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    with pytest.raises(DiskFull, match=r"state\.json: No space left on device") as raised:
        write_whole(file, b"new")
    assert isinstance(raised.value, Unavailable), "the control plane answers it as such"
    assert isinstance(raised.value, OSError)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.hint
    assert meaning_of(raised.value).http_status == 503
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_what_is_there_already_needs_no_room(tmp_path: Path, full: None) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"same")
    write_if_changed(file, b"same")
    with pytest.raises(DiskFull):
        write_if_changed(file, b"other")


def test_other_trouble_is_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file") as raised:
        write_whole(tmp_path / "file" / "below", b"")
    assert not isinstance(raised.value, DiskFull)
