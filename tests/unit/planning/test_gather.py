"""The planning problem of a fleet: hard rules as truth values, capacity of nodes that may be asked, honest priors."""

import numpy as np
import pytest

from nearcast.errors import InvalidInput
from nearcast.planning.cost import UNKNOWN_SERVICE_S
from nearcast.planning.distance import guessed_round_trip_s
from nearcast.planning.fleet.gather import READ_BYTES_PER_S, UNKNOWN_MEMORY_BYTES, gather
from nearcast.planning.fleet.problem import Problem
from nearcast.planning.fleet.snapshot import (
    SeenDemand,
    SeenFailure,
    SeenModel,
    SeenNode,
    SeenRelease,
    SeenWay,
    Snapshot,
    decode_snapshot,
)
from nearcast.planning.fleet.ways import guessed
from nearcast.resources.kinds import KINDS, Site


def document(kind: str, name: str, spec: dict[str, object]) -> dict[str, object]:
    return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


SITES = [
    document(
        "Site",
        "ashburn",
        {"country": "US", "tier": "cloud", "tenants": ["acme"], "link": {"mbps": 80}, "rates": {"price": 3600}},
    ),
    document("Site", "frankfurt", {"country": "DE", "emulate": {"roundTripMs": {"ashburn": 88, "singapore": 160}}}),
    document("Site", "singapore", {"country": "SG", "tier": "regional"}),
]


def deployed(**spec: object) -> dict[str, object]:
    return document("Deployment", "m", {"model": "m", "version": "1", "placement": {"auto": {}}, **spec})


def node(
    site: str, *models: SeenModel, connected: bool = True, draining: bool = False, workers: float = 2.0
) -> SeenNode:
    return SeenNode(site, "n", connected, draining, workers, 1 << 30, "cpu", models)


def problem_of(*resources: dict[str, object], **parts: object) -> Problem:
    given = {"releases": (SeenRelease("m", "1", 100_000_000),), **parts}
    return gather(Snapshot(fleet="f", at="", resources=(*SITES, *resources), **given)).problem  # type: ignore[arg-type]


def test_tenants_and_licences_and_policies_close_sites() -> None:
    assert problem_of(deployed()).eligible[:, 0].tolist() == [False, True, True]
    assert problem_of(deployed(tenant="acme")).eligible[:, 0].tolist() == [True, True, True]
    assert problem_of(deployed(tenant="other")).eligible[:, 0].tolist() == [False, True, True]
    licence = document("Model", "m", {"tiers": ["regional"]})
    assert problem_of(deployed(), licence).eligible[:, 0].tolist() == [False, False, True]
    eu = document("Policy", "eu", {"residency": {"jurisdictions": ["EU"]}})
    assert problem_of(deployed(), eu).eligible[:, 0].tolist() == [False, True, False]


def test_named_sites_are_pinned_and_chosen_ones_are_not() -> None:
    auto = problem_of(deployed(placement={"auto": {"countries": ["DE", "SG"], "minSites": 2, "maxSites": 2}}))
    assert (auto.pinned.any(), auto.least.tolist(), auto.most.tolist()) == (False, [2], [2])
    named = problem_of(deployed(placement={"sites": ["singapore", "ashburn"]}))
    assert named.pinned[:, 0].tolist() == [False, False, True], "a site of other tenants stays closed"
    assert not (named.pinned & ~named.eligible).any()


def test_capacity_is_that_of_nodes_that_may_be_asked() -> None:
    nodes = (node("frankfurt"), node("frankfurt"), node("singapore", draining=True), node("ashburn", connected=False))
    found = problem_of(deployed(), nodes=nodes)
    assert found.workers.tolist() == [0.0, 4.0, 0.0]
    assert found.memory_bytes.tolist() == [UNKNOWN_MEMORY_BYTES, 1 << 30, UNKNOWN_MEMORY_BYTES]
    assert not found.open_from(1, 0)[[0, 2]].any(), "a silent site is no place"
    assert problem_of(deployed(), nodes=(node("frankfurt", workers=0.0),)).workers.tolist() == [0.0, 1.0, 0.0]


def test_service_times_measured_scaled_and_guessed() -> None:
    other = document("Deployment", "o", {"model": "o", "version": "1", "placement": {"auto": {}}})
    releases = (SeenRelease("m", "1", 100_000_000), SeenRelease("o", "1", 1))
    nothing = problem_of(deployed())
    assert nothing.service_s[:, 0] == pytest.approx(UNKNOWN_SERVICE_S + 1e8 / READ_BYTES_PER_S)
    fast = node("frankfurt", SeenModel("m", "1", True, 0.02, 0.01, 7, 3.0, 0.05), SeenModel("o", "1", True, 0.1, 0.1))
    slow = node("singapore", SeenModel("o", "1", True, 0.4, 0.4))
    found = problem_of(deployed(), other, nodes=(fast, slow), releases=releases)
    assert found.service_s[1, 0] == pytest.approx(0.02)
    assert found.work_s[1, 0] == pytest.approx(0.01)
    assert found.service_s[2, 0] == pytest.approx(0.02 * 0.4 / 0.25), "as slow as with the model that was measured"
    assert found.full_s[1].tolist() == [0.05, 0.1], "where nothing is told of full batches, service does not grow"
    assert found.full_s[2, 0] == pytest.approx(0.05 * 0.4 / 0.25)
    assert found.footprint_bytes[0] == 7
    assert found.warm[:, 0].tolist() == [False, True, False]
    stale = problem_of(deployed(), nodes=(node("frankfurt", SeenModel("m", "0", True, 9.0, 9.0)),))
    assert not stale.warm.any()
    assert stale.service_s.max() < 1.0


