"""Directories of a node: short, private, and the same ones after a restart."""

import os
import stat
from pathlib import Path

import pytest

from nearcast.agent.layout import LONGEST_RUN_DIR, Layout, layout_of, run_dir_of
from nearcast.errors import InvalidInput


def test_a_long_data_directory_has_a_short_run_directory(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120) / ("y" * 120)
    run_dir = run_dir_of(long, {})
    assert len(os.fsencode(run_dir)) <= LONGEST_RUN_DIR
    assert run_dir == run_dir_of(long, {})
    assert run_dir != run_dir_of(tmp_path, {})


def test_the_runtime_directory_is_used_where_it_is_short_and_there(tmp_path: Path) -> None:
    runtime = Path("/tmp") / f"nearcast-test-{os.getpid()}"
    runtime.mkdir()
    try:
        assert run_dir_of(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)}).parent == runtime / "nearcast"
    finally:
        runtime.rmdir()
    gone = run_dir_of(tmp_path, {"XDG_RUNTIME_DIR": str(runtime)})
    too_long = tmp_path / ("z" * 100)
    too_long.mkdir()
    assert (
        gone
        == run_dir_of(tmp_path, {"XDG_RUNTIME_DIR": str(too_long)})
        == run_dir_of(tmp_path, {"XDG_RUNTIME_DIR": "relative"})
    )


def test_two_names_of_one_directory_are_one_node(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    assert layout_of(link) == layout_of(real)


def test_make_closes_directories_to_others(tmp_path: Path) -> None:
    layout = Layout(data_dir=tmp_path / "data", run_dir=tmp_path / "run" / "abc")
    (tmp_path / "run").mkdir(mode=0o755)
    layout.make()
    layout.make()
    for path in (layout.data_dir, layout.identity, layout.trust, layout.run_dir, layout.run_dir.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="must be a directory of user"):
        Layout(data_dir=tmp_path / "data", run_dir=tmp_path / "run" / "abc").make()
