"""What a decision is kept for although sites and shares stay as they are."""

from typing import Any

from nearcast.planning.fleet.snapshot import SeenDemand, SeenRelease, Snapshot
from nearcast.planning.fleet.subject import Subject, changes


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
    return {**found, "spec": spec} if spec else found


def subject(*resources: dict[str, Any], version: str = "1", **parts: Any) -> Subject:
    return Subject.of(
        Snapshot(fleet="f", at="", resources=resources, releases=(SeenRelease("m", version, 9),), **parts)
    )


DEPLOYMENT = document("Deployment", "d", model="m", version="1", placement={"everywhere": True})
SITE = document("Site", "a", country="DE")
MODEL = document("Model", "m")


def test_deployments_sites_and_rules_that_come_change_and_go() -> None:
    before = subject(DEPLOYMENT, SITE, MODEL)
    assert list(changes(None, before)) == ["d: planned from now on"]
    assert list(changes(before, subject(MODEL, SITE, DEPLOYMENT))) == []
    moved = document("Deployment", "d", model="m", version="1", placement={"sites": ["a"]})
    after = subject(moved, document("Site", "a", country="FR"), document("Site", "b", country="DE"))
    assert list(changes(before, after)) == [
        "d: its deployment changed",
        "model/m is gone",
        "site/a changed",
        "site/b is new",
    ]


def test_a_deployment_is_planned_once_its_version_is_released() -> None:
    waiting = subject(DEPLOYMENT, version="0")
    assert (list(changes(None, waiting)), waiting.planned) == ([], frozenset())
    assert list(changes(waiting, subject(DEPLOYMENT))) == ["d: planned from now on"]
    assert list(changes(subject(DEPLOYMENT), waiting)) == ["d: no longer planned"]


def test_what_nodes_report_is_no_part_of_it() -> None:
    assert list(changes(subject(DEPLOYMENT), subject(DEPLOYMENT, demand=(SeenDemand("a", "m", 9.0),)))) == []
