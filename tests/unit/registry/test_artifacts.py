"""Artifacts on a node: complete or absent, whatever the network, the disk and the power do."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nearcast.errors import Forbidden, IntegrityError, NotFound, Unavailable
from nearcast.registry import artifacts
from nearcast.registry.artifacts import ArtifactStore, NoRoom
from nearcast.registry.blobs import BlobStore, blob_path
from nearcast.registry.fetch import FolderFetch, Response
from nearcast.registry.objects import open_objects
from nearcast.resources.release import File, ReleaseManifest, Signature, release_digest
from nearcast.resources.revision import digest_of

WEIGHTS = bytes(range(256)) * 1200
TOKENIZER = b'{"version": "1.0"}'


class Origin:
    """A mirror of blobs in memory whose answers a test can bend."""

    def __init__(self, *contents: bytes) -> None:
        self.blobs = {blob_path(digest_of(content)): content for content in contents}
        self.asked: list[tuple[str, int]] = []
        self.breaks_after: list[int] = []
        self.ignores_range = False
        self.status: int | None = None
        self.tail: Callable[[bytes], bytes] = lambda data: data

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        self.asked.append((path, start))
        if self.status is not None:
            return Response(status=self.status)
        if path not in self.blobs:
            return Response(status=404)
        start = 0 if self.ignores_range else start
        data = self.tail(self.blobs[path][start:])
        return Response(status=206 if start else 200, start=start, body=self._body(data))

    def _body(self, data: bytes) -> Iterator[bytes]:
        limit = self.breaks_after.pop(0) if self.breaks_after else None
        yield from (data[at : at + 1000] for at in range(0, len(data) if limit is None else limit, 1000))
        if limit is not None:
            raise Unavailable("connection reset")


def release(version: str = "1", files: dict[str, bytes] | None = None) -> ReleaseManifest:
    files = files if files is not None else {"model.onnx": WEIGHTS, "text/tokenizer.json": TOKENIZER}
    return ReleaseManifest(
        model="m",
        version=version,
        runtime="onnx",
        task="tensor",
        entrypoint=next(iter(files)),
        files=tuple(File(path=p, digest=digest_of(d), size_bytes=len(d)) for p, d in files.items()),
        signature=Signature(inputs=(), outputs=()),
        created_at="2026-03-01T00:00:00Z",
    )


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "models", pause=lambda _: None)


def installed(folder: Path) -> list[str]:
    """Digests of the releases that have their name: what an agent would find."""
    return [f"sha256:{path.name}" for path in folder.iterdir() if path.name[0] != "."]


def test_files_lie_by_their_paths_and_progress_adds_up(store: ArtifactStore, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    manifest = release()
    place = store.ensure(manifest, Origin(WEIGHTS, TOKENIZER), lambda done, total: told.append((done, total)))
    assert place == store.path_of(release_digest(manifest))
    assert (place / "model.onnx").read_bytes() == WEIGHTS
    assert (place / "text/tokenizer.json").read_bytes() == TOKENIZER
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert installed(tmp_path / "models") == [release_digest(manifest)]
    assert store.verify(manifest) == place


def test_what_is_here_is_not_fetched_again(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    store.ensure(release("1"), origin)
    origin.asked.clear()
    store.ensure(release("1"), origin)
    store.ensure(release("2"), origin)
    assert origin.asked == []
    assert store.used_bytes() == len(WEIGHTS) + len(TOKENIZER)


def test_the_same_content_at_two_paths_and_empty_files(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, b"")
    manifest = release(files={"a": WEIGHTS, "deep/down/b": WEIGHTS, "empty": b""})
    place = store.ensure(manifest, origin)
    assert (place / "deep/down/b").read_bytes() == WEIGHTS
    assert (place / "empty").read_bytes() == b""
    assert len(origin.asked) == 1


def test_a_broken_download_goes_on_where_it_stopped(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.breaks_after = [100_000, 70_000]
    store.ensure(release(), origin)
    path = blob_path(digest_of(WEIGHTS))
    assert [start for asked, start in origin.asked if asked == path] == [0, 100_000, 170_000]


def test_a_process_that_died_goes_on_where_it_stopped(store: ArtifactStore, tmp_path: Path) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.breaks_after = [150_000, 0, 0, 0]
    with pytest.raises(Unavailable, match="connection reset"):
        store.ensure(release(), origin)
    assert installed(tmp_path / "models") == []
    origin.asked.clear()
    ArtifactStore(tmp_path / "models").ensure(release(), origin)
    assert origin.asked[0] == (blob_path(digest_of(WEIGHTS)), 150_000)


def test_a_server_without_ranges_starts_over(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.breaks_after = [100_000]
    origin.ignores_range = True
    store.ensure(release(), origin)
    store.verify(release())
    assert [start for _, start in origin.asked] == [0, 100_000, 0]


def test_a_half_that_a_power_cut_has_damaged_is_fetched_anew(store: ArtifactStore, tmp_path: Path) -> None:
    digits = digest_of(WEIGHTS).removeprefix("sha256:")
    (tmp_path / f"models/.blobs/{digits}.part").write_bytes(b"\x00" * 5000)
    place = store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    assert (place / "model.onnx").read_bytes() == WEIGHTS


@pytest.mark.parametrize("size", [len(WEIGHTS), len(WEIGHTS) + 1])
def test_a_damaged_half_as_long_as_the_whole(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    digits = digest_of(WEIGHTS).removeprefix("sha256:")
    (tmp_path / f"models/.blobs/{digits}.part").write_bytes(b"\x00" * size)
    store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    store.verify(release())


def test_a_flipped_bit_is_refused_and_not_kept(store: ArtifactStore, tmp_path: Path) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.tail = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(IntegrityError, match="tampered"):
        store.ensure(release(), origin)
    assert installed(tmp_path / "models") == []
    assert list((tmp_path / "models/.blobs").iterdir()) == []


def test_endless_data_is_cut_off(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.tail = lambda data: data + b"x"
    with pytest.raises(IntegrityError, match="endless data"):
        store.ensure(release(), origin)
    assert store.used_bytes() == 0


def test_a_server_that_trickles_is_given_up(store: ArtifactStore) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.breaks_after = [1000] * 10_000
    with pytest.raises(Unavailable):
        store.ensure(release(), origin)
    assert len(origin.asked) == artifacts.FRUITLESS_ATTEMPTS


@pytest.mark.parametrize(("status", "kind"), [(404, Unavailable), (416, Unavailable), (403, Forbidden)])
def test_refusals(store: ArtifactStore, status: int, kind: type[Exception]) -> None:
    origin = Origin(WEIGHTS, TOKENIZER)
    origin.status = status
    with pytest.raises(kind):
        store.ensure(release(), origin)


# --- what happens on disk --------------------------------------------------------------------------------------------


def damage(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_changed_missing_and_extra_files_are_noticed(store: ArtifactStore) -> None:
    manifest = release()
    with pytest.raises(NotFound):
        store.verify(manifest)
    place = store.ensure(manifest, Origin(WEIGHTS, TOKENIZER))
    (place / "extra").write_bytes(b"")
    with pytest.raises(IntegrityError, match="extra"):
        store.verify(manifest)
    (place / "extra").unlink()
    (place / "text/tokenizer.json").unlink()
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        store.verify(manifest)
    (place / "text/tokenizer.json").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="changed on disk"):
        store.verify(manifest)


@pytest.mark.parametrize("content", [b"short", bytes(len(WEIGHTS))])
def test_ensure_heals_what_was_changed(store: ArtifactStore, content: bytes) -> None:
    manifest = release()
    place = store.ensure(manifest, Origin(WEIGHTS, TOKENIZER))
    damage(place / "model.onnx", content)
    with pytest.raises(IntegrityError, match="changed on disk"):
        store.verify(manifest)
    origin = Origin(WEIGHTS, TOKENIZER)
    store.ensure(manifest, origin)
    assert store.verify(manifest) == place
    assert [path for path, _ in origin.asked] == [blob_path(digest_of(WEIGHTS))]


def test_collecting_keeps_what_is_wanted_and_what_it_shares(store: ArtifactStore, tmp_path: Path) -> None:
    one, two = release("1"), release("2", {"model.onnx": b"other", "tokenizer.json": TOKENIZER})
    origin = Origin(WEIGHTS, TOKENIZER, b"other")
    store.ensure(one, origin)
    store.ensure(two, origin)
    (tmp_path / "models/.staging-left").mkdir()
    (tmp_path / "models/.blobs/0.part").write_bytes(b"123")
    assert store.collect([release_digest(two)]) == len(WEIGHTS) + 3
    assert installed(tmp_path / "models") == [release_digest(two)]
    assert sorted(path.name for path in (tmp_path / "models").iterdir() if path.name[0] == ".") == [".blobs"]
    store.verify(two)
    store.collect([])
    assert store.used_bytes() == 0


def test_collecting_while_fetching_leaves_the_download_alone(store: ArtifactStore) -> None:
    manifest = release()

    def collect(done: int, total: int) -> None:
        store.collect([])

    store.ensure(manifest, Origin(WEIGHTS, TOKENIZER), collect)
    store.verify(manifest)


def test_the_budget_is_kept(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, byte_budget=len(WEIGHTS) + len(TOKENIZER))
    store.ensure(release("1"), Origin(WEIGHTS, TOKENIZER))
    origin = Origin(b"more")
    with pytest.raises(NoRoom, match="no room for m@2") as raised:
        store.ensure(release("2", {"model.onnx": b"more"}), origin)
    assert raised.value.retry_after_s > 1
    assert origin.asked == []
    store.collect([])
    store.ensure(release("2", {"model.onnx": b"more"}), origin)


def test_a_disk_that_is_too_small_is_said_before_the_download(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(Unavailable, match="the disk has 10 left"):
        store.ensure(release(), Origin(WEIGHTS, TOKENIZER))


def test_a_disk_that_fills_up_meanwhile(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(NoRoom, match="the disk is full: m@1"):
        store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    monkeypatch.undo()
    origin = Origin(TOKENIZER)  # the weights have arrived before
    store.ensure(release(), origin)


def test_file_systems_without_hard_links(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    store.verify(release())


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("call", ["rename", "replace", "hardlink_to"])
def test_death_before_each_name_is_given(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def die(self: Path, target: Path) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, die)
        with pytest.raises(PowerCut):
            store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    again = ArtifactStore(tmp_path / "models")
    assert installed(tmp_path / "models") == []
    again.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    again.verify(release())


def test_death_while_removing_shows_no_half_release(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise PowerCut

    store.ensure(release(), Origin(WEIGHTS, TOKENIZER))
    with monkeypatch.context() as patched:
        patched.setattr(artifacts.shutil, "rmtree", die)
        with pytest.raises(PowerCut):
            store.collect([])
    again = ArtifactStore(tmp_path / "models")
    assert installed(tmp_path / "models") == []
    again.collect([])
    assert again.used_bytes() == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "a\\b"])
def test_paths_that_lead_elsewhere_are_refused(store: ArtifactStore, path: str) -> None:
    with pytest.raises(IntegrityError, match="relative paths"):
        store.ensure(release(files={path: TOKENIZER}), Origin(TOKENIZER))


def test_out_of_a_folder(store: ArtifactStore, tmp_path: Path) -> None:
    blobs = BlobStore(open_objects(str(tmp_path / "repository")))
    for content in (WEIGHTS, TOKENIZER):
        blobs.put(digest_of(content), [content])
    store.ensure(release(), FolderFetch(tmp_path / "repository"))
    store.verify(release())
