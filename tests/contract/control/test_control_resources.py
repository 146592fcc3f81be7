"""Resources over HTTP: admission, revisions, preconditions, dry runs, history."""

from typing import Any

import pytest

Fleet = Any
pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)

Make = Any


def error(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The error in ``answer``, which has exactly the shape that every failure has."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    assert {"code", "message", "hint"} <= set(body["error"]) <= {"code", "message", "hint", "details"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    return dict(body["error"])


def test_one_apply_may_name_things_in_any_order(fleet: Fleet, make: Make) -> None:
    answer = fleet.apply(
        make.deployment("magika", "3.3", "fra"),
        make.manifest("Policy", "eu", match={"models": ["magika"]}, residency={"jurisdictions": ["EU"]}),
        make.manifest("Model", "magika"),
        make.site("fra"),
    )
    assert [(item["kind"], item["action"]) for item in answer.json()["results"]] == [
        ("Deployment", "created"),
        ("Policy", "created"),
        ("Model", "created"),
        ("Site", "created"),
    ]
    assert fleet.condition("deployments", "magika", "Accepted") == ("False", "ReleaseNotFound")
    assert fleet.condition("deployments", "magika", "Ready") == ("False", "NotAccepted")
    assert fleet.condition("models", "magika", "Released") == ("False", "NoRelease")


def test_the_same_manifests_again_change_nothing(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    before = fleet.plane.store.snapshot()
    (result,) = fleet.apply(make.site("fra", tier="edge")).json()["results"]  # edge is the default
    assert (result["action"], result["diff"]) == ("unchanged", "")
    assert fleet.plane.store.snapshot() is before


def test_a_dry_run_says_what_would_change_and_changes_nothing(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    before = fleet.plane.store.snapshot()
    results = fleet.apply(make.site("fra", "FR"), make.site("iad", "US"), dry_run=True).json()["results"]
    assert [item["action"] for item in results] == ["updated", "created"]
    assert "-  country: DE\n+  country: FR" in results[0]["diff"]
    assert fleet.plane.store.snapshot() is before
    error(fleet.call("GET", "/v1/resources/sites/iad"), 404, "not_found")
    wrong = fleet.apply(make.deployment("m", "1", "fra"), dry_run=True)
    error(wrong, 400, "invalid_input")


def test_all_or_nothing_and_every_reason_at_once(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("frankfurt"), make.manifest("Model", "magika"))
    answer = fleet.apply(
        make.site("singapore", "SG"),
        make.deployment("magica", "1", "frankfort"),
        make.manifest("Policy", "p", match={"originSites": ["singapur"]}, residency={"sites": ["frankfurt"]}),
    )
    details = error(answer, 400, "invalid_input")["details"]
    assert [(item["source"], item["field"], item["hint"]) for item in details] == [
        ("Deployment/magica", "spec.placement.sites", "Did you mean 'frankfurt'?"),
        ("Deployment/magica", "spec.model", "Did you mean 'magika'?"),
        ("Policy/p", "spec.match.originSites", "Did you mean 'singapore'?"),
    ]
    error(fleet.call("GET", "/v1/resources/sites/singapore"), 404, "not_found")


def test_fields_are_refused_with_their_manifest_named(fleet: Fleet, make: Make) -> None:
    answer = fleet.apply(make.site("fra", tire="edge"), {"kind": "Sites"}, make.site("iad", "us"))
    found = error(answer, 400, "invalid_input")
    assert [(item["source"], item["field"]) for item in found["details"]] == [
        ("Site/fra", "spec.tire"),
        ("manifest 2", "kind"),
        ("Site/iad", "spec.country"),
    ]
    assert "Did you mean 'tier'?" in found["message"]


def test_a_model_has_one_deployment(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"), make.manifest("Model", "m"), make.deployment("m", "1", "fra", name="first"))
    answer = fleet.apply(make.deployment("m", "2", "fra", name="second"))
    assert "m is deployed by Deployment/first" in error(answer, 400, "invalid_input")["message"]
    fleet.applied(make.deployment("m", "2", "fra", name="first"))


def test_what_is_still_named_cannot_go(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"), make.manifest("Model", "m"), make.deployment("m", "1", "fra"))
    for plural, name in (("sites", "fra"), ("models", "m")):
        answer = fleet.call("DELETE", f"/v1/resources/{plural}/{name}")
        assert "Deployment/m" in error(answer, 409, "conflict")["message"]
    assert fleet.call("DELETE", "/v1/resources/deployments/m").status_code == 200
    assert fleet.call("DELETE", "/v1/resources/sites/fra").status_code == 200
    assert fleet.call("DELETE", "/v1/resources/models/m").status_code == 200
    error(fleet.call("DELETE", "/v1/resources/models/m"), 404, "not_found")


def test_a_site_with_a_node_cannot_go_until_the_node_is_revoked(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    fleet.start_releases()
    fleet.join("fra")
    assert "node fra/n1" in error(fleet.call("DELETE", "/v1/resources/sites/fra"), 409, "conflict")["message"]
    assert fleet.call("DELETE", "/v1/nodes/fra/n1").status_code == 204
    assert fleet.call("DELETE", "/v1/resources/sites/fra").status_code == 200


def test_a_country_may_change(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    fleet.applied(make.site("fra", "FR"))
    assert fleet.call("GET", "/v1/resources/sites/fra").json()["spec"] == {"country": "FR"}


def test_nobody_overwrites_unseen(fleet: Fleet, make: Make) -> None:
    path = "/v1/resources/sites/fra"
    first = fleet.call("PUT", path, json=make.site("fra"), headers={"if-none-match": "*"})
    assert first.status_code == 201
    etag = first.headers["etag"]
    assert etag == fleet.call("GET", path).headers["etag"]
    error(fleet.call("PUT", path, json=make.site("fra"), headers={"if-none-match": "*"}), 409, "conflict")
    second = fleet.call("PUT", path, json=make.site("fra", "FR"), headers={"if-match": etag})
    assert second.status_code == 200
    assert second.headers["etag"] != etag
    stale = fleet.call("PUT", path, json=make.site("fra", "SG"), headers={"if-match": etag})
    assert error(stale, 409, "conflict")["hint"].startswith("Read it again")
    error(fleet.call("DELETE", path, headers={"if-match": etag}), 409, "conflict")
    error(
        fleet.call("PUT", "/v1/resources/sites/iad", json=make.site("iad"), headers={"if-match": "*"}), 409, "conflict"
    )
    assert fleet.call("DELETE", path, headers={"if-match": second.headers["etag"]}).status_code == 200


def test_a_put_must_name_what_it_puts(fleet: Fleet, make: Make) -> None:
    error(fleet.call("PUT", "/v1/resources/sites/fra", json=make.site("iad")), 400, "invalid_input")
    error(fleet.call("PUT", "/v1/resources/models/fra", json=make.site("fra")), 400, "invalid_input")


def test_history_only_grows(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    fleet.applied(make.site("fra", "FR"))
    fleet.call("DELETE", "/v1/resources/sites/fra")
    fleet.applied(make.site("fra"))
    items = fleet.call("GET", "/v1/resources/sites/fra/revisions").json()["items"]
    assert [(item["action"], item["generation"]) for item in items] == [
        ("put", 1),
        ("put", 2),
        ("delete", 3),
        ("put", 4),
    ]
    assert items[0]["revision"] == items[3]["revision"]
    assert [item["document"] and item["document"]["spec"]["country"] for item in items] == ["DE", "FR", None, "DE"]
    assert fleet.call("GET", "/v1/resources/sites/fra").json()["status"]["observedGeneration"] == 4
    error(fleet.call("GET", "/v1/resources/sites/iad/revisions"), 404, "not_found")


def test_lists_are_by_name_with_status(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("sin", "SG"), make.site("fra"), make.site("iad", "US"))
    items = fleet.call("GET", "/v1/resources/sites").json()["items"]
    assert [item["metadata"]["name"] for item in items] == ["fra", "iad", "sin"]
    assert all(list(item)[-1] == "status" for item in items)
    document = items[0]
    fleet.applied(document)  # what was read may be applied again
    assert fleet.apply(document).json()["results"][0]["action"] == "unchanged"


def test_everything_stands_after_a_restart(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"), make.manifest("Model", "m"), make.deployment("m", "1", "fra"))
    before = fleet.plane.store.snapshot()
    admin = fleet.admin
    fleet.restart()
    after = fleet.plane.store.snapshot()
    assert (after.sequence, after.state, dict(after.held)) == (before.sequence, before.state, dict(before.held))
    assert fleet.admin == admin


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "expected a body in JSON"),
        (b'{"manifests": [], "manifests": []}', "the key 'manifests' is given twice"),
        (b'{"manifests": [{"kind": "Site", "kind": "Model"}]}', "the key 'kind' is given twice"),
        (b'{"manifests": []}', "manifests: "),
        (b'{"manifests": [1]}', "manifests.0: "),
        (b'{"manifests": [{}], "dryrun": true}', "dryrun: "),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff", "expected a body in JSON"),
        (b'{"manifests": [NaN]}', "NaN"),
    ],
)
def test_bodies_that_are_no_request(fleet: Fleet, content: bytes, words: str) -> None:
    assert words in error(fleet.call("POST", "/v1/apply", content=content), 400, "invalid_input")["message"]


def test_unknown_kinds_and_paths_have_the_same_shape(fleet: Fleet) -> None:
    error(fleet.call("GET", "/v1/resources/pods"), 400, "invalid_input")
    error(fleet.call("GET", "/v1/nothing"), 404, "not_found")
    error(fleet.call("PATCH", "/v1/apply"), 405, "invalid_input")


def test_bodies_are_bounded(fleet: Fleet) -> None:
    error(fleet.call("POST", "/v1/apply", content=b" " * (1 << 20) + b"{}"), 413, "invalid_input")

    async def undeclared() -> Any:
        for _ in range(20):
            yield b" " * (1 << 20)

    error(fleet.call("POST", "/v1/releases", content=undeclared()), 413, "invalid_input")
    error(fleet.call("POST", "/v1/join", token="", content=undeclared()), 413, "invalid_input")
