"""The event loop: queues against formulas, spilling, failures, repeatability."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nearcast.twin.compare import Stage, run_policy, set_up
from nearcast.twin.measures import Times, figures, times
from nearcast.twin.names import OURS, RIVALS
from nearcast.twin.outcome import CLOSED, LOST, REFUSED, Outcome
from nearcast.twin.place import Order
from nearcast.twin.policies import POLICIES, Candidates
from nearcast.twin.simulation import Run
from unit.twin.tiny import document, loaded, model, named, stage


def one_place(load: float, noise: float) -> Stage:
    """One worker, Poisson arrivals, all of them local: M/G/1."""
    spec: dict[str, Any] = {
        "durationS": 2000,
        "warmUpS": 50,
        "sites": [{"named": [named("berlin")], "node": "one"}],
        "nodes": {"one": {"workers": 1, "memoryGb": 8}},
        "models": [{**model(noise=noise, room=100_000), "service": {"one": [[1, 10.0]]}}],
        "demand": {"load": load},
    }
    return stage(**spec)


@pytest.mark.parametrize(("load", "noise"), [(0.5, 0.0), (0.8, 0.0), (0.7, 1.0)])
def test_waiting_is_that_of_the_formula_for_one_server(load: float, noise: float) -> None:
    """Pollaczek and Khinchine: W = rho s (1 + c^2) / (2 (1 - rho)); c = 0 is M/D/1."""
    here = one_place(load, noise)
    outcome, _ = run_policy(here, "nearest")
    wait_s = float(outcome.wait_s.mean())
    assert wait_s == pytest.approx(load * 0.010 * (1 + noise**2) / (2 * (1 - load)), rel=0.08)


def test_little_s_law_and_the_utilization_hold() -> None:
    here = one_place(0.7, 0.5)
    outcome, world = run_policy(here, "nearest")
    per_s = len(here.workload) / here.spec.duration_s
    in_service = per_s * float(outcome.service_s.mean())
    found = figures(outcome, world, here.workload, here.spec)
    assert in_service == pytest.approx(found.utilization_mean, rel=0.01)
    assert found.utilization_mean == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize("name", [OURS, *POLICIES])
def test_the_same_seed_gives_the_same_result_bit_for_bit(name: str) -> None:
    failures = [{"atS": 6, "lastsS": 4, "sites": ["paris"]}]
    one, other = (run_policy(stage(failures=failures), name)[0] for _ in range(2))
    assert one.time_s.tobytes() == other.time_s.tobytes()
    assert one.place.tobytes() == other.place.tobytes()


def test_another_seed_gives_other_requests() -> None:
    value = loaded(document())
    assert len(set_up(value, seed=1).workload) != len(set_up(value, seed=2).workload)


def test_all_policies_see_the_same_requests() -> None:
    here = stage()
    lengths = {len(run_policy(here, name)[0].place) for name in ("nearest", "central", "round-robin")}
    assert lengths == {len(here.workload)}


class _Fixed:
    """Every request tries the same places."""

    name, cyclic = "fixed", False

    def __init__(self, order: tuple[int, ...]) -> None:
        self._order = order

    def begin(self, moment: Any) -> None:
        for row in moment.routes:
            row[:] = [((1.0,), (Order(self._order),)) for _ in row]

    def step(self, moment: Any) -> None:
        pass


def fixed(here: Stage, order: tuple[int, ...]) -> Outcome:
    return Run(here.world, here.workload, here.outages, here.spec, _Fixed(order)).run()


def test_a_full_place_spills_in_the_order_and_each_hop_costs_its_round_trip() -> None:
    here = stage(demand={"ratePerS": 1500}, network={"jitter": 0}, durationS=6, warmUpS=1, models=[model(noise=0)])
    outcome = fixed(here, (0, 1, 2))
    round_trip_s = here.world.round_trip_s
    from_paris = here.workload.origin == 1
    first, second, third = ((outcome.place == place) & from_paris for place in (0, 1, 2))
    assert first.any()
    assert second.any()
    assert third.any()
    assert set(outcome.attempts[first]) == {1}
    assert set(outcome.attempts[second]) == {2}
    assert set(outcome.attempts[third]) == {3}
    hop_s = round_trip_s[1, 0]
    assert outcome.network_s[first].min() == pytest.approx(hop_s, abs=1e-4)
    assert outcome.network_s[second].min() == pytest.approx(hop_s, abs=1e-4)
    assert outcome.network_s[third].min() == pytest.approx(hop_s + round_trip_s[1, 2], abs=1e-4)
    assert (outcome.place == REFUSED).any()


def test_an_idle_answer_takes_the_round_trip_the_transfer_and_the_service() -> None:
    sites = [
        {"named": [named("berlin")], "node": "box", "mbps": 8},
        {"named": [named("newyork")], "node": "box", "tier": "cloud", "demand": False, "mbps": 1000},
    ]
    here = stage(sites=sites, demand={"ratePerS": 1}, network={"jitter": 0}, models=[model(noise=0)])
    outcome = fixed(here, (1,))
    expected_s = here.world.round_trip_s[0, 1] + (1000 + 100) / 1e6 + 0.010
    assert outcome.time_s == pytest.approx(np.full(len(outcome.time_s), expected_s))
    assert set(outcome.wan_bytes) == {1100.0}


def test_a_lost_site_costs_its_answers_until_it_is_known_and_others_take_over() -> None:
    here = stage(failures=[{"atS": 8, "lastsS": 6, "sites": ["berlin"]}])
    outcome, _ = run_policy(here, "nearest-spill")
    at_s, origin = here.workload.at_s, here.workload.origin
    berlin = origin == 0
    doorless = berlin & (at_s >= 8.25) & (at_s < 11)
    assert set(outcome.place[doorless]) == {LOST}
    moved = berlin & (at_s >= 11.25) & (at_s < 14)
    assert set(outcome.entered[moved]) == {1}
    assert (outcome.place[moved] >= 1).all()
    back = berlin & (at_s >= 18)
    assert set(outcome.entered[back]) == {0}
    assert (outcome.place[(at_s >= 8) & (at_s < 14)] != 0).all()


def test_a_cut_way_is_noticed_by_a_timeout_first_and_avoided_later() -> None:
    here = stage(failures=[{"atS": 8, "lastsS": 10, "link": ["berlin", "paris"]}])
    outcome = fixed(here, (1, 2))
    berlin = (here.workload.origin == 0) & (here.workload.at_s > 8) & (here.workload.at_s < 17)
    assert set(outcome.place[berlin]) <= {2, LOST, REFUSED}
    assert outcome.network_s[berlin].max() >= 1.0


def test_an_answer_on_its_way_is_missed_where_the_way_breaks() -> None:
    slow = [model(ms=3000, noise=0, room=50)]
    failures = [{"atS": 5, "lastsS": 5, "link": ["berlin", "paris"]}]
    here = stage(models=slow, demand={"ratePerS": 1}, failures=failures, network={"jitter": 0})
    outcome = fixed(here, (1, 2))
    caught = (here.workload.origin == 0) & (here.workload.at_s > 2.5) & (here.workload.at_s < 4.9)
    assert caught.any()
    assert set(outcome.place[caught]) == {2}
    assert (outcome.time_s[caught] > 7.0).all()


def test_no_place_at_all_is_closed() -> None:
    here = stage()
    nowhere = replace(here, placed=np.zeros_like(here.placed))
    assert set(run_policy(nowhere, "nearest")[0].place) == {CLOSED}


def test_stale_reports_are_as_old_as_the_telemetry() -> None:
    here = stage(telemetry={"everyS": 1.0, "ageS": 5.0})

    class Watching:
        name, cyclic = "watching", False
        ages: list[float] = []  # noqa: RUF012

        def begin(self, moment: Any) -> None:
            pass

        def step(self, moment: Any) -> None:
            report = moment.seen(0, 1)
            if report is not None:
                self.ages.append(moment.now_s - report.made_at_s)
            own = moment.seen(0, 0)
            assert own is None or moment.now_s - own.made_at_s <= 1.0

    watching = Watching()
    Run(here.world, here.workload, here.outages, here.spec, watching).run()
    assert min(watching.ages) == 5.0
    assert max(watching.ages) < 6.0


def test_candidates_obey_residency_and_placement() -> None:
    policies = [{"name": "eu", "match": {"originJurisdictions": ["EU"]}, "residency": {"jurisdictions": ["EU"]}}]
    here = stage(policies=policies)
    candidates = Candidates.of(here.world, here.placed)
    assert candidates.open_to[0, 0].tolist() == [True, True, False]
    assert candidates.open_to[2, 0].tolist() == [True, True, True]


def test_percentiles_are_of_all_requests_and_what_is_never_answered_has_no_time() -> None:
    found = times(np.linspace(0.001, 0.090, 90), 100)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (pytest.approx(50.0), None, None)
    assert found.mean_ms == pytest.approx(45.5)
    assert times(np.linspace(0.001, 0.1, 100)).p95_ms == pytest.approx(95.0)
    assert times(np.empty(0), 10) == Times(p50_ms=None, p95_ms=None, p99_ms=None)
    assert times(np.empty(0)) == Times()


def test_every_policy_that_has_a_name_is_there() -> None:
    assert tuple(POLICIES) == RIVALS