def test_a_site_that_could_not_load_the_version_is_no_place_for_it() -> None:
    nodes = (node("frankfurt"), node("singapore"))
    failed = problem_of(deployed(), nodes=nodes, failures=(SeenFailure("frankfurt", "m", "1"),))
    assert failed.open_from(2, 0).tolist() == [False, False, True]
    earlier = problem_of(deployed(), nodes=nodes, failures=(SeenFailure("frankfurt", "m", "0"),))
    assert earlier.open_from(2, 0).tolist() == [False, True, True]


def test_a_version_that_fails_wherever_it_is_tried_is_not_carried_on_to_other_sites() -> None:
    nodes = (node("frankfurt"), node("singapore"))
    both = tuple(SeenFailure(site, "m", "1") for site in ("frankfurt", "singapore"))
    able = np.isfinite(problem_of(deployed(), nodes=nodes, failures=both).service_s[:, 0])
    assert able.all(), "no site of those that may hold it is left: the version is at fault, not they"
    loads = (node("frankfurt", SeenModel("m", "1", True)), node("singapore"))
    able = np.isfinite(problem_of(deployed(), nodes=loads, failures=both).service_s[:, 0])
    assert able.tolist() == [True, False, False], "one that holds it shows that it can be loaded"
    told = (node("frankfurt", SeenModel("m", "1", False, 0.02, 0.01)), node("singapore"))
    able = np.isfinite(problem_of(deployed(), nodes=told, failures=both).service_s[:, 0])
    assert able.tolist() == [True, False, False], "so does one that measured it"


def test_demand_payload_targets_and_prices() -> None:
    demand = (
        SeenDemand("frankfurt", "m", 3.0, 1000, 500),
        SeenDemand("ashburn", "m", 1.0, 0, 0),
        SeenDemand("x", "m", 1),
    )
    found = problem_of(deployed(latencyTarget="30ms", tenant="acme", weights={"price": 2.0}), demand=demand)
    assert found.demand_per_s[:, 0].tolist() == [1.0, 3.0, 0.0]
    assert found.payload_bytes[0] == pytest.approx(4500 / 4)
    assert found.target_s[0] == pytest.approx(0.03)
    assert found.bytes_per_s.tolist() == [10_000_000, np.inf, np.inf]
    assert found.extra_s[:, 0] == pytest.approx([2.0 * found.work_s[0, 0], 0.0, 0.0])


@pytest.mark.parametrize(
    ("objective", "rate_per_s", "weight"),
    [
        ("batch", 100.0, 1.0),  # half of the fleet is busy: nobody need give way
        ("batch", 160.0, 0.1**0.5),
        ("batch", 300.0, 0.1),
        ("interactive", 300.0, 1.0),
        ("realtime", 100.0, 4.0),
    ],
)
def test_batches_give_way_as_room_gets_scarce(objective: str, rate_per_s: float, weight: float) -> None:
    told = node("frankfurt", SeenModel("m", "1", True, 0.02, 0.01))
    found = problem_of(deployed(objective=objective), nodes=(told,), demand=(SeenDemand("ashburn", "m", rate_per_s),))
    assert found.weight[0] == pytest.approx(weight)
    assert found.urgency[0] == {"batch": 0.1, "interactive": 1.0, "realtime": 4.0}[objective]


def test_round_trips_measured_emulated_guessed_or_cut() -> None:
    found = problem_of(deployed()).round_trip_s
    assert found[0, 1] == found[1, 0] == 0.088
    assert found.diagonal().tolist() == [0.0, 0.0, 0.0]
    ways = (SeenWay("ashburn", "frankfurt", 0.07, 1.0), SeenWay("singapore", "ashburn", 0.2, 1.0, False))
    found = problem_of(deployed(), ways=ways).round_trip_s
    assert found[0, 1] == found[1, 0] == 0.07
    assert found[2, 0] == np.inf
    assert np.isfinite(found[0, 2])


def test_pairs_that_nobody_measured_are_estimated_with_their_uncertainty() -> None:
    learned = tuple(
        SeenWay(one, other, seconds, 60.0)
        for one, other, seconds in (("ashburn", "frankfurt", 0.09), ("frankfurt", "singapore", 0.2))
    )
    guess = problem_of(deployed()).round_trip_s
    found = problem_of(deployed(), learned=learned).round_trip_s
    assert found[0, 2] != guess[0, 2]
    assert np.isfinite(found).all()
    assert found[0, 1] == 0.088, "an emulated pair stays as it is"
    assert found.diagonal().tolist() == [0.0, 0.0, 0.0]


def test_guesses_are_those_for_one_pair() -> None:
    places = [(50.1, 8.7), (1.35, 103.8), None]
    sites = [
        KINDS["Site"].model_validate(
            document(
                "Site",
                f"s{n}",
                {"country": "DE"} | ({"location": {"latitude": at[0], "longitude": at[1]}} if at else {}),
            )
        )
        for n, at in enumerate(places)
    ]
    found = guessed([site for site in sites if isinstance(site, Site)])
    one, other, lost = (site.spec.location for site in sites if isinstance(site, Site))
    assert found[0, 1] == pytest.approx(guessed_round_trip_s(one, other))
    assert found[0, 2] == guessed_round_trip_s(one, lost)


def test_what_is_not_released_is_not_planned() -> None:
    assert problem_of(deployed(), releases=()).models == ()


def test_a_snapshot_is_read_strictly() -> None:
    with pytest.raises(InvalidInput, match="expected a snapshot"):
        decode_snapshot(b"{}")
    with pytest.raises(InvalidInput, match="schema"):
        decode_snapshot(b'{"fleet": "f", "at": "", "resources": [], "schema": "other"}')
    with pytest.raises(InvalidInput, match="resources"):
        decode_snapshot(b'{"fleet": "f", "at": "", "resources": [{"kind": "Moon"}]}')
