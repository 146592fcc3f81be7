"""A fleet with an honest control plane, two sites, and a mirror between them that does what attackers do.

Each attack ends in an IntegrityError that names it, and leaves what the node believed before untouched.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets

from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unauthenticated, Unavailable
from nearcast.registry.blobs import BlobStore
from nearcast.registry.client import TrustedRepository
from nearcast.registry.fetch import Response
from nearcast.registry.objects import Objects, StoreObjects, open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.releases import (
    ReleasesRepository,
    countersign,
    new_releases_root,
    new_targets,
    online_key_of,
    propose,
)
from nearcast.registry.repository import SignedFolder
from nearcast.registry.trust import Lifetimes, next_root, signed_bytes, version_of
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan, encode_plan
from nearcast.resources.release import File, ReleaseManifest, Signature, encode_release, release_digest
from nearcast.resources.revision import digest_of

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class PowerCut(Exception):
    """The process dies here."""


class Dying:
    """Objects whose writes fail from the n-th one on, as in a process that dies there."""

    def __init__(self, inner: Objects) -> None:
        self._inner = inner
        self.writes_left = 10**9

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        method = getattr(self._inner, name)
        if name not in {"replace", "create", "adopt", "delete"}:
            return method

        def write(*arguments):  # type: ignore[no-untyped-def]
            if self.writes_left <= 0:
                raise PowerCut(name)
            self.writes_left -= 1
            return method(*arguments)

        return write


class Mirror:
    """Serves a store as a CDN would; ``forged`` replaces answers, ``snapshot`` pins the whole store to a moment."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.asked: list[str] = []
        self.forged: dict[str, Callable[[], Iterator[bytes]]] = {}
        self.moved: tuple[str, str] | None = None
        self.status: int | None = None
        self.down = False
        self.speaks_etag = True

    def forge(self, path: str, data: bytes) -> None:
        self.forged[path] = lambda: iter([data])

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        self.asked.append(path)
        if self.down:
            raise Unavailable("no route to host")
        if self.status is not None:
            return Response(status=self.status)
        if path in self.forged:
            return Response(status=200, body=self.forged[path]())
        if self.moved is not None:
            path = path.replace(*self.moved)
        data = self.objects.read(path)
        if data is None:
            return Response(status=404)
        tag = f'"{digest_of(data)}"' if self.speaks_etag else None
        if etag is not None and etag == tag:
            return Response(status=304, etag=tag)
        return Response(status=206 if start else 200, body=iter([data[start:]]), etag=tag, start=start)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = BEGIN
        self.store = open_objects("memory:")
        self.dying = Dying(self.store)
        self.online = CryptoSigner.generate_ed25519()
        self.releaser = CryptoSigner.generate_ed25519()
        self.root_keys = CryptoSigner.generate_ed25519()
        self.blobs = BlobStore(self.store)
        self.plans_root = new_plans_root(root_signers=[self.root_keys], online_key=self.online.public_key, now=self.now)
        self.releases_root = new_releases_root(
            root_signers=[self.root_keys],
            releaser_keys=[self.releaser.public_key],
            online_key=online_key_of(self.plans_root),
            now=self.now,
        )
        self.targets = new_targets(self.releaser, now=self.now)
        self.restart()
        self.releases.initialise(self.releases_root, self.targets)
        self.mirror = Mirror(self.store)

    def clock(self) -> datetime:
        return self.now

    def restart(self) -> None:
        self.dying.writes_left = 10**9
        self.releases = ReleasesRepository(self.dying, self.blobs, self.online, self.clock)
        self.plans = PlansRepository(self.dying, self.plans_root, self.online, self.clock)

    def manifest(self, version: str, content: bytes = b"weights") -> ReleaseManifest:
        digest = digest_of(content)
        self.blobs.put(digest, [content])
        return ReleaseManifest(
            model="m",
            version=version,
            runtime="onnx",
            task="tensor",
            entrypoint="model.onnx",
            files=(File(path="model.onnx", digest=digest, size_bytes=len(content)),),
            signature=Signature(inputs=(), outputs=()),
            created_at="2026-03-01T00:00:00Z",
        )

    def push(self, version: str) -> ReleaseManifest:
        manifest = self.manifest(version)
        targets, number = self.releases.targets()
        proposal = propose(self.releases_root, targets, manifest, self.releaser, now=self.now)
        self.releases.accept(proposal, encode_release(manifest), number)
        return manifest

    def plan(self, version: int, *releases: ReleaseManifest, site: str = "fra") -> SitePlan:
        return SitePlan(
            fleet="acme",
            site=SiteFacts(name=site, tier="edge", country="DE"),
            version=version,
            revision=f"r{version}",
            models=tuple(
                PlannedModel(model=m.model, version=m.version, release=release_digest(m), deployment="d")
                for m in releases
            ),
        )

    def node(self, site: str = "fra", folder: str = "trust", fetch: object | None = None) -> TrustedRepository:
        return TrustedRepository(
            self.folder / folder,
            fleet="acme",
            site=site,
            fetch=fetch or self.mirror,  # type: ignore[arg-type]
            now=self.clock,
            plans_root=self.plans_root,
            plans_root_sha256=digest_of(self.plans_root),
            releases_root=self.releases_root,
            releases_root_sha256=digest_of(self.releases_root).removeprefix("sha256:"),
        )

    def copy_of_store(self) -> StoreObjects:
        copy = open_objects("memory:")
        for prefix in ("plans", "releases", "blobs"):
            for path in self.store.paths(prefix):
                copy.replace(path, self.store.read(path) or b"")
        return copy


