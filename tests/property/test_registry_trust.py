"""Properties of the registry: whatever happens, in whatever order, a node believes only what was published."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from securesystemslib.signer import CryptoSigner

from nearcast.errors import IntegrityError, NearcastError, Unavailable
from nearcast.registry.artifacts import ArtifactStore
from nearcast.registry.blobs import BlobStore, blob_path
from nearcast.registry.client import TrustedRepository
from nearcast.registry.fetch import Response
from nearcast.registry.objects import Objects, open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.release_list import new_releases_root, new_targets, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.resources.plan import SiteFacts, SitePlan
from nearcast.resources.release import File, ReleaseManifest, Signature, encode_release, release_digest
from nearcast.resources.revision import digest_of

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,20}[A-Za-z0-9])?", fullmatch=True)
parts = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,9}", fullmatch=True).filter(lambda part: not part.endswith("."))
START = datetime(2026, 1, 1, tzinfo=UTC)


class Direct:
    """A mirror that can fail, and change one byte of what it serves."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.flip: tuple[int, int] | None = None
        self.fails_after: int | None = None
        self.count = 0

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        self.count += 1
        if self.fails_after is not None and self.count > self.fails_after:
            raise Unavailable("down")
        data = self.objects.read(path)
        if data is None:
            return Response(status=404)
        if self.flip is not None and data:
            at, mask = self.flip
            changed = bytearray(data)
            changed[at % len(data)] ^= mask
            data = bytes(changed)
        return Response(status=206 if start else 200, start=start, body=iter([data[start:]]))


@settings(max_examples=25, deadline=None)
@given(
    model=names,
    version=versions,
    files=st.dictionaries(
        st.lists(parts, min_size=1, max_size=1).map("/".join), st.binary(max_size=2000), min_size=1, max_size=5
    ),
)
def test_what_is_pushed_is_what_arrives(model: str, version: str, files: dict[str, bytes]) -> None:
    store = open_objects("memory:")
    blobs = BlobStore(store)
    online, releaser = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    root = new_releases_root(
        root_signers=[releaser], releaser_keys=[releaser.public_key], online_key=online.public_key, now=START
    )
    plans_root = new_plans_root(root_signers=[online], online_key=online.public_key, now=START)
    repository = ReleasesRepository(store, blobs, online, lambda: START)
    repository.initialise(root, new_targets(releaser, now=START))
    for content in files.values():
        blobs.put(digest_of(content), [content])
    manifest = ReleaseManifest(
        model=model,
        version=version,
        runtime="onnx",
        task="tensor",
        entrypoint=min(files),
        files=tuple(File(path=p, digest=digest_of(c), size_bytes=len(c)) for p, c in sorted(files.items())),
        signature=Signature(inputs=(), outputs=()),
        created_at="x",
    )
    targets, number = repository.targets()
    proposal = propose(root, targets, manifest, releaser, now=START)
    assert repository.accept(proposal, encode_release(manifest), number) == number + 1
    with tempfile.TemporaryDirectory() as folder:
        node = TrustedRepository(
            Path(folder) / "trust",
            fleet="f",
            site="s",
            fetch=Direct(store),
            now=lambda: START,
            plans_root=plans_root,
            plans_root_sha256=digest_of(plans_root),
            releases_root=root,
            releases_root_sha256=digest_of(root),
        )
        believed = node.release(model, version, release_digest(manifest))
        assert believed == manifest
        place = ArtifactStore(Path(folder) / "models", pause=lambda _: None).ensure(believed, Direct(store))
        assert {path: (place / path).read_bytes() for path in files} == files


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=3000), at=st.integers(0, 10**6), mask=st.integers(1, 255))
def test_no_changed_byte_of_a_blob_is_ever_installed(content: bytes, at: int, mask: int) -> None:
    store = open_objects("memory:")
    store.replace(blob_path(digest_of(content)), content)
    manifest = ReleaseManifest(
        model="m",
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="a",
        files=(File(path="a", digest=digest_of(content), size_bytes=len(content)),),
        signature=Signature(inputs=(), outputs=()),
        created_at="x",
    )
    mirror = Direct(store)
    mirror.flip = (at, mask)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = ArtifactStore(Path(folder), pause=lambda _: None)
        try:
            artifacts.ensure(manifest, mirror)
        except IntegrityError:
            pass
        else:
            raise AssertionError("changed bytes were installed")
        assert not artifacts.path_of(release_digest(manifest)).exists()


