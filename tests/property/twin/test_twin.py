"""Whatever fleet, demand and failures: each request ends once, residency holds, no policy beats the bound."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.twin.bound import clairvoyant
from nearcast.twin.compare import Stage, run_policy, set_up
from nearcast.twin.measures import figures, violations
from nearcast.twin.names import OURS
from nearcast.twin.outcome import CLOSED, LOST, REFUSED
from nearcast.twin.policies import POLICIES
from unit.twin.tiny import CITIES, document, loaded, model, named

EU = {"name": "eu", "match": {"originJurisdictions": ["EU"]}, "residency": {"jurisdictions": ["EU"]}}
FRANCE = {"name": "fr", "match": {"models": ["a"], "originCountries": ["FR"]}, "residency": {"countries": ["FR"]}}


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    names = draw(st.lists(st.sampled_from([*CITIES]), min_size=2, max_size=5, unique=True))
    sites: list[dict[str, Any]] = [
        {
            "named": [named(name)],
            "node": draw(st.sampled_from(["box", "big"])),
            "tier": draw(st.sampled_from(["edge", "cloud"])) if at else "cloud",
            "mbps": draw(st.sampled_from([10, 1000])),
        }
        for at, name in enumerate(names)
    ]
    curves = {"box": [[1, 20], [4, 40]], "big": [[1, 5]]}
    models = [
        {**model("a", noise=draw(st.sampled_from([0, 0.5])), room=draw(st.integers(1, 10))), "service": curves},
        {**model("b", objective="realtime"), "service": {"box": [[1, 8]], "big": [[1, 2]]}},
    ]
    at_s = st.integers(0, 5)
    failures = draw(
        st.lists(
            st.one_of(
                st.builds(
                    lambda s, t, n: {"atS": t, "lastsS": 3, "sites": [n]}, st.none(), at_s, st.sampled_from(names)
                ),
                st.builds(lambda t: {"atS": t, "lastsS": 2, "share": 0.3}, at_s),
                st.builds(lambda t, n: {"atS": t, "lastsS": 2, "cutOff": {"sites": [n]}}, at_s, st.sampled_from(names)),
            ),
            max_size=3,
        )
    )
    value = document(
        sites=sites,
        durationS=6,
        warmUpS=1,
        nodes={"box": {"workers": 1, "memoryGb": 8}, "big": {"workers": 3, "memoryGb": 1}},
        models=models,
        policies=draw(st.sampled_from([[], [EU], [FRANCE], [EU, FRANCE]])),
        failures=failures,
        demand={"ratePerS": draw(st.sampled_from([20, 200, 800]))},
    )
    return set_up(loaded(value), seed=draw(st.integers(0, 1000)))


@settings(max_examples=40, deadline=None)
@given(stages(), st.sampled_from([OURS, *POLICIES]))
def test_every_request_ends_exactly_once(here: Stage, name: str) -> None:
    outcome, world = run_policy(here, name)
    count = len(here.workload)
    ends = outcome.place
    assert ((ends >= 0) | np.isin(ends, [REFUSED, LOST, CLOSED])).all()
    assert len(ends) == count
    done = ends >= 0
    assert (outcome.service_s[done] > 0).all()
    assert (outcome.service_s[~done] == 0).all()
    parts = outcome.network_s + outcome.wait_s + outcome.service_s
    assert np.allclose(parts[done], outcome.time_s[done])
    assert (outcome.wait_s >= 0).all()
    assert (outcome.attempts[done] >= 1).all()
    assert world.problem.workers[ends[done]].all()
    # No worker computes more than there is time for.
    last_s = float((here.workload.at_s + outcome.time_s).max(initial=0.0)) + 10
    assert (outcome.busy_s <= world.problem.workers * last_s + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(stages(), st.sampled_from([OURS, *POLICIES]))
def test_residency_holds_in_every_policy_whatever_happens(here: Stage, name: str) -> None:
    outcome, world = run_policy(here, name)
    assert violations(outcome, world, here.workload) == 0


@settings(max_examples=25, deadline=None)
@given(stages(), st.sampled_from([OURS, *(name for name in POLICIES if name != "central")]))
def test_no_policy_beats_the_bound(here: Stage, name: str) -> None:
    outcome, world = run_policy(here, name)
    found = figures(outcome, world, here.workload, here.spec)
    bound = clairvoyant(here.world, here.workload, here.outages, here.spec)
    measured = here.workload.at_s >= here.spec.warm_up_s
    times = np.where(outcome.place >= 0, outcome.time_s, np.inf)[measured]
    if len(times):
        p50, p95, p99 = (float(np.quantile(times, q, method="inverted_cdf")) * 1000 for q in (0.5, 0.95, 0.99))
        assert p50 >= bound.p50_ms * (1 - 1e-9)
        assert p95 >= bound.p95_ms * (1 - 1e-9)
        assert p99 >= bound.p99_ms * (1 - 1e-9)
    assert found.within <= bound.within + 1e-9
