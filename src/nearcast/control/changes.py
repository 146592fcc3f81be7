"""Changes of desired state, as the API asks for them: admitted on the state in force, then written, all or none."""

from collections.abc import Mapping, Sequence

from nearcast.control.admission import Known, Outcome, Precondition, admit, check, duplicate_free, require
from nearcast.control.database import bump
from nearcast.control.plane import ControlPlane
from nearcast.control.releases import RELEASES
from nearcast.control.store import Change, Snapshot
from nearcast.resources.kinds import API_VERSION, AnyResource, Metadata, Model

ADMIN = "admin"
CONTROL = "control"


def apply(plane: ControlPlane, resources: Sequence[AnyResource], *, dry_run: bool) -> list[Outcome]:
    """Make the fleet hold ``resources``; with ``dry_run``, only say what would change.

    Raises:
        InvalidInput: they do not fit one another or what is there; nothing is changed.
    """
    duplicate_free(resources)
    return _change(plane, [Change(item.kind, item.name, item) for item in resources], dry_run=dry_run)


def replace(plane: ControlPlane, resource: AnyResource, expected: Precondition) -> Outcome:
    """Put one resource. Raises as :func:`apply`, and :class:`Conflict` where ``expected`` is not in force."""
    return _change(plane, [Change(resource.kind, resource.name, resource)], expected=expected)[0]


def remove(plane: ControlPlane, kind: str, name: str, expected: Precondition) -> Outcome:
    """Delete one resource.

    Raises:
        NotFound: it is not there.
        Conflict: ``expected`` is not in force, or something still needs it.
    """
    held = plane.store.snapshot()
    require(held.get(kind, name), kind, name, [other for other_kind, other in held.held if other_kind == kind])
    outcome = _change(plane, [Change(kind, name, None)], expected=expected)[0]
    plane.transitions.forget(kind, name)
    return outcome


def ensure_models(plane: ControlPlane) -> None:
    """Make the Model of every release that has none: a push names a model, and a crash may come right after it."""

    def missing(snapshot: Snapshot, _members: Mapping[str, tuple[str, ...]]) -> list[Change]:
        names = sorted(plane.index.models() - {name for kind, name in snapshot.held if kind == "Model"})
        return [
            Change("Model", name, Model(api_version=API_VERSION, kind="Model", metadata=Metadata(name=name, labels={})))
            for name in names
        ]

    if missing(plane.store.snapshot(), {}):
        plane.store.change(missing, actor=CONTROL)
        plane.bell.ring()


def accept_release(plane: ControlPlane, targets: bytes, manifest: bytes, expected_version: int) -> int:
    """Publish a release and make its Model; the new version of the list. Raises as the repository's ``accept``."""
    version = plane.releases.accept(targets, manifest, expected_version)
    note_releases(plane)
    ensure_models(plane)
    plane.bell.ring()
    return version


def change_release_keys(plane: ControlPlane, root: bytes, targets: bytes) -> int:
    """Believe in other keys of releases; the list's new version. Raises as the repository's ``change_keys``."""
    version = plane.releases.change_keys(root, targets)
    note_releases(plane)
    plane.bell.ring()
    return version


def note_releases(plane: ControlPlane) -> None:
    """Read the releases again, here and at the other replicas."""
    plane.index.refresh()
    with plane.database.write() as session:
        bump(session, RELEASES)


def _change(
    plane: ControlPlane, changes: Sequence[Change], *, dry_run: bool = False, expected: Precondition | None = None
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def decide(snapshot: Snapshot, members: Mapping[str, tuple[str, ...]]) -> Sequence[Change]:
        if expected is not None:
            for change in changes:
                check(snapshot.get(change.kind, change.name), (change.kind, change.name), expected)
        outcomes[:] = admit(snapshot, changes, Known(plane.index.models(), members))
        return [] if dry_run else changes

    plane.store.change(decide, actor=ADMIN)
    if any(outcome.action != "unchanged" for outcome in outcomes) and not dry_run:
        plane.bell.ring()
    return outcomes
