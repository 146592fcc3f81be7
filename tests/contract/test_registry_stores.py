"""What every object store, and the blobs in it, promise: one suite on memory, a folder, and S3, GCS, Azure."""

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unauthenticated, Unavailable
from nearcast.registry.blobs import BlobStore, blob_path, digest_of_file
from nearcast.registry.objects import FolderObjects, Objects, client_options, open_objects
from nearcast.registry.release_list import propose
from nearcast.resources.release import encode_release, release_digest
from nearcast.resources.revision import digest_of
from scenario.registry_world import World
from servers.azure_blobs import azure_server
from servers.gcs import account_file, gcs_server
from servers.s3 import s3_server

BIG = bytes(range(251)) * 30_000


NUMBERS = itertools.count(1)


class Cloud(Protocol):
    """A server that speaks as one of the clouds does."""

    scheme: str
    endpoint: str
    endpoint_variable: str
    environment: dict[str, str]

    def bucket(self, name: str) -> str:
        """A new bucket; its URL."""

    def parts(self, name: str, path: str) -> int:
        """In how many parts an object came."""

    def has_uploads(self, name: str) -> bool:
        """Whether there are parts of uploads that never ended."""


@pytest.fixture(scope="module")
def s3_cloud() -> Iterator[Cloud]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def gcs_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as running:
        yield running


@pytest.fixture(scope="module")
def azure_cloud() -> Iterator[Cloud]:
    with azure_server() as running:
        yield running


CLOUDS = ("s3", "gcs", "azure")


def opened(request: pytest.FixtureRequest, name: str) -> Cloud:
    """The server of a cloud; the environment has its endpoint and credentials."""
    cloud: Cloud = request.getfixturevalue(f"{name}_cloud")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for variable, value in cloud.environment.items():
        patch.setenv(variable, value)
    return cloud


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return opened(request, request.param)


@pytest.fixture(params=["memory", "folder", "file-url", *CLOUDS])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param in CLOUDS:
        return open_objects(f"{opened(request, request.param).bucket(f'bucket-{next(NUMBERS)}')}/some/prefix")
    folder = tmp_path / "with space" / "store"
    return open_objects({"memory": "memory:", "folder": str(folder), "file-url": folder.as_uri()}[request.param])


def test_what_is_written_is_read(objects: Objects) -> None:
    objects.replace("a/b+c_1.0.json", b"one")
    assert objects.read("a/b+c_1.0.json") == b"one"
    objects.replace("a/b+c_1.0.json", b"two!")
    assert objects.read("a/b+c_1.0.json") == b"two!"
    stored = objects.stat("a/b+c_1.0.json")
    assert stored is not None
    assert stored.size_bytes == 4
    assert stored.etag[0] == stored.etag[-1] == '"'


def test_what_is_not_there(objects: Objects) -> None:
    assert objects.stat("a") is None
    assert objects.read("a") is None
    with pytest.raises(NotFound):
        objects.stream("a")
    objects.delete("a")
    assert list(objects.paths("a")) == []


def test_the_etag_changes_with_the_content(objects: Objects) -> None:
    tags = set()
    for content in (b"aaaa", b"bbbb", b"cccc"):
        objects.replace("a", content)
        stored = objects.stat("a")
        assert stored is not None
        tags.add(stored.etag)
    assert len(tags) == 3


def test_create_never_replaces(objects: Objects) -> None:
    assert objects.create("a/1.json", b"one")
    assert not objects.create("a/1.json", b"two")
    assert objects.read("a/1.json") == b"one"


def test_of_many_creators_one_wins(objects: Objects) -> None:
    barrier = threading.Barrier(6)
    won: list[int] = []

    def create(number: int) -> None:
        barrier.wait(10)
        if objects.create("race", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(won) == 1
    assert objects.read("race") == str(won[0]).encode()


def test_a_swap_replaces_what_was_read_and_nothing_else(objects: Objects) -> None:
    assert objects.read_tagged("a") is None
    assert objects.swap("a", b"one", None)
    assert not objects.swap("a", b"other", None)
    first = objects.read_tagged("a")
    assert first is not None
    assert first.data == b"one"
    assert objects.swap("a", b"two", first)
    assert not objects.swap("a", b"three", first)  # as of a leader that slept
    assert objects.read("a") == b"two"
    assert objects.swap("a", b"two", first)  # as of one whose answer was lost
    objects.delete("a")
    assert not objects.swap("a", b"three", first)
    assert objects.read("a") is None


def test_of_many_swaps_one_wins(objects: Objects) -> None:
    objects.replace("race", b"start")
    before = objects.read_tagged("race")
    barrier = threading.Barrier(6)
    won: list[int] = []

    def swap(number: int) -> None:
        barrier.wait(10)
        if objects.swap("race", str(number).encode(), before):
            won.append(number)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert objects.read("race") == str(won[0]).encode()


def test_listings_longer_than_a_page(objects: Objects) -> None:
    for number in range(25):
        objects.replace(f"many/{number}", b"")
    objects.reach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearcast.registry.objects.PAGE", 10)
        assert len(set(objects.paths("many"))) == 25


def test_streams_begin_where_asked(objects: Objects) -> None:
    objects.replace("big", BIG)
    assert b"".join(objects.stream("big")) == BIG
    assert b"".join(objects.stream("big", len(BIG) - 5)) == BIG[-5:]
    assert b"".join(objects.stream("big", len(BIG))) == b""
    assert b"".join(objects.stream("big", len(BIG) + 5)) == b""


def test_a_file_is_adopted(objects: Objects) -> None:
    file = objects.spool() / "file"
    file.write_bytes(BIG)
    objects.adopt("x/y", file)
    assert objects.read("x/y") == BIG
    assert not file.exists()
    file.write_bytes(b"new")
    objects.adopt("x/y", file)
    assert objects.read("x/y") == b"new"


def test_listing_and_deleting(objects: Objects) -> None:
    for path in ("a/1", "a/b/2", "ab/3"):
        objects.create(path, b"x")
    assert sorted(objects.paths("a")) == ["a/1", "a/b/2"]
    objects.delete("a/b/2")
    assert list(objects.paths("a")) == ["a/1"]


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "../a", "a/../b", "./a", ".hidden", "a\\b", "a%2e", "a\nb", "ä", "a/"]
)
def test_paths_that_are_not_plain(objects: Objects, path: str) -> None:
    for call in (objects.read, objects.stat, objects.stream, objects.delete):
        with pytest.raises(InvalidInput):
            call(path)
    with pytest.raises(InvalidInput):
        objects.replace(path, b"")
    with pytest.raises(InvalidInput):
        objects.create(path, b"")


