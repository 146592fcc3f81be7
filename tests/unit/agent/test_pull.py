"""Where plans and releases come from, in which order, and what failures are called."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from nearcast.agent.pull import Abandoned, Puller
from nearcast.agent.states import Blame, Fetched, FetchFailed, Key, PlanReceived, PlanRefused, PlanUnchanged
from nearcast.errors import Forbidden, IntegrityError, NearcastError, NotFound, Unauthenticated, Unavailable
from nearcast.registry.artifacts import NoRoom
from nearcast.registry.fetch import Fetch, FolderFetch
from nearcast.registry.refused import Attack, TrustRefused
from nearcast.resources.plan import SiteFacts, SitePlan
from nearcast.resources.release import File, ReleaseManifest, Signature

KEY, RELEASE = Key("m", "1"), "sha256:r"
MANIFEST = ReleaseManifest(
    model="m",
    version="1",
    runtime="onnx",
    task="tensor",
    entrypoint="model.onnx",
    files=(File(path="model.onnx", digest="sha256:0", size_bytes=10),),
    signature=Signature(inputs=(), outputs=()),
    created_at="then",
)
PLAN = SitePlan(fleet="f", site=SiteFacts(name="here", tier="edge", country="DE"), version=4, revision="r")


class Fake:
    """A repository and an artifact store in one; each answer can be an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.plan: SitePlan | NearcastError | None = PLAN
        self.kept: ReleaseManifest | NearcastError = NotFound("never fetched")
        self.fresh: ReleaseManifest | NearcastError = MANIFEST
        self.files: NearcastError | None = NotFound("not here")
        self.download: NearcastError | OSError | None = None

    def poll_plan(self) -> SitePlan | None:
        return self._plan()

    def verified_plan(self) -> SitePlan | None:
        return self._plan()

    def _plan(self) -> SitePlan | None:
        if isinstance(self.plan, NearcastError):
            raise self.plan
        return self.plan

    def release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        self.calls.append("release")
        return self._manifest(self.fresh)

    def verified_release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        self.calls.append("verified_release")
        return self._manifest(self.kept)

    @staticmethod
    def _manifest(found: ReleaseManifest | NearcastError) -> ReleaseManifest:
        if isinstance(found, NearcastError):
            raise found
        return found

    def refresh_releases(self) -> bool:
        return False

    def verify(self, manifest: ReleaseManifest, progress: object = None) -> Path:
        self.calls.append("verify")
        if self.files is not None:
            raise self.files
        return self.folder

    def ensure(self, manifest: ReleaseManifest, fetch: Fetch, progress: object = None) -> Path:
        self.calls.append("ensure")
        if self.download is not None:
            raise self.download
        progress(10, 10)  # type: ignore[operator]
        return self.folder

    def collect(self, wanted: Iterable[str]) -> int:
        self.calls.append(f"collect {sorted(wanted)}")
        return 3


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.fixture
def puller(fake: Fake, tmp_path: Path) -> Puller:
    return Puller(fake, fake, FolderFetch(tmp_path))


def nothing(done: int, total: int) -> None:
    del done, total


def refused(attack: Attack, role: str) -> TrustRefused:
    return TrustRefused(attack, role, "some/file", "expected something, got something else")


def test_a_plan_comes_as_an_event(fake: Fake, puller: Puller) -> None:
    assert puller.poll() == PlanReceived(PLAN) == puller.stored_plan()
    fake.plan = None
    assert puller.poll() == PlanUnchanged()
    assert puller.stored_plan() is None


@pytest.mark.parametrize(
    ("error", "blame", "reason"),
    [
        (IntegrityError("x"), Blame.REFUSED, "TrustRefused"),
        (Unauthenticated("x"), Blame.REFUSED, "NotAdmitted"),
        (Forbidden("x"), Blame.REFUSED, "NotAdmitted"),
        (Unavailable("x"), Blame.TRANSIENT, "Unreachable"),
    ],
)
def test_a_plan_that_cannot_be_had_says_why(
    fake: Fake, puller: Puller, error: NearcastError, blame: Blame, reason: str
) -> None:
    fake.plan = error
    assert puller.poll() == PlanRefused(blame, reason, "x")


def test_what_is_on_disk_needs_no_network(fake: Fake, puller: Puller, tmp_path: Path) -> None:
    fake.kept, fake.files = MANIFEST, None
    assert puller.obtain(KEY, RELEASE, nothing) == Fetched(KEY, RELEASE, 10)
    assert fake.calls == ["verified_release", "verify"]
    held = puller.held(RELEASE)
    assert held is not None
    assert (held.manifest, held.directory) == (MANIFEST, tmp_path)


