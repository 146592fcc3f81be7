"""A model that does not fit is refused before it is loaded; control groups count."""

from pathlib import Path

import pytest

from nearcast.engine.memory import OVERHEAD_BYTES, RESERVE_BYTES, available_bytes, check_fits, needed_bytes
from nearcast.engine.refusal import Refusal
from nearcast.resources import wire
from nearcast.resources.release import File, ReleaseManifest, Signature

MIB = 1024 * 1024


def manifest(size_bytes: int) -> ReleaseManifest:
    return ReleaseManifest(
        model="m",
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="m.onnx",
        files=(File(path="m.onnx", digest="d", size_bytes=size_bytes),),
        signature=Signature(inputs=(), outputs=()),
        created_at="2026-01-01T00:00:00Z",
    )


def group(folder: Path, limit: str, current: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 1\nactive_file {cache}\ninactive_file 0\n")


def system(folder: Path, available_mib: int, own: str) -> tuple[Path, Path]:
    proc, groups = folder / "proc", folder / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024} kB\n")
    (proc / "self" / "cgroup").write_text(f"0::{own}\n")
    groups.mkdir()
    return proc, groups


def test_the_machine_counts_where_no_group_has_a_limit(tmp_path: Path) -> None:
    proc, groups = system(tmp_path, 700, "/site/engine")
    group(groups / "site" / "engine", "max", 5 * MIB)
    assert available_bytes(proc, groups) == 700 * MIB


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    proc, groups = system(tmp_path, 700, "/site/engine")
    group(groups / "site" / "engine", str(600 * MIB), 100 * MIB)
    group(groups / "site", str(512 * MIB), 400 * MIB, cache=88 * MIB)
    assert available_bytes(proc, groups) == 200 * MIB


def test_groups_of_version_1_count_too(tmp_path: Path) -> None:
    proc, groups = system(tmp_path, 700, "/")
    (proc / "self" / "cgroup").write_text("4:memory:/site\n3:cpuset:/\n0::/\n")
    folder = groups / "memory" / "site"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{300 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{250 * MIB}\n")
    (folder / "memory.stat").write_text(f"cache 5\ninactive_file {10 * MIB}\n")
    assert available_bytes(proc, groups) == 60 * MIB


def test_a_system_that_tells_nothing_refuses_nothing(tmp_path: Path) -> None:
    check_fits(manifest(1 << 40), available_bytes(tmp_path / "none", tmp_path / "none"))


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(Refusal, match=r"m@1 needs about 1024 MiB of memory; 480 MiB are free") as refused:
        check_fits(manifest(500 * MIB), 512 * MIB)
    assert (refused.value.status, refused.value.reason) == (507, wire.CODE_TOO_LARGE_FOR_NODE)


def test_what_just_fits_is_taken() -> None:
    one = manifest(10 * MIB)
    assert needed_bytes(one) == 20 * MIB + OVERHEAD_BYTES
    check_fits(one, needed_bytes(one) + RESERVE_BYTES)
    with pytest.raises(Refusal):
        check_fits(one, needed_bytes(one) + RESERVE_BYTES - 1)