# --- blobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def blobs(objects: Objects) -> BlobStore:
    return BlobStore(objects)


def leftovers(objects: Objects) -> list[Path]:
    return [path for path in objects.spool().iterdir() if path.name.startswith("blob.")]


def test_a_blob_comes_back(objects: Objects, blobs: BlobStore) -> None:
    digest = digest_of(BIG)
    assert blobs.size(digest) is None
    assert blobs.put(digest, [BIG[:100], BIG[100:]]) == len(BIG)
    assert blobs.size(digest) == len(BIG)
    assert objects.read(blob_path(digest)) == BIG
    blobs.require(digest, len(BIG))
    assert blobs.put(digest, [BIG]) == len(BIG)
    assert leftovers(objects) == []


def test_the_digest_of_a_file_tells_how_far_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(BIG)
    told: list[int] = []
    assert digest_of_file(file, told.append) == digest_of(BIG)
    assert sum(told) == len(BIG)


def test_other_bytes_are_not_kept(objects: Objects, blobs: BlobStore) -> None:
    digest = digest_of(b"good")
    with pytest.raises(IntegrityError, match="expected blob"):
        blobs.put(digest, [b"evil"])
    assert blobs.size(digest) is None
    assert leftovers(objects) == []


def test_a_transfer_that_breaks_off_keeps_nothing(objects: Objects, blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"go"
        raise Unavailable("connection reset")

    with pytest.raises(Unavailable):
        blobs.put(digest_of(b"good"), broken())
    with blobs.receive(digest_of(b"good")) as incoming:
        incoming.write(b"go")
    assert blobs.size(digest_of(b"good")) is None
    assert leftovers(objects) == []


def test_a_damaged_blob_is_repaired_by_another_put(objects: Objects, blobs: BlobStore) -> None:
    digest = digest_of(b"good")
    objects.replace(blob_path(digest), b"evil")
    with pytest.raises(IntegrityError, match="of 5 bytes"):
        blobs.require(digest, 5)
    blobs.put(digest, [b"good"])
    assert objects.read(blob_path(digest)) == b"good"
    with pytest.raises(NotFound):
        blobs.require(digest_of(b"absent"), 1)


@pytest.mark.parametrize("digest", ["", "sha256:", "md5:00", "sha256:" + "A" * 64, "sha256:../" + "a" * 61])
def test_what_is_no_digest(blobs: BlobStore, digest: str) -> None:
    for call in (blobs.size, blobs.receive):
        with pytest.raises(InvalidInput):
            call(digest)


# --- the folder ------------------------------------------------------------------------------------------------------


def test_objects_outlive_the_process(tmp_path: Path) -> None:
    FolderObjects(tmp_path / "store").replace("a/b", b"x")
    assert FolderObjects(tmp_path / "store").read("a/b") == b"x"


def test_what_a_dead_process_left_is_swept_and_what_a_running_one_writes_is_not(tmp_path: Path) -> None:
    spool = FolderObjects(tmp_path).spool()
    for name, age_s in (("old", 2 * 86_400), ("new", 60)):
        (spool / name).write_bytes(b"half")
        moment = (spool / name).stat().st_mtime - age_s
        os.utime(spool / name, (moment, moment))
    FolderObjects(tmp_path)
    assert [path.name for path in spool.iterdir()] == ["new"]


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    (tmp_path / "taken").mkdir()
    with pytest.raises(Unavailable, match="cannot write 'taken'"):
        objects.replace("taken", b"x")


@pytest.mark.parametrize("url", ["gopher://x", "s3://", "nonsense://a/b"])
def test_what_is_no_store(url: str) -> None:
    with pytest.raises(InvalidInput, match="expected the URL of an object store"):
        open_objects(url)


def test_a_folder_that_takes_nothing_is_unavailable_and_no_defect(tmp_path: Path) -> None:
    """As a full disk is; what stands in the way here is a file where a folder is needed."""
    objects = FolderObjects(tmp_path / "store")
    objects.replace("taken", b"a file")
    for write in (objects.replace, objects.create):
        with pytest.raises(Unavailable, match="cannot write 'taken/b'"):
            write("taken/b", b"data")
    objects.spool().rmdir()
    (tmp_path / "store" / ".incoming").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot take blob"):
        BlobStore(objects).put(digest_of(BIG), [BIG])
    with pytest.raises(Unavailable, match="cannot write 'new'"):
        objects.create("new", b"data")


# --- a repository in them --------------------------------------------------------------------------------------------


def test_a_repository_in_it_is_published_read_and_fetched(objects: Objects, tmp_path: Path) -> None:
    """Releases and plans, signed, through this store and back through a node's eyes; of two publishers one wins."""
    world = World(tmp_path, objects)
    first, second = world.push("1"), world.push("2")
    world.plans.publish(world.plan(1, first))
    node = world.node()
    assert node.poll_plan() == world.plan(1, first)
    assert node.release("m", "1", release_digest(first)) == first
    world.plans.publish(world.plan(2, second))
    assert node.poll_plan() == world.plan(2, second)
    world.restart()
    assert world.plans.latest("fra") == world.plan(2, second)
    targets, number = world.releases.targets()
    proposal = propose(world.releases_root, targets, world.manifest("3"), world.releaser, now=world.now)
    world.releases.accept(proposal, encode_release(world.manifest("3")), number)
    with pytest.raises(Conflict):
        world.releases.accept(proposal[:-1] + b" ", encode_release(world.manifest("3")), number)


# --- clouds ----------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_told(cloud: Cloud) -> None:
    objects = open_objects(f"{cloud.scheme}://no-such-bucket/prefix")
    for call in (objects.reach, lambda: objects.read("a"), lambda: objects.replace("a", b"")):
        with pytest.raises(InvalidInput, match="there is no such bucket") as caught:
            call()
        assert "Make the bucket" in caught.value.hint


def test_a_store_that_nobody_answers_for_is_unavailable(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cloud.endpoint_variable, "http://127.0.0.1:1")
    monkeypatch.setattr("nearcast.registry.objects.RETRIES", {"max_retries": 0})
    with pytest.raises(Unavailable, match=f"{cloud.scheme}://bucket failed"):
        open_objects(f"{cloud.scheme}://bucket").read("a")


def test_no_credentials_are_told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(request, "s3")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("nearcast.registry.objects.RETRIES", {"max_retries": 0})
    with pytest.raises((Unauthenticated, Unavailable)) as caught:
        open_objects("s3://bucket").reach()
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["gcs", "azure"])
def test_credentials_of_somebody_else_are_told(
    request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = opened(request, name).bucket(f"bucket-{next(NUMBERS)}")
    strange = rsa.generate_private_key(65537, 2048)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account_file(tmp_path / "account.json", strange)))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm90IHRoZSBrZXk=")
    objects = open_objects(url)
    for call in (objects.reach, lambda: objects.replace("a", b"")):
        with pytest.raises(Unauthenticated, match="does not know our credentials"):
            call()