@pytest.mark.parametrize("on_disk", [NotFound("no"), IntegrityError("flipped bit")])
def test_what_is_not_whole_on_disk_is_fetched_by_fresh_metadata(
    fake: Fake, puller: Puller, on_disk: NearcastError
) -> None:
    fake.kept, fake.files = MANIFEST, on_disk
    assert puller.obtain(KEY, RELEASE, nothing) == Fetched(KEY, RELEASE, 10)
    assert fake.calls == ["verified_release", "verify", "release", "ensure"]


def test_damage_on_disk_that_cannot_be_mended_is_not_called_unreachable(fake: Fake, puller: Puller) -> None:
    fake.kept, fake.files = MANIFEST, refused(Attack.ON_DISK, "blob")
    fake.fresh = Unavailable("no route to host")
    outcome = puller.obtain(KEY, RELEASE, nothing)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.blame, outcome.reason) == (Blame.TRANSIENT, "DigestMismatch")
    assert "some/file: changed on disk (blob)" in outcome.message
    assert "no route to host" in outcome.message


def test_a_damaged_plan_is_told_until_a_fresh_one_replaces_it(fake: Fake, puller: Puller) -> None:
    fake.plan = refused(Attack.ON_DISK, "plan")
    assert puller.stored_plan() == PlanRefused(Blame.REFUSED, "TrustRefused", fake.plan.message)
    fake.plan = Unavailable("no route to host")
    outcome = puller.poll()
    assert isinstance(outcome, PlanRefused)
    assert (outcome.blame, outcome.reason) == (Blame.TRANSIENT, "TrustRefused")
    fake.plan = PLAN
    assert puller.poll() == PlanReceived(PLAN)
    fake.plan = Unavailable("no route to host")
    assert puller.poll() == PlanRefused(Blame.TRANSIENT, "Unreachable", "no route to host")


@pytest.mark.parametrize(
    ("fresh", "download", "blame", "reason"),
    [
        (refused(Attack.UNSIGNED, "targets"), None, Blame.REFUSED, "UnsignedRelease"),
        (refused(Attack.WRONG_RELEASE, "targets"), None, Blame.REFUSED, "DigestMismatch"),
        (refused(Attack.CHANGED, "manifest"), None, Blame.REFUSED, "DigestMismatch"),
        (refused(Attack.CHANGED, "snapshot"), None, Blame.REFUSED, "TrustRefused"),
        (refused(Attack.FREEZE, "timestamp"), None, Blame.REFUSED, "TrustRefused"),
        (IntegrityError("wrong release, changed bytes, unsigned release"), None, Blame.REFUSED, "TrustRefused"),
        (MANIFEST, refused(Attack.TAMPERED, "blob"), Blame.REFUSED, "DigestMismatch"),
        (MANIFEST, refused(Attack.ENDLESS, "blob"), Blame.REFUSED, "DigestMismatch"),
        (Unavailable("down"), None, Blame.TRANSIENT, "Unreachable"),
        (MANIFEST, NoRoom("no room for m@1"), Blame.TRANSIENT, "NoRoom"),
        (MANIFEST, Forbidden("no"), Blame.REFUSED, "NotAdmitted"),
        (MANIFEST, OSError("read-only"), Blame.TRANSIENT, "DiskTrouble"),
    ],
)
def test_a_release_that_cannot_be_had_says_why(
    fake: Fake,
    puller: Puller,
    fresh: ReleaseManifest | NearcastError,
    download: NearcastError | OSError | None,
    blame: Blame,
    reason: str,
) -> None:
    fake.fresh, fake.download = fresh, download
    outcome = puller.obtain(KEY, RELEASE, nothing)
    assert isinstance(outcome, FetchFailed)
    assert (outcome.blame, outcome.reason) == (blame, reason)
    assert puller.held(RELEASE) is None


def test_an_abandoned_download_has_no_outcome(fake: Fake, puller: Puller) -> None:
    def stop(done: int, total: int) -> None:
        raise Abandoned("enough")

    assert puller.obtain(KEY, RELEASE, stop) is None


def test_what_is_collected_is_no_longer_held(fake: Fake, puller: Puller) -> None:
    puller.obtain(KEY, RELEASE, nothing)
    assert puller.collect(frozenset({RELEASE})) == 3
    assert puller.held(RELEASE) is not None
    puller.collect(frozenset())
    assert puller.held(RELEASE) is None


def test_files_that_somebody_removed_are_not_held(fake: Fake, puller: Puller, tmp_path: Path) -> None:
    fake.folder = tmp_path / "gone"
    puller.obtain(KEY, RELEASE, nothing)
    assert puller.held(RELEASE) is None
