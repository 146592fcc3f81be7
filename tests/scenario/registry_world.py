"""A fleet with an honest control plane, two sites, and a mirror between them that can be told to deceive."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from nearcast.errors import Unavailable
from nearcast.registry.blobs import BlobStore
from nearcast.registry.client import TrustedRepository
from nearcast.registry.fetch import Response
from nearcast.registry.objects import Objects, StoreObjects, open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.release_list import new_releases_root, new_targets, online_key_of, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan
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
        if name not in {"replace", "create", "swap", "adopt", "delete"}:
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
    def __init__(self, folder: Path, store: Objects | None = None) -> None:
        self.folder = folder
        self.now = BEGIN
        self.store = store or open_objects("memory:")
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
        self.before: dict[str, bytes] = {}
        """Files that a test kept because they are overwritten when something is published."""

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
