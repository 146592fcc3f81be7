"""What a plan is made for, and what of it changed since a decision: deployments, their releases, sites, rules.

Decides which changes of the desired state a decision is kept for, also where the guidance stays as it is: a decision
that knows nothing of a deployment cannot explain it. What nodes report is no part of it; it changes all the time, and
`decision` says which of it matters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nearcast.planning.fleet.snapshot import Snapshot

Key = tuple[str, str]
"""(kind, name)."""

_DEPLOYMENT: Final = "Deployment"


@dataclass(frozen=True, slots=True)
class Subject:
    """What one plan is made for.

    Attributes:
        specs: what users wrote of every resource; empty of a resource without fields.
        planned: deployments whose version is released. Others are not planned.
    """

    specs: Mapping[Key, Mapping[str, Any]]
    planned: frozenset[str]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Subject":
        """The subject of a plan on ``snapshot``."""
        specs = {
            (str(each["kind"]), str(each["metadata"]["name"])): each.get("spec") or {} for each in snapshot.resources
        }
        released = {(release.model, release.version) for release in snapshot.releases}
        planned = {
            name
            for (kind, name), spec in specs.items()
            if kind == _DEPLOYMENT and (spec["model"], spec["version"]) in released
        }
        return cls(specs, frozenset(planned))


def changes(before: Subject | None, after: Subject) -> Iterator[str]:
    """What is another in ``after``, one line each: deployments first. Without a subject before, deployments only."""
    planned = before.planned if before else frozenset()
    for name in sorted({*planned, *after.planned}):
        if name not in planned:
            yield f"{name}: planned from now on"
        elif name not in after.planned:
            yield f"{name}: no longer planned"
        elif before and before.specs[_DEPLOYMENT, name] != after.specs[_DEPLOYMENT, name]:
            yield f"{name}: its deployment changed"
    if before is None:
        return
    for key in sorted({*before.specs, *after.specs}):
        if key[0] != _DEPLOYMENT and (word := _change(key, before, after)):
            yield f"{key[0].lower()}/{key[1]} {word}"


def _change(key: Key, before: Subject, after: Subject) -> str:
    if key not in before.specs:
        return "is new"
    if key not in after.specs:
        return "is gone"
    return "changed" if before.specs[key] != after.specs[key] else ""