def test_large_files_travel_in_parts_and_leave_none_behind(cloud: Cloud, tmp_path: Path) -> None:
    bucket = f"parts-{next(NUMBERS)}"
    objects = open_objects(cloud.bucket(bucket))
    file = tmp_path / "weights"
    content = os.urandom(1 << 20) * 20
    file.write_bytes(content)
    objects.adopt("weights", file)
    assert b"".join(objects.stream("weights")) == content
    assert cloud.parts(bucket, "weights") == 3
    assert not cloud.has_uploads(bucket)


@pytest.mark.parametrize(
    ("scheme", "environment", "allowed"),
    [
        ("s3", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, True),
        ("s3", {"AWS_ENDPOINT_URL": "http://store.example"}, False),
        ("s3", {"AWS_ENDPOINT_URL": "http://store.example", "AWS_ALLOW_HTTP": "true"}, True),
        ("gs", {"GOOGLE_BASE_URL": "http://localhost:9"}, True),
        ("gs", {"GOOGLE_BASE_URL": "http://store.example", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, False),
        ("az", {"AZURE_STORAGE_ENDPOINT": "http://[::1]:9/account"}, True),
        ("az", {"AZURE_ENDPOINT": "http://127.0.0.1:9/account"}, True),
        ("az", {"AZURE_STORAGE_ENDPOINT": "http://store.example", "AZURE_ALLOW_HTTP": "1"}, True),
        ("az", {}, False),
    ],
)
def test_nothing_travels_in_the_clear_unless_it_stays_here_or_was_asked_for(
    scheme: str, environment: dict[str, str], allowed: bool
) -> None:
    assert bool(client_options(scheme, environment).get("allow_http")) is allowed