class Fleet(RuleBasedStateMachine):
    """Publications, renewals, bad mirrors, lost connections, restarts, the passing of time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.store = open_objects("memory:")
        self.online = CryptoSigner.generate_ed25519()
        self.root = new_plans_root(root_signers=[self.online], online_key=self.online.public_key, now=self.now)
        self.plans = PlansRepository(self.store, self.root, self.online, lambda: self.now)
        self.version = 0
        self.published: dict[int, SitePlan] = {}
        self.believed = 0
        self.folder = tempfile.TemporaryDirectory()
        self.mirror = Direct(self.store)
        self.old: list[Objects] = []
        self.start_node()

    def teardown(self) -> None:
        self.folder.cleanup()

    def start_node(self) -> None:
        self.node = TrustedRepository(
            Path(self.folder.name) / "trust",
            fleet="f",
            site="fra",
            fetch=self.mirror,
            now=lambda: self.now,
            plans_root=self.root,
            plans_root_sha256=digest_of(self.root),
            releases_root=self.root,
            releases_root_sha256=digest_of(self.root),
        )

    @rule(site=st.sampled_from(["fra", "sin"]))
    def publish(self, site: str) -> None:
        self.version += 1
        plan = SitePlan(
            fleet="f",
            site=SiteFacts(name=site, tier="edge", country="DE"),
            version=self.version,
            revision=str(self.version),
        )
        self.plans.publish(plan)
        if site == "fra":
            self.published[self.version] = plan

    @rule(days=st.integers(1, 20))
    def time_passes_and_metadata_is_renewed(self, days: int) -> None:
        self.now += timedelta(days=days)
        self.plans.renew(self.now)

    @rule(hours=st.integers(-1000, 100))
    def the_clock_is_wrong(self, hours: int) -> None:
        real, self.now = self.now, self.now + timedelta(hours=hours)
        self.poll()
        self.now = real

    @rule()
    def poll(self) -> None:
        try:
            plan = self.node.poll_plan()
        except NearcastError:
            return
        if plan is not None:
            assert plan.version > self.believed
            self.believed = plan.version

    @rule()
    def an_honest_poll_brings_the_newest(self) -> None:
        self.mirror.flip = self.mirror.fails_after = None
        self.mirror.objects = self.store
        self.plans.renew(self.now)
        if not self.published:
            return
        plan = self.node.poll_plan()
        newest = max(self.published)
        assert (self.believed if plan is None else plan.version) == newest
        self.believed = newest

    @rule(at=st.integers(0, 5000), mask=st.integers(1, 255))
    def poll_a_mirror_that_changes_bytes(self, at: int, mask: int) -> None:
        self.mirror.flip = (at, mask)
        self.poll()
        self.mirror.flip = None

    @rule(requests=st.integers(0, 6))
    def poll_while_the_connection_breaks(self, requests: int) -> None:
        self.mirror.count, self.mirror.fails_after = 0, requests
        self.poll()
        self.mirror.fails_after = None

    @rule()
    def remember_the_store(self) -> None:
        copy = open_objects("memory:")
        for path in self.store.paths("plans"):
            copy.replace(path, self.store.read(path) or b"")
        self.old.append(copy)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def poll_an_old_mirror(self, data: st.DataObject) -> None:
        self.mirror.objects = data.draw(st.sampled_from(self.old))
        self.poll()
        self.mirror.objects = self.store

    @rule()
    def restart(self) -> None:
        self.start_node()

    @rule(keep=st.integers(2, 4))
    def prune(self, keep: int) -> None:
        self.plans.prune(keep)

    @invariant()
    def the_node_believes_a_published_plan_and_never_an_older_one(self) -> None:
        plan = self.node.verified_plan()
        if plan is None:
            assert self.believed == 0
        else:
            assert plan == self.published[plan.version]
            assert plan.version == self.believed


Fleet.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestFleet = Fleet.TestCase
