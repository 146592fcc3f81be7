"""Whether a change of resources may come into force: pure, on all resources together.

Decides: references must resolve in the state *after* the change (so one file may hold a site, a model and its
deployment in any order), a model has one deployment, and nothing goes that something else still names. A deployment
whose release was not pushed yet is admitted; its condition says so. Single fields were judged by `resources.kinds`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nearcast.control.store import Action, Change, Held, Key, Snapshot
from nearcast.errors import Conflict, InvalidInput, NotFound
from nearcast.resources.kinds import (
    AnyResource,
    Deployment,
    Model,
    Policy,
    Site,
    revision_of_resource,
    to_document,
)
from nearcast.resources.manifest import diff
from nearcast.resources.problems import ManifestError, Problem, did_you_mean


@dataclass(frozen=True, slots=True)
class Known:
    """What admission needs to know besides resources.

    Attributes:
        released: models that have a release.
        members: site -> its nodes that are not revoked.
    """

    released: Collection[str]
    members: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change does to one resource; ``revision`` is empty for a deletion."""

    kind: str
    name: str
    action: Action
    diff: str
    revision: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """What the caller believes to be in force: ``revision``, ``*`` (anything), or None for ``absent``."""

    revision: str | None = None
    absent: bool = False


def admit(snapshot: Snapshot, changes: Sequence[Change], known: Known) -> list[Outcome]:
    """What ``changes`` would do.

    Raises:
        InvalidInput: something that shall be put does not fit the rest; all reasons at once.
        Conflict: something that shall go is still needed.
        NotFound: something that shall go is not there.
    """
    after = {key: held.resource for key, held in snapshot.held.items()}
    for change in changes:
        if change.resource is not None:
            after[change.kind, change.name] = change.resource
        elif after.pop((change.kind, change.name), None) is None:
            raise NotFound(f"there is no {change.kind}/{change.name}")
    gone = {(change.kind, change.name) for change in changes if change.resource is None}
    for key in sorted(gone):
        _refuse_if_needed(key, after, known)
    put = [change.resource for change in changes if change.resource is not None]
    problems = [problem for resource in put for problem in _problems(resource, after, known)]
    if problems:
        raise ManifestError(problems)
    return [_outcome(snapshot.get(change.kind, change.name), change) for change in changes]


def check(held: Held | None, key: Key, expected: Precondition) -> None:
    """Raises :class:`Conflict` unless what is in force is what the caller believes."""
    name = f"{key[0]}/{key[1]}"
    if expected.absent and held is not None:
        raise Conflict(f"expected no {name}, but it exists with revision {held.revision}")
    if expected.revision is None:
        return
    if held is None:
        raise Conflict(f"expected {name} with revision {expected.revision}, but it does not exist")
    if expected.revision not in {"*", held.revision}:
        raise Conflict(
            f"expected {name} with revision {expected.revision}, it has {held.revision}",
            hint="Read it again, and repeat your change on what you find.",
        )


def _outcome(before: Held | None, change: Change) -> Outcome:
    old = to_document(before.resource, with_status=False) if before else None
    if change.resource is None:
        return Outcome(change.kind, change.name, "deleted", diff(old, None), "")
    new = to_document(change.resource, with_status=False)
    revision = revision_of_resource(change.resource)
    action: Action = "created" if before is None else "unchanged" if before.revision == revision else "updated"
    return Outcome(change.kind, change.name, action, diff(old, new), revision)


def _names(after: Mapping[Key, AnyResource], kind: str) -> list[str]:
    return [name for held_kind, name in after if held_kind == kind]


def _problems(resource: AnyResource, after: Mapping[Key, AnyResource], known: Known) -> list[Problem]:
    source = f"{resource.kind}/{resource.name}"
    sites = _names(after, "Site")
    models = {*_names(after, "Model"), *known.released}
    match resource:
        case Deployment(spec=spec):
            field = "spec.placement.auto.sites" if spec.placement.auto else "spec.placement.sites"
            found = _unknown(source, field, "Site", spec.placement.named_sites, sites)
            found += _unknown(source, "spec.model", "Model", (spec.model,), models)
            other = _other_deployment(resource, after)
            if other is not None:
                found.append(
                    Problem(
                        source,
                        0,
                        0,
                        "spec.model",
                        f"expected a model without a deployment; {spec.model} is deployed by Deployment/{other}",
                        f"Change Deployment/{other}, or delete it first.",
                    )
                )
            return found
        case Policy(spec=spec):
            match, residency = spec.match, spec.residency
            return [
                *_unknown(source, "spec.match.models", "Model", match.models, models),
                *_unknown(source, "spec.match.originSites", "Site", match.origin_sites, sites),
                *_unknown(source, "spec.residency.sites", "Site", residency.sites, sites),
            ]
        case Site() | Model():
            return []


def _unknown(source: str, field: str, kind: str, wanted: Iterable[str], existing: Collection[str]) -> list[Problem]:
    """A problem for each name that refers to nothing. A typing error in a policy must not open what it should close."""
    found = []
    for name in wanted:
        if name not in existing:
            hint = did_you_mean(name, existing) or (
                f"Known are {', '.join(sorted(existing)[:8])}."
                if existing
                else f"Apply {kind}/{name} first, or with it."
            )
            found.append(Problem(source, 0, 0, field, f"expected the name of a {kind}; got {name!r}", hint))
    return found


def _other_deployment(resource: Deployment, after: Mapping[Key, AnyResource]) -> str | None:
    model = resource.spec.model
    others = [
        item.name
        for item in after.values()
        if isinstance(item, Deployment) and item.spec.model == model and item.name != resource.name
    ]
    return min(others, default=None)


def _refuse_if_needed(key: Key, after: Mapping[Key, AnyResource], known: Known) -> None:
    kind, name = key
    users = [f"{item.kind}/{item.name}" for item in after.values() if _names_it(item, kind, name)]
    if kind == "Site":
        users += [f"node {name}/{node}" for node in known.members.get(name, ())]
    if users:
        raise Conflict(
            f"{kind}/{name} is still named by {', '.join(sorted(users)[:8])}", hint="Change or delete those first."
        )
    if kind == "Model" and name in known.released:
        raise Conflict(
            f"Model/{name} has releases, and releases stay", hint="Delete its deployment; without one it runs nowhere."
        )


def _names_it(item: AnyResource, kind: str, name: str) -> bool:
    match item:
        case Deployment(spec=spec):
            return name == spec.model if kind == "Model" else kind == "Site" and name in spec.placement.named_sites
        case Policy(spec=spec):
            if kind == "Model":
                return name in spec.match.models
            return kind == "Site" and name in {*spec.match.origin_sites, *spec.residency.sites}
        case _:
            return False


def require(held: Held | None, kind: str, name: str, existing: Iterable[str]) -> Held:
    """``held`` itself.

    Raises:
        NotFound: it is None; the nearest existing name is told.
    """
    if held is None:
        raise NotFound(f"there is no {kind}/{name}", hint=did_you_mean(name, existing))
    return held


def duplicate_free(resources: Sequence[AnyResource]) -> None:
    """Raises :class:`InvalidInput` where a name comes twice."""
    seen: set[Key] = set()
    for resource in resources:
        key = (resource.kind, resource.name)
        if key in seen:
            raise InvalidInput(f"{resource.kind}/{resource.name} is given twice", hint="Keep one of them.")
        seen.add(key)
