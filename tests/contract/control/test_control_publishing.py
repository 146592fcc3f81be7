"""Releases and plans: what is published when, what conditions say of it, and what nodes may fetch."""

import base64
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from nearcast.errors import IntegrityError, Unavailable

Fleet = Any
pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)

Make = Any


@pytest.fixture
def released(fleet: Fleet, make: Make) -> Fleet:
    """Two sites with a node each, and m@1 released and deployed to fra."""
    fleet.applied(make.site("fra"), make.site("iad", "US"))
    fleet.start_releases()
    fleet.push("m", "1")
    fleet.applied(make.deployment("m", "1", "fra"))
    fleet.nodes = {site: fleet.join(site) for site in ("fra", "iad")}
    return fleet


def settle(fleet: Fleet, **models: list[Any]) -> None:
    """Let every node report, then publish, until nothing changes: what agents and loop do together."""
    for _ in range(4):
        for site, node in fleet.nodes.items():
            plan = fleet.plane.plans.latest(site)
            version = plan.version if plan else 0
            node.report(models=models.get(site, []), plan_version=version, routed_version=version)
        fleet.controllers.step()
    for site, node in fleet.nodes.items():
        version = fleet.plane.plans.latest(site).version
        node.report(models=models.get(site, []), plan_version=version, routed_version=version)


def ready(fleet: Fleet) -> tuple[str, str]:
    return tuple(fleet.condition("deployments", "m", "Ready"))  # type: ignore[return-value]


def test_a_push_makes_the_model(fleet: Fleet, make: Make) -> None:
    fleet.start_releases()
    fleet.push("m", "1")
    document = fleet.call("GET", "/v1/resources/models/m").json()
    assert [item["version"] for item in document["status"]["details"]["releases"]] == ["1"]
    assert fleet.condition("models", "m", "Released") == ("True", "Released")
    (item,) = fleet.call("GET", "/v1/releases").json()["items"]
    assert (item["model"], item["version"], item["manifest"]["entrypoint"]) == ("m", "1", "model.onnx")
    answer = fleet.call("DELETE", "/v1/resources/models/m")
    assert answer.status_code == 409


def test_a_crash_between_release_and_model_is_made_good(fleet: Fleet, make: Make) -> None:
    fleet.start_releases()
    body = fleet.proposal("m", "1")
    fleet.plane.blobs.put(make.release("m", "1").files[0].digest, [make.weights])
    targets, manifest = (base64.b64decode(body[name]) for name in ("targets", "manifest"))
    fleet.plane.releases.accept(targets, manifest, body["expected_version"])
    fleet.restart()  # before the Model was made
    assert fleet.call("GET", "/v1/resources/models/m").status_code == 404
    fleet.controllers.step()
    assert fleet.call("GET", "/v1/resources/models/m").status_code == 200


def test_releases_are_refused_unless_a_releaser_signed_them_and_their_bytes_are_here(fleet: Fleet, make: Make) -> None:
    answer = fleet.call("GET", "/v1/releases/targets")
    assert answer.status_code == 404
    fleet.start_releases()
    body = fleet.proposal("m", "1")
    assert fleet.call("POST", "/v1/releases", json=body).status_code == 404  # the blob is missing
    digest = make.release("m", "1").files[0].digest
    assert fleet.call("HEAD", f"/v1/blobs/{digest}").status_code == 404
    answer = fleet.call("PUT", f"/v1/blobs/{digest}", content=make.weights[:-1] + b"!")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "integrity")
    assert fleet.call("HEAD", f"/v1/blobs/{digest}").status_code == 404
    assert fleet.call("PUT", f"/v1/blobs/{digest}", content=make.weights).json()["size_bytes"] == len(make.weights)
    assert fleet.call("PUT", f"/v1/blobs/{digest}", content=make.weights).status_code == 200
    assert fleet.call("HEAD", f"/v1/blobs/{digest}").headers["x-nearcast-blob-bytes"] == str(len(make.weights))
    forged = dict(body, targets=fleet_signed_by(fleet, body, CryptoSigner.generate_ed25519()))
    answer = fleet.call("POST", "/v1/releases", json=forged)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "integrity")
    assert fleet.call("POST", "/v1/releases", json=body).json() == {"version": 2}
    assert fleet.call("POST", "/v1/releases", json=body).json() == {"version": 2}  # a lost answer
    stale = dict(body, targets=body["manifest"])
    assert fleet.call("POST", "/v1/releases", json=stale).status_code == 409
    assert fleet.call("POST", "/v1/releases", json=dict(body, targets="%")).status_code == 400


