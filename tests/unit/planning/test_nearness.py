"""Sites without a location: near is what the network map says, kept until it clearly says otherwise; else in turn."""

import numpy as np
import pytest

from nearcast.planning.distance import UNKNOWN_S
from nearcast.planning.fleet.guidance import Guidance
from nearcast.planning.fleet.snapshot import SeenWay
from nearcast.planning.nearness import MOST_SITES, NEAR, near_sites, told
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.resources.kinds import KINDS, Site
from nearcast.resources.state import DesiredState


def site(name: str, **spec: object) -> Site:
    document = {
        "apiVersion": "nearcast.dev/v1alpha1",
        "kind": "Site",
        "metadata": {"name": name},
        "spec": {"country": "DE", **spec},
    }
    found = KINDS["Site"].model_validate(document)
    assert isinstance(found, Site)
    return found


SITES = [site(f"s{n:02}") for n in range(20)]
AT = np.random.default_rng(1).permutation(20) * 0.01
"""Sites on a line, in another order than that of their names."""
MAP_S = np.abs(AT[:, None] - AT[None])
LEARNED = tuple(SeenWay(f"s{n:02}", f"s{(n + 1) % 20:02}", 0.01, 1.0) for n in range(20))


def everywhere(sites: list[Site]) -> DesiredState:
    document = {
        "apiVersion": "nearcast.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "m"},
        "spec": {"model": "m", "version": "1", "placement": {"everywhere": True}},
    }
    return DesiredState.of([*sites, KINDS["Deployment"].model_validate(document)])


def peers(sites: list[Site], guidance: Guidance) -> dict[str, set[str]]:
    facts = FleetFacts(releases={("m", "1"): "sha256:1"})
    plans = site_plans(everywhere(sites), facts, "f", 1, guidance)
    return {name: {peer.site.name for peer in plan.peers} for name, plan in plans.items()}


def test_peers_are_those_that_are_near_by_the_map() -> None:
    near = near_sites(SITES, MAP_S, LEARNED, {})
    nearest = {f"s{n:02}" for n in np.argsort(MAP_S[0], kind="stable")[1:7]}
    assert nearest <= near["s00"].keys()
    found = peers(SITES, Guidance(near=near))
    assert nearest <= found["s00"]


def test_before_anything_was_measured_peers_are_taken_in_turn() -> None:
    assert near_sites(SITES, MAP_S, (), {}) == {}
    found = peers(SITES, Guidance())
    asked_by = {name: sum(name in others for others in found.values()) for name in found}
    assert set(asked_by.values()) == {NEAR}, "not the first of the alphabet by everybody"
    assert "s06" in found["s05"]


def test_near_sites_stay_until_others_are_clearly_nearer() -> None:
    near = near_sites(SITES, MAP_S, LEARNED, {})
    noise = MAP_S * np.random.default_rng(2).uniform(0.95, 1.05, MAP_S.shape)
    assert near_sites(SITES, noise, LEARNED, near) == near
    moved = MAP_S.copy()
    moved[0] = moved[:, 0] = np.abs(AT - 0.4)
    after = near_sites(SITES, moved, LEARNED, near)
    assert after["s00"] != near["s00"]
    assert near_sites(SITES, MAP_S, (), near) == near, "a map that was lost is no news"
    gone = [each for each in SITES if each.name not in list(near["s00"])[:1]]
    keep = [n for n, each in enumerate(SITES) if each in gone]
    assert next(iter(near["s00"])) not in near_sites(gone, MAP_S[np.ix_(keep, keep)], LEARNED, near)["s00"]


def test_locations_and_emulation_come_first() -> None:
    placed = [site(f"s{n:02}", location={"latitude": 50, "longitude": n}) for n in range(10)]
    assert near_sites(placed, MAP_S[:10, :10], LEARNED, {}) == {}
    emulated = [site("a", emulate={"roundTripMs": {"b": 5, "c": 7}}), site("b"), site("c")]
    ways = (SeenWay("a", "b", 0.005, 1.0), SeenWay("b", "c", 0.2, 1.0))
    assert near_sites(emulated, np.full((3, 3), 0.1), ways, {}).keys() == {"b", "c"}, "only these have a pair unknown"
    round_trip_s = np.array([[0.0, 0.005], [UNKNOWN_S, 0.0]])
    found = told(round_trip_s, {"a": 0, "b": 1}, {"a": {"b": 0.03, "gone": 0.01}})
    assert found.tolist() == [[0.0, 0.005], [0.03, 0.0]]


@pytest.mark.parametrize("count", [MOST_SITES + 1])
def test_what_is_decided_is_bounded(count: int) -> None:
    many = [site(f"s{n}") for n in range(count)]
    assert near_sites(many, np.zeros((count, count)), LEARNED, {}) == {}