class NoNetwork:
    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        raise AssertionError(f"asked the network for {path}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- what works ------------------------------------------------------------------------------------------------------


def test_a_release_and_a_plan_reach_a_node(world: World) -> None:
    manifest = world.push("1")
    plan = world.plan(1, manifest)
    world.plans.publish(plan)
    node = world.node()
    assert node.poll_plan() == plan
    assert node.release("m", "1", release_digest(manifest)) == manifest
    assert node.verified_plan() == plan
    assert node.verified_release("m", "1", release_digest(manifest)) == manifest
    assert world.releases.manifest("m", "1") == manifest
    assert [(e.model, e.version, e.size_bytes) for e in world.releases.list()] == [("m", "1", 7)]


@pytest.mark.parametrize("speaks_etag", [True, False])
def test_an_idle_poll_is_one_request(world: World, speaks_etag: bool) -> None:
    world.plans.publish(world.plan(1))
    world.mirror.speaks_etag = speaks_etag
    node = world.node()
    node.poll_plan()
    world.mirror.asked.clear()
    assert node.poll_plan() is None
    assert world.mirror.asked == ["plans/fra/metadata/timestamp.json"]


def test_a_known_release_is_answered_without_network_and_a_second_one_refreshes(world: World) -> None:
    one = world.push("1")
    node = world.node()
    node.release("m", "1", release_digest(one))
    world.mirror.asked.clear()
    node.release("m", "1", release_digest(one))
    assert world.mirror.asked == []
    two = world.push("2")
    assert node.release("m", "2", release_digest(two)) == two


def test_renewal_keeps_nodes_fresh_for_years_and_changes_no_plan(world: World) -> None:
    manifest = world.push("1")
    world.plans.publish(world.plan(1, manifest))
    node = world.node()
    node.poll_plan()
    for _ in range(250):
        world.now += timedelta(days=3)
        world.plans.renew(world.now)
        world.releases.renew(world.now)
        assert node.poll_plan() is None
        if world.now < BEGIN + timedelta(days=360):  # then a releaser has to sign again: any push does
            node.refresh_releases()
            assert node.release("m", "1", release_digest(manifest)) == manifest
    world.plans.publish(world.plan(2))
    fresh = node.poll_plan()
    assert fresh is not None
    assert fresh.version == 2


def test_pruning_keeps_what_nodes_read(world: World) -> None:
    for version in range(1, 9):
        world.plans.publish(world.plan(version))
    before = set(world.store.paths("plans"))
    assert world.plans.prune(keep=3) == 5 * 3
    assert len(set(world.store.paths("plans"))) == len(before) - 15
    assert world.node().poll_plan() == world.plan(8)
    assert world.plans.latest("fra") == world.plan(8)


def test_without_a_plan_the_node_waits(world: World) -> None:
    with pytest.raises(Unavailable, match="nothing published yet"):
        world.node().poll_plan()


def test_a_refused_credential_is_said(world: World) -> None:
    world.mirror.status = 401
    with pytest.raises(Unauthenticated):
        world.node().poll_plan()


# --- attacks on the way ----------------------------------------------------------------------------------------------


@pytest.fixture
def settled(world: World) -> tuple[World, TrustedRepository, SitePlan]:
    """A node that believes plan 5, while plan 6 and a second release have just been published."""
    one = world.push("1")
    plan = world.plan(5, one)
    world.plans.publish(plan)
    node = world.node()
    node.poll_plan()
    node.release("m", "1", release_digest(one))
    world.plans.publish(world.plan(6, one, world.push("2")))
    return world, node, plan


Settled = tuple[World, TrustedRepository, SitePlan]


def assert_nothing_changed(world: World, node: TrustedRepository, plan: SitePlan) -> None:
    """The node believes what it believed, also after a restart, and recovers as soon as the attack ends."""
    assert node.verified_plan() == plan
    assert world.node(fetch=NoNetwork()).verified_plan() == plan
    world.mirror.forged.clear()
    world.mirror.moved = None
    world.mirror.objects = world.store
    newer = node.poll_plan()
    assert newer is not None
    assert newer.version == 6


def test_rollback(settled: Settled) -> None:
    world, node, _ = settled
    old = world.copy_of_store()
    node.poll_plan()
    world.plans.publish(world.plan(7))
    node.poll_plan()
    world.mirror.objects = old
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()
    assert node.verified_plan() == world.plan(7)


@pytest.mark.parametrize("speaks_etag", [True, False])
def test_freeze(settled: Settled, speaks_etag: bool) -> None:
    world, node, _ = settled
    world.mirror.speaks_etag = speaks_etag
    newest = node.poll_plan()
    world.mirror.objects = world.copy_of_store()
    world.now += timedelta(days=6)
    assert node.poll_plan() is None
    world.now += timedelta(days=2)
    with pytest.raises(IntegrityError, match="freeze"):
        node.poll_plan()
    with pytest.raises(IntegrityError, match="freeze"):
        node.refresh_releases()
    assert node.verified_plan() == newest
    world.plans.renew(world.now)
    world.mirror.objects = world.store
    assert node.poll_plan() is None


def test_a_clock_that_is_set_back_does_not_revive_what_has_expired(settled: Settled) -> None:
    world, node, _ = settled
    world.now += timedelta(days=20)
    world.plans.renew(world.now)  # but nobody hears of newer releases: the mirror holds them back
    assert node.poll_plan() is not None
    second = release_digest(world.manifest("2"))
    with pytest.raises(IntegrityError, match="freeze"):
        node.release("m", "2", second)
    world.now = BEGIN + timedelta(days=1)
    with pytest.raises(IntegrityError, match="freeze"):
        node.release("m", "2", second)
    with pytest.raises(IntegrityError, match="freeze"):
        world.node().release("m", "2", second)


def test_mix_and_match_of_honest_files(settled: Settled) -> None:
    world, node, plan = settled
    snapshot = world.store.read("plans/fra/metadata/5.snapshot.json") or b""
    world.mirror.forge("plans/fra/metadata/6.snapshot.json", snapshot)
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.poll_plan()
    world.mirror.forged.clear()
    targets = world.store.read("plans/fra/metadata/5.targets.json") or b""
    world.mirror.forge("plans/fra/metadata/6.targets.json", targets)
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


def test_metadata_of_another_site_neither_deceives_nor_poisons(settled: Settled) -> None:
    world, node, plan = settled
    for version in range(50, 60):
        world.plans.publish(world.plan(version, site="sin"))
    world.mirror.moved = ("plans/fra/", "plans/sin/")
    with pytest.raises(IntegrityError, match="wrong site"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("change", [{"fleet": "evil"}, {"site": SiteFacts(name="sin", tier="edge", country="SG")}])
def test_a_signed_plan_for_somebody_else(settled: Settled, change: dict[str, object]) -> None:
    world, node, _ = settled
    document = json.loads(encode_plan(world.plan(9)))
    if "fleet" in change:
        document["fleet"] = "evil"
    else:
        document["site"]["name"] = "sin"
    sign_target(world, "fra.json", json.dumps(document).encode())
    with pytest.raises(IntegrityError, match="wrong site"):
        node.poll_plan()


def test_an_older_plan_under_newer_metadata(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    sign_target(world, "fra.json", encode_plan(world.plan(4)))
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()


def test_another_plan_under_the_same_version(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    sign_target(world, "fra.json", encode_plan(world.plan(6)))
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()


def test_a_signed_plan_of_an_unknown_form(settled: Settled) -> None:
    world, node, _ = settled
    sign_target(world, "fra.json", b'{"schema": "something/else"}')
    with pytest.raises(IntegrityError, match="not a plan that we understand"):
        node.poll_plan()


def sign_target(world: World, path: str, data: bytes) -> None:
    """What a stolen online key can do: sign any target of the plans."""
    folder = SignedFolder(world.store, "plans/fra", world.online, world.clock, Lifetimes())
    target = TargetFile.from_data(path, data, ["sha256"])
    world.store.replace(f"plans/fra/targets/{target.hashes['sha256']}.{path}", data)
    version = folder.free_targets_version(7)
    targets = Targets(version=version, expires=world.now + timedelta(days=9), targets={path: target})
    folder.publish(signed_bytes(targets, [world.online]), version, folder.current(), minimum=version)


FILES = {
    "root": "plans/fra/metadata/2.root.json",
    "timestamp": "plans/fra/metadata/timestamp.json",
    "snapshot": "plans/fra/metadata/6.snapshot.json",
    "targets": "plans/fra/metadata/6.targets.json",
    "plan": "plans/fra/targets/{sha}.fra.json",
}


def path_of(world: World, file: str) -> str:
    plan = encode_plan(world.plans.latest("fra") or world.plan(0))
    return FILES[file].format(sha=digest_of(plan).removeprefix("sha256:"))


@pytest.mark.parametrize("file", list(FILES))
@pytest.mark.parametrize(
    "bytes_",
    [b"", b"\x00", b"null", b"[]", b"{}", b'{"signed": {}, "signatures": []}', b"[" * 10_000, b"\xff\xfe" * 500],
    ids=["empty", "nul", "null", "list", "object", "no-type", "deep", "not-utf8"],
)
def test_arbitrary_bytes(settled: Settled, file: str, bytes_: bytes) -> None:
    world, node, plan = settled
    world.mirror.forge(path_of(world, file), bytes_)
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.97])
def test_one_changed_byte(settled: Settled, file: str, where: float) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    data = bytearray(world.store.read(path) or b"")
    data[int(len(data) * where)] ^= 0x01
    world.mirror.forge(path, bytes(data))
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
def test_truncated(settled: Settled, file: str) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    data = world.store.read(path) or b""
    world.mirror.forge(path, data[: len(data) // 2])
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", list(FILES))
def test_endless_data(settled: Settled, file: str) -> None:
    world, node, plan = settled
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            assert sent < 1 << 24, "nobody stops reading"
            yield b"a" * (1 << 16)

    world.mirror.forged[path_of(world, file)] = endless
    with pytest.raises(IntegrityError, match="endless data"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
def test_missing_files_mean_wait(settled: Settled, file: str) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    pinned = world.copy_of_store()
    pinned.delete(path)
    world.mirror.objects = pinned
    with pytest.raises(Unavailable):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


def test_no_network_keeps_everything(settled: Settled) -> None:
    world, node, plan = settled
    world.mirror.down = True
    with pytest.raises(Unavailable):
        node.poll_plan()
    with pytest.raises(Unavailable):
        node.release("m", "2", release_digest(world.manifest("2")))
    assert node.verified_plan() == plan


# --- stolen keys and foreign keys ------------------------------------------------------------------------------------


def test_a_plan_can_only_choose_among_releases(settled: Settled) -> None:
    world, node, _ = settled
    forged = world.manifest("3", b"malware")
    world.store.replace(
        f"releases/targets/m/{release_digest(forged).removeprefix('sha256:')}.3.json", encode_release(forged)
    )
    with pytest.raises(IntegrityError, match="unsigned release"):
        node.release("m", "3", release_digest(forged))
    other = world.manifest("2", b"other weights")
    with pytest.raises(IntegrityError, match="wrong release"):
        node.release("m", "2", release_digest(other))


def test_a_stolen_online_key_cannot_release(settled: Settled) -> None:
    world, node, _ = settled
    forged = world.manifest("3", b"malware")
    root = new_releases_root(
        root_signers=[world.online],
        releaser_keys=[world.online.public_key],
        online_key=world.online.public_key,
        now=world.now,
    )
    targets, version = world.releases.targets()
    signed = json.loads(targets)
    data = encode_release(forged)
    target = TargetFile.from_data("m/3.json", data, ["sha256"])
    listing = Targets(version=version + 1, expires=world.now + timedelta(days=9), targets={"m/3.json": target})
    assert signed["signed"]["version"] == version
    folder = SignedFolder(world.store, "releases", world.online, world.clock, Lifetimes())
    folder.publish(signed_bytes(listing, [world.online]), version + 1, folder.current())
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.release("m", "3", release_digest(forged))
    world.mirror.forge("releases/metadata/2.root.json", root)
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.release("m", "3", release_digest(forged))


def test_a_changed_manifest(settled: Settled) -> None:
    world, node, _ = settled
    digest = release_digest(world.manifest("2"))
    path = f"releases/targets/m/{digest.removeprefix('sha256:')}.2.json"
    world.mirror.forge(path, encode_release(world.manifest("2", b"malware")))
    with pytest.raises(IntegrityError, match=r"changed bytes|endless"):
        node.release("m", "2", digest)
    with pytest.raises(NotFound):
        node.verified_release("m", "2", digest)


def test_a_foreign_root_at_the_join(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = new_plans_root(root_signers=[evil], online_key=evil.public_key, now=world.now)
    with pytest.raises(IntegrityError, match="foreign root"):
        TrustedRepository(
            world.folder / "other",
            fleet="acme",
            site="fra",
            fetch=world.mirror,
            now=world.clock,
            plans_root=root,
            plans_root_sha256=digest_of(world.plans_root),
            releases_root=world.releases_root,
            releases_root_sha256=digest_of(world.releases_root),
        )


def test_a_new_online_key_replaces_a_stolen_one(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    stolen, world.online = world.online, CryptoSigner.generate_ed25519()
    later = next_root(
        world.plans_root,
        [world.root_keys],
        now=world.now,
        lifetime=timedelta(days=3650),
        targets_keys=[world.online.public_key],
        online_key=world.online.public_key,
    )
    world.plans = PlansRepository(world.store, world.plans_root, world.online, world.clock, later_roots=[later])
    assert world.plans.latest("fra") is not None
    assert world.plans.renew(world.now) == ("fra",)
    assert node.poll_plan() is None
    before = node.verified_plan()
    folder = SignedFolder(world.store, "plans/fra", stolen, world.clock, Lifetimes())
    current = folder.current()
    assert current is not None
    folder.sign_timestamp(current)
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.poll_plan()
    assert world.node(fetch=NoNetwork()).verified_plan() == before
    with pytest.raises(IntegrityError, match="does not let our online key"):
        PlansRepository(world.store, world.plans_root, stolen, world.clock, later_roots=[later])


def test_another_releaser_joins_by_a_new_root(settled: Settled) -> None:
    world, node, _ = settled
    second = CryptoSigner.generate_ed25519()
    root = next_root(
        world.releases_root,
        [world.root_keys],
        now=world.now,
        lifetime=timedelta(days=3650),
        targets_keys=[world.releaser.public_key, second.public_key],
    )
    world.releases.add_root(root)
    world.releases.add_root(root)
    manifest = world.manifest("3")
    targets, version = world.releases.targets()
    with pytest.raises(IntegrityError, match="none of the releasers"):
        propose(world.releases_root, targets, manifest, second, now=world.now)
    proposal = propose(root, targets, manifest, second, now=world.now)
    world.releases.accept(proposal, encode_release(manifest), version)
    assert node.release("m", "3", release_digest(manifest)) == manifest


def test_a_root_that_nobody_before_has_signed_is_refused(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = next_root(
        world.releases_root,
        [evil],
        now=world.now,
        lifetime=timedelta(days=9),
        targets_keys=[evil.public_key],
    )
    with pytest.raises(IntegrityError):
        world.releases.add_root(root)


# --- accepting proposals ---------------------------------------------------------------------------------------------


def test_a_threshold_of_two_needs_two(world: World, tmp_path: Path) -> None:
    second = CryptoSigner.generate_ed25519()
    keys = [world.releaser, second]
    root = new_releases_root(
        root_signers=keys,
        releaser_keys=[key.public_key for key in keys],
        online_key=world.online.public_key,
        now=world.now,
        threshold=2,
    )
    repository = ReleasesRepository(open_objects("memory:"), world.blobs, world.online, world.clock)
    repository.initialise(root, new_targets(*keys, now=world.now))
    manifest = world.manifest("1")
    targets, version = repository.targets()
    one = propose(root, targets, manifest, world.releaser, now=world.now)
    with pytest.raises(IntegrityError, match="wrong signature"):
        repository.accept(one, encode_release(manifest), version)
    assert repository.accept(countersign(one, second), encode_release(manifest), version) == 2


def test_a_releaser_does_not_sign_a_list_that_the_control_plane_made_up(world: World) -> None:
    forged = new_targets(world.online, now=world.now)
    with pytest.raises(IntegrityError, match="wrong signature"):
        propose(world.releases_root, forged, world.manifest("1"), world.releaser, now=world.now)


def test_a_release_never_changes(world: World) -> None:
    world.push("1")
    targets, version = world.releases.targets()
    with pytest.raises(Conflict, match="released already"):
        propose(world.releases_root, targets, world.manifest("1", b"new"), world.releaser, now=world.now)
    other = world.manifest("1", b"other")
    forged = propose(world.releases_root, world.targets, other, world.releaser, now=world.now)
    forged = propose(world.releases_root, forged, world.manifest("2"), world.releaser, now=world.now)
    with pytest.raises(InvalidInput, match="never changes"):
        world.releases.accept(forged, encode_release(other), version)


def test_a_proposal_must_bring_its_blobs_and_its_own_manifest(world: World) -> None:
    manifest = world.manifest("1")
    absent = ReleaseManifest(
        model="m",
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="a",
        files=(File(path="a", digest=digest_of(b"never pushed"), size_bytes=12),),
        signature=Signature(inputs=(), outputs=()),
        created_at="x",
    )
    proposal = propose(world.releases_root, world.targets, absent, world.releaser, now=world.now)
    with pytest.raises(NotFound, match="is not in the store"):
        world.releases.accept(proposal, encode_release(absent), 1)
    with pytest.raises(IntegrityError, match="changed bytes"):
        world.releases.accept(proposal, encode_release(manifest), 1)
    with pytest.raises(InvalidInput, match="manifest is not valid"):
        world.releases.accept(proposal, b"{}", 1)
    assert world.releases.list() == ()


def test_an_accepted_proposal_again_is_a_no_op_and_a_late_one_a_conflict(world: World) -> None:
    manifest, late = world.manifest("1"), world.manifest("2")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    loser = propose(world.releases_root, world.targets, late, world.releaser, now=world.now)
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    with pytest.raises(Conflict, match="version 2, not 1"):
        world.releases.accept(loser, encode_release(late), 1)


def test_two_releasers_at_once_one_wins(world: World) -> None:
    """Two control-plane processes over one store, so no lock in memory can help: the name of the list decides."""
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def release(version: str) -> None:
        repository = ReleasesRepository(world.store, world.blobs, world.online, world.clock)
        manifest = world.manifest(version)
        proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
        barrier.wait(10)
        try:
            repository.accept(proposal, encode_release(manifest), 1)
            outcomes.append(version)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=release, args=(version,)) for version in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes, key=len)[1] == "conflict"
    assert [entry.version for entry in world.releases.list()] == [sorted(outcomes, key=len)[0]]


def test_initialising_twice(world: World) -> None:
    world.releases.initialise(world.releases_root, world.targets)
    other = new_releases_root(
        root_signers=[world.releaser],
        releaser_keys=[world.releaser.public_key],
        online_key=world.online.public_key,
        now=world.now,
    )
    with pytest.raises(Conflict, match="other keys"):
        world.releases.initialise(other, world.targets)


def test_a_root_for_another_online_key_is_refused(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = new_releases_root(
        root_signers=[world.releaser],
        releaser_keys=[world.releaser.public_key],
        online_key=evil.public_key,
        now=world.now,
    )
    repository = ReleasesRepository(open_objects("memory:"), world.blobs, world.online, world.clock)
    with pytest.raises(IntegrityError, match="does not let our online key"):
        repository.initialise(root, world.targets)
    assert repository.root() is None
    with pytest.raises(NotFound, match="no releases root"):
        repository.targets()


def test_publishing_an_older_plan_or_another_of_the_same_version_is_a_conflict(world: World) -> None:
    world.plans.publish(world.plan(5))
    world.plans.publish(world.plan(5))
    with pytest.raises(Conflict):
        world.plans.publish(world.plan(4))
    with pytest.raises(Conflict):
        world.plans.publish(world.plan(5, world.push("1")))
    assert world.plans.highest_version() == 5
    assert world.plans.sites() == ("fra",)


# --- death between any two writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", range(5))
def test_death_while_publishing_a_plan(world: World, writes: int) -> None:
    world.plans.publish(world.plan(1))
    node = world.node()
    assert node.poll_plan() == world.plan(1)
    world.dying.writes_left = writes
    finished = True
    try:
        world.plans.publish(world.plan(2))
    except PowerCut:
        finished = False
    assert finished == (writes >= 4)
    seen = node.poll_plan()
    assert seen == (world.plan(2) if finished else None)
    world.restart()
    assert world.plans.latest("fra") == world.plan(2 if finished else 1)
    world.plans.publish(world.plan(3))
    assert node.poll_plan() == world.plan(3)


def test_another_plan_after_one_that_was_cut_short(world: World) -> None:
    """Files left behind carry the numbers that come next: they are stepped over, never pointed at."""
    world.plans.publish(world.plan(1))
    other = world.plan(2, world.push("1"))
    world.dying.writes_left = 3
    with pytest.raises(PowerCut):
        world.plans.publish(world.plan(2))
    left = {path: world.store.read(path) for path in world.store.paths("plans")}
    world.restart()
    world.plans.publish(other)
    assert world.node().poll_plan() == other
    del left["plans/fra/metadata/timestamp.json"]
    assert all(world.store.read(path) == data for path, data in left.items())


@pytest.mark.parametrize("part", ["1.root", "1.targets", "1.snapshot", "timestamp", "plan", "forged"])
def test_a_damaged_publication_is_made_anew_and_costs_no_other_site(world: World, part: str) -> None:
    """Whatever is cut short or replaced in the store: nodes that saw the old one take the new one."""
    world.plans.publish(world.plan(1))
    world.plans.publish(world.plan(2, site="sin"))
    node = world.node()
    assert node.poll_plan() == world.plan(1)
    for _ in range(3):  # timestamps run ahead of what the names of files tell
        world.now += timedelta(days=4)
        world.plans.renew(world.now)
    node.poll_plan()
    paths = {path.rpartition("/")[2].removesuffix(".json"): path for path in world.store.paths("plans/fra")}
    plan = next(path for path in paths.values() if "/targets/" in path)
    if part == "forged":
        evil = World(world.folder / "evil")
        evil.plans.publish(evil.plan(7))
        stolen = evil.store.read("plans/fra/metadata/timestamp.json")
        assert stolen is not None
        world.store.replace(paths["timestamp"], stolen)
    else:
        data = world.store.read(plan if part == "plan" else paths[part])
        assert data is not None
        world.store.replace(plan if part == "plan" else paths[part], data[:40])
    world.restart()
    with pytest.raises(IntegrityError):
        world.plans.latest("fra")
    assert world.plans.highest_version() >= 2
    world.now += timedelta(days=4)
    assert "sin" in world.plans.renew(world.now)
    world.plans.prune(keep=2)
    world.plans.publish(world.plan(3))
    assert world.plans.latest("fra") == world.plan(3)
    assert node.poll_plan() == world.plan(3)
    world.plans.publish(world.plan(4))
    assert node.poll_plan() == world.plan(4)


def test_an_old_list_that_was_damaged_does_not_stop_the_pruning(world: World) -> None:
    for version in range(1, 5):
        world.plans.publish(world.plan(version))
    world.store.replace("plans/fra/metadata/3.targets.json", b"{")
    world.plans.prune(keep=2)
    assert world.node().poll_plan() == world.plan(4)


@pytest.mark.parametrize("writes", range(5))
def test_death_while_publishing_the_first_plan(world: World, writes: int) -> None:
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.plans.publish(world.plan(1))
    with pytest.raises(Unavailable):
        world.node().poll_plan()
    world.restart()
    world.plans.publish(world.plan(1))
    assert world.node().poll_plan() == world.plan(1)


@pytest.mark.parametrize("writes", range(4))
def test_death_while_accepting_a_release(world: World, writes: int) -> None:
    node = world.node()
    manifest = world.manifest("1")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    node.refresh_releases()
    world.restart()
    world.now += timedelta(hours=1)
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    assert [entry.version for entry in world.releases.list()] == ["1"]
    assert node.release("m", "1", release_digest(manifest)) == manifest
    world.push("2")
    assert len(world.releases.list()) == 2


def test_a_proposal_that_was_cut_short_is_finished_by_whoever_comes_next(world: World) -> None:
    manifest, other = world.manifest("1"), world.manifest("2")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    rival = propose(world.releases_root, world.targets, other, world.releaser, now=world.now)
    world.dying.writes_left = 2
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    world.restart()
    with pytest.raises(Conflict):
        world.releases.accept(rival, encode_release(other), 1)
    assert [entry.version for entry in world.releases.list()] == ["1"]


def test_a_proposal_left_by_a_crash_that_has_become_invalid_blocks_nobody(world: World) -> None:
    manifest = world.manifest("1")
    short = Lifetimes(targets=timedelta(days=1))
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now, lifetimes=short)
    world.dying.writes_left = 2
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    world.restart()
    world.now += timedelta(days=2)
    assert world.releases.list() == ()
    world.push("1")
    assert len(world.releases.list()) == 1


@pytest.mark.parametrize("writes", range(4))
def test_death_while_beginning(world: World, writes: int) -> None:
    store = open_objects("memory:")
    dying = Dying(store)
    dying.writes_left = writes
    with pytest.raises(PowerCut):
        ReleasesRepository(dying, world.blobs, world.online, world.clock).initialise(world.releases_root, world.targets)
    again = ReleasesRepository(store, world.blobs, world.online, world.clock)
    again.initialise(world.releases_root, world.targets)
    assert again.targets() == (world.targets, 1)


@pytest.mark.parametrize("writes", range(2))
def test_death_while_renewing(world: World, writes: int) -> None:
    world.plans.publish(world.plan(1))
    node = world.node()
    node.poll_plan()
    world.now += timedelta(days=20)
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.plans.renew(world.now)
    world.restart()
    assert world.plans.renew(world.now) == ("fra",)
    assert node.poll_plan() is None


# --- offline ---------------------------------------------------------------------------------------------------------


def test_boot_without_network_years_later(settled: Settled) -> None:
    world, _, plan = settled
    world.now += timedelta(days=900)
    node = world.node(fetch=NoNetwork())
    assert node.verified_plan() == plan
    named = plan.models[0]
    assert node.verified_release(named.model, named.version, named.release).version == "1"


def test_a_node_that_never_polled_has_no_plan(world: World) -> None:
    assert world.node(fetch=NoNetwork()).verified_plan() is None


def test_installing_needs_fresh_metadata_where_serving_does_not(settled: Settled) -> None:
    world, node, plan = settled
    named = plan.models[0]
    world.now += timedelta(days=30)
    world.mirror.down = True
    with pytest.raises(Unavailable):
        node.release(named.model, named.version, named.release)
    assert node.verified_release(named.model, named.version, named.release).model == "m"


def change_in(document: dict[str, object], field: str) -> None:
    """Flip one bit in the middle of a base64 field."""
    data = bytearray(base64.b64decode(str(document[field])))
    data[len(data) // 2] ^= 0x02
    document[field] = base64.b64encode(bytes(data)).decode()


@pytest.mark.parametrize("field", ["timestamp", "snapshot", "targets", "plan"])
def test_a_changed_copy_of_a_plan_is_noticed_offline_and_healed_online(settled: Settled, field: str) -> None:
    world, node, _ = settled
    file = world.folder / "trust" / "plan.json"
    document = json.loads(file.read_bytes())
    change_in(document, field)
    file.write_text(json.dumps(document))
    with pytest.raises(IntegrityError):
        world.node(fetch=NoNetwork()).verified_plan()
    assert node.poll_plan() is not None
    assert world.node(fetch=NoNetwork()).verified_plan() == world.plans.latest("fra")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 4096])
def test_an_unreadable_copy_is_noticed_offline_and_healed_online(settled: Settled, content: bytes) -> None:
    world, node, _ = settled
    (world.folder / "trust" / "plan.json").write_bytes(content)
    with pytest.raises(IntegrityError, match="was changed"):
        world.node(fetch=NoNetwork()).verified_plan()
    assert node.poll_plan() is not None


def test_a_plan_that_an_intruder_signed_with_an_own_root_is_noticed(settled: Settled) -> None:
    world, _, _ = settled
    evil = World(world.folder / "evil")
    evil.plans.publish(evil.plan(99))
    evil.node(folder="trust").poll_plan()
    forged = (world.folder / "evil" / "trust" / "plan.json").read_bytes()
    (world.folder / "trust" / "plan.json").write_bytes(forged)
    with pytest.raises(IntegrityError, match="foreign root"):
        world.node(fetch=NoNetwork()).verified_plan()


def test_a_changed_manifest_on_disk_is_noticed_offline_and_healed_online(settled: Settled) -> None:
    world, node, plan = settled
    named = plan.models[0]
    file = world.folder / "trust" / "manifests" / f"{named.release.removeprefix('sha256:')}.json"
    file.write_bytes(file.read_bytes().replace(b"model.onnx", b"other.onnx"))
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.verified_release(named.model, named.version, named.release)
    assert node.release(named.model, named.version, named.release).entrypoint == "model.onnx"
    assert node.verified_release(named.model, named.version, named.release).entrypoint == "model.onnx"


def test_the_version_is_read_off_any_metadata(world: World) -> None:
    assert version_of(world.targets) == 1
    with pytest.raises(IntegrityError):
        version_of(b"nothing")