def fleet_signed_by(fleet: Fleet, body: dict[str, Any], signer: CryptoSigner) -> str:
    """The list of ``body``, signed by somebody else."""
    metadata = Metadata[Targets].from_bytes(base64.b64decode(body["targets"]))
    metadata.sign(signer)
    return base64.b64encode(metadata.to_bytes()).decode()


def test_a_deployment_waits_for_its_release(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"), make.manifest("Model", "m"), make.deployment("m", "1", "fra"))
    fleet.controllers.step()
    assert fleet.plane.plans.latest("fra").models == ()
    fleet.start_releases()
    fleet.push("m", "1")
    fleet.controllers.step()
    assert [item.version for item in fleet.plane.plans.latest("fra").models] == ["1"]
    assert fleet.condition("deployments", "m", "Accepted") == ("True", "Placed")


def test_only_plans_that_changed_are_published_and_versions_rise_fleet_wide(released: Fleet, make: Make) -> None:
    released.controllers.step()
    before = {site: released.plane.plans.latest(site) for site in ("fra", "iad")}
    assert released.controllers.step() == ()
    released.applied(make.manifest("Model", "m", description="said anew"))
    assert released.controllers.step() == ()  # nothing that a site would do differently
    released.applied(make.site("sin", "SG"))
    assert released.controllers.step() == ("fra", "iad", "sin")  # sin may ask fra, and all measure one another
    near = make.manifest("Site", "iad", country="US", emulate={"roundTripMs": {"sin": 5}})
    known = released.plane.plans.latest("fra")
    released.applied(near)
    assert released.controllers.step() == ("iad", "sin")  # nothing is new for fra
    assert {released.plane.plans.latest(site).version for site in ("iad", "sin")} == {before["iad"].version + 2}
    assert released.plane.plans.latest("fra") == known
    released.restart()
    assert released.controllers.step() == ()
    released.applied(make.deployment("m", "1"))
    assert released.controllers.step() == ("fra", "iad", "sin")
    assert {released.plane.plans.latest(site).version for site in ("fra", "iad", "sin")} == {before["iad"].version + 3}


def test_a_publication_cut_short_is_finished_after_a_restart(
    released: Fleet, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.controllers.step()
    first = released.plane.plans.latest("fra").version
    released.applied(make.deployment("m", "1"))
    publish = type(released.plane.plans).publish

    def fails_at_iad(repository: Any, plan: Any) -> None:
        if plan.site.name == "iad":
            raise Unavailable("the store went away")
        publish(repository, plan)

    monkeypatch.setattr(type(released.plane.plans), "publish", fails_at_iad)
    with pytest.raises(Unavailable):
        released.controllers.step()
    monkeypatch.undo()
    released.restart()
    assert released.controllers.step() == ("iad",)
    assert released.plane.plans.latest("fra").version == first + 1
    assert released.plane.plans.latest("iad").version == first + 2


@pytest.mark.parametrize("seen_by", ["restart", "renewal"])
def test_a_damaged_plan_is_published_anew_and_is_no_trouble_to_others(
    released: Fleet, make: Make, seen_by: str
) -> None:
    released.controllers.step()
    version = released.plane.plans.latest("iad").version
    store = released.plane.objects
    store.replace("plans/iad/metadata/timestamp.json", b'{"signatures": [')
    if seen_by == "restart":
        released.restart()
    else:
        released.controllers.renew()
    assert released.call("GET", "/v1/resources/sites").status_code == 200
    assert released.call("GET", "/v1/status").status_code == 200
    assert released.controllers.step() == ("iad",)
    assert released.plane.plans.latest("iad").version > version
    assert released.controllers.step() == ()


def test_a_damaged_list_of_releases_does_not_keep_plans_from_being_renewed(released: Fleet, make: Make) -> None:
    released.controllers.step()
    before = released.plane.objects.read("plans/iad/metadata/timestamp.json")
    released.plane.objects.replace("releases/metadata/2.targets.json", b"{")
    released.pass_time(5 * 24 * 3600)
    with pytest.raises(IntegrityError, match="releases"):
        released.controllers.renew()
    assert released.plane.objects.read("plans/iad/metadata/timestamp.json") != before


def test_ready_means_served_where_placed_and_routed_everywhere(released: Fleet, make: Make) -> None:
    nodes = released.nodes
    assert ready(released) == ("False", "NoSiteConnected")
    nodes["fra"].report()
    nodes["iad"].report()
    assert ready(released) == ("False", "Progressing")
    nodes["fra"].report(models=[make.ready("m", "1", "fetching")])  # how large it is, is not known yet
    document = released.call("GET", "/v1/resources/deployments/m").json()
    assert "fra: n1 is fetching" in document["status"]["conditions"][1]["message"]
    assert "bytes" not in document["status"]["conditions"][1]["message"]
    nodes["fra"].report(models=[make.ready("m", "1", "fetching", done_bytes=3, total_bytes=9)])
    document = released.call("GET", "/v1/resources/deployments/m").json()
    assert "fra: n1 is fetching (3 of 9 bytes)" in document["status"]["conditions"][1]["message"]
    bad = make.ready("m", "1", "failed", reason="BadDigest", message="blob sha256:00… is not what was signed")
    nodes["fra"].report(models=[bad])
    assert ready(released) == ("False", "Failed")
    nodes["fra"].report(models=[make.ready("m", "1")])
    assert ready(released) == ("False", "Routing")  # no plan is published yet
    released.controllers.step()
    assert ready(released) == ("False", "Routing")  # no gateway has accepted it
    settle(released, fra=[make.ready("m", "1")])
    assert ready(released) == ("True", "Serving")


def test_other_changes_do_not_make_a_deployment_unready(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    released.applied(make.site("sin", "SG"))
    assert ready(released) == ("True", "Serving")
    released.push("other", "1")
    released.applied(make.deployment("other", "1", "iad"))
    assert ready(released) == ("True", "Serving")
    released.controllers.step()
    assert ready(released) == ("True", "Serving")


def test_a_new_version_is_not_ready_before_it_is(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    released.push("m", "2")
    released.applied(make.deployment("m", "2", "fra"))
    assert ready(released) == ("False", "Progressing")  # at once, not after the next pass
    settle(released, fra=[make.ready("m", "1")])
    assert ready(released) == ("False", "Progressing")
    settle(released, fra=[make.ready("m", "1", "draining"), make.ready("m", "2")])
    assert ready(released) == ("True", "Serving")


def test_a_move_is_ready_when_the_old_site_may_let_go(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    released.applied(make.deployment("m", "1", "iad"))
    released.controllers.step()
    assert [item.version for item in released.plane.plans.latest("fra").models] == ["1"]  # make before break
    settle(released, fra=[make.ready("m", "1")], iad=[make.ready("m", "1")])
    assert released.plane.plans.latest("fra").models == ()
    assert ready(released) == ("True", "Serving")


def test_a_silent_gateway_is_not_waited_for(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    released.pass_time(61)
    version = released.plane.plans.latest("fra").version
    released.nodes["fra"].report(models=[make.ready("m", "1")], plan_version=version, routed_version=version)
    assert ready(released) == ("True", "Serving")


def test_residency_is_told(released: Fleet, make: Make) -> None:
    released.applied(make.manifest("Policy", "us-only", match={"models": ["m"]}, residency={"countries": ["US"]}))
    assert released.condition("deployments", "m", "Accepted") == ("False", "ResidencyRefused")
    released.controllers.step()
    assert released.plane.plans.latest("fra").models == ()
    rule = {"models": ["m"], "originSites": ["iad"]}
    released.applied(make.manifest("Policy", "us-only", match=rule, residency={"countries": ["US"]}))
    document = released.call("GET", "/v1/resources/deployments/m").json()
    accepted = document["status"]["conditions"][0]
    assert (accepted["status"], accepted["message"]) == (
        "True",
        "on fra; requests that enter at iad are refused by residency",
    )


def test_a_policy_is_enforced_once_every_connected_gateway_has_its_rule(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    released.applied(make.manifest("Policy", "eu", residency={"jurisdictions": ["EU"]}))
    assert released.condition("policies", "eu", "Enforced") == ("False", "Routing")
    settle(released, fra=[make.ready("m", "1")])
    assert released.condition("policies", "eu", "Enforced") == ("True", "Routed")
    released.applied(make.manifest("Policy", "eu", residency={"countries": ["FR"]}))
    assert released.condition("policies", "eu", "Enforced") == ("False", "Routing"), "the old rule is not the new one"


def test_explain(released: Fleet, make: Make) -> None:
    settle(released, fra=[make.ready("m", "1")])
    answer = released.call("GET", "/v1/route/explain?model=m&site=iad").json()
    assert (answer["verdict"], answer["places"][0]["site"]) == ("routed", "fra")
    wrong = released.call("GET", "/v1/route/explain?model=mm&site=iad").json()["error"]
    assert (wrong["code"], wrong["hint"]) == ("not_found", "Did you mean 'm'?")
    assert released.call("GET", "/v1/route/explain?model=m&site=ida").json()["error"]["hint"] == "Did you mean 'iad'?"
    assert released.call("GET", "/v1/route/explain?model=m").json()["error"]["code"] == "invalid_input"


def test_a_node_reads_releases_blobs_and_its_own_plan(released: Fleet, make: Make) -> None:
    released.controllers.step()
    node = released.nodes["fra"]
    own = "/repository/plans/fra/metadata/timestamp.json"
    first = node.get(own)
    assert first.status_code == 200
    assert node.get(own, **{"if-none-match": first.headers["etag"]}).status_code == 304
    assert node.get(own, **{"if-none-match": '"other"'}).status_code == 200
    assert node.get("/repository/releases/metadata/1.root.json").status_code == 200
    answer = node.get("/repository/plans/iad/metadata/timestamp.json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert released.call("GET", "/repository/plans/iad/metadata/timestamp.json").status_code == 200
    assert node.get("/repository/plans/fra/metadata/99.root.json").status_code == 404


def test_an_etag_changes_with_its_file(released: Fleet, make: Make) -> None:
    released.controllers.step()
    path = "/repository/plans/fra/metadata/timestamp.json"
    before = released.nodes["fra"].get(path).headers["etag"]
    released.applied(make.deployment("m", "1"))
    released.controllers.step()
    assert released.nodes["fra"].get(path, **{"if-none-match": before}).status_code == 200


def test_blobs_by_range(released: Fleet, make: Make) -> None:
    digest = make.release("m", "1").files[0].digest.removeprefix("sha256:")
    path = f"/repository/blobs/sha256/{digest[:2]}/{digest}"
    node = released.nodes["iad"]
    size = len(make.weights)
    whole = node.get(path)
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, make.weights, str(size))
    assert node.get(path, **{"if-none-match": whole.headers["etag"]}).status_code == 304
    for asked, start, end in (("bytes=10-", 10, size - 1), ("bytes=0-9", 0, 9), ("bytes=7-99999999", 7, size - 1)):
        part = node.get(path, range=asked)
        assert (part.status_code, part.content) == (206, make.weights[start : end + 1])
        assert part.headers["content-range"] == f"bytes {start}-{end}/{size}"
    assert node.get(path, range=f"bytes={size}-").status_code == 416
    assert node.get(path, range="bytes=-5").status_code == 200
    assert node.get(path, range="chapters=1-2").content == make.weights


@pytest.mark.parametrize(
    "path",
    [
        "../control.db",
        "..%2Fcontrol.db",
        "releases/../../admin.token",
        "releases/metadata/../../../admin.token",
        "releases/metadata/..%2f..%2f..%2fadmin.token",
        "plans/fra/../iad/metadata/timestamp.json",
        "plans/fra/..%2fiad/metadata/timestamp.json",
        "plans/fra%2f..%2fiad/metadata/timestamp.json",
        "plans/fra/metadata/%2e%2e/%2e%2e/iad/metadata/timestamp.json",
        "/etc/passwd",
        "%2fetc/passwd",
        "blobs/sha256/zz/" + "0" * 64,
        "blobs/sha256/00/" + "0" * 63 + "/",
        ".incoming/x",
        "releases/metadata/.hidden.json",
        "releases/metadata/a\\b.json",
        "releases/metadata/a%00.json",
        "releases/metadata/1.root.json%0ax",
        "",
        "plans",
        "plans/fra",
    ],
)
def test_no_path_leads_out_of_the_repository(released: Fleet, path: str) -> None:
    released.controllers.step()
    answer = released.nodes["fra"].get(f"/repository/{path}")
    assert answer.status_code in {403, 404}, answer.text
    assert "nca_" not in answer.text


def test_signatures_are_renewed_before_they_end(released: Fleet) -> None:
    released.controllers.step()
    timestamp = "/repository/plans/fra/metadata/timestamp.json"
    before = released.call("GET", timestamp).json()["signed"]
    released.pass_time(5 * 24 * 3600)
    released.controllers.renew()
    after = released.call("GET", timestamp).json()["signed"]
    assert after["expires"] > before["expires"]
    assert after["version"] > before["version"]
    releases = released.call("GET", "/repository/releases/metadata/timestamp.json").json()["signed"]
    assert releases["expires"] == after["expires"]


def test_the_end_of_the_list_of_releases_is_warned_of_in_time(
    released: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    released.pass_time(334 * 24 * 3600)
    released.controllers.renew()
    assert "the list of releases ends" not in caplog.text
    released.pass_time(2 * 24 * 3600)
    released.controllers.renew()
    assert "the list of releases ends" in caplog.text


def test_sites_are_planned_to_measure_others_that_they_never_ask(released: Fleet, make: Make) -> None:
    released.applied(make.site("sin", "SG"))
    released.nodes["sin"] = released.join("sin")
    settle(released)
    plans = {site: released.plane.plans.latest(site) for site in released.nodes}
    models = {(site, peer.site.name): bool(peer.models) for site, plan in plans.items() for peer in plan.peers}
    assert models == {
        ("fra", "iad"): False,
        ("fra", "sin"): False,
        ("iad", "fra"): True,
        ("iad", "sin"): False,
        ("sin", "fra"): True,
        ("sin", "iad"): False,
    }
