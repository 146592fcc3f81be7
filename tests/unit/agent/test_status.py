"""What a node says about itself, and which changes are told at once."""

import msgspec
import pytest

from nearcast.agent.estimate import Estimate
from nearcast.agent.reconcile import step
from nearcast.agent.states import (
    Blame,
    EngineLost,
    EngineUp,
    Event,
    Fetched,
    FetchFailed,
    FetchProgressed,
    GatewayAccepted,
    GatewayRefused,
    GatewayUp,
    Key,
    Loaded,
    LoadFailed,
    PlanReceived,
    PlanRefused,
    State,
)
from nearcast.agent.status import Vitals, has_moved, node_status, urgent
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources.load import LoadReport
from nearcast.resources.plan import HoldingRule, PlannedModel, SiteFacts, SitePlan
from nearcast.resources.status import ModelDemand, ModelProfile, NodeCapacity, NodeStatus, Share

M1, M2 = Key("m", "1"), Key("m", "2")


def plan_of(version: int, *keys: Key) -> SitePlan:
    models = tuple(PlannedModel(model=m, version=v, release=f"r-{m}-{v}", deployment=m) for m, v in keys)
    site = SiteFacts(name="here", tier="edge", country="DE")
    return SitePlan(fleet="f", site=site, version=version, revision=f"rev{version}", models=models)


def vitals(**changes: object) -> Vitals:
    base = {
        "url": "http://here",
        "peer_address": "here:1",
        "accepted": "",
        "routes": RouteTable(),
        "load": None,
        "estimates": {},
        "engine_restarts": 0,
        "troubles": (),
        "now_s": 10.0,
    }
    return Vitals(**{**base, **changes})  # type: ignore[arg-type]


def status_of(*events: Event, seen: Vitals | None = None) -> NodeStatus:
    state = State(who="n")
    for event in events:
        if isinstance(event, GatewayAccepted):
            assert state.offered is not None
            event = GatewayAccepted(state.generation, state.offered)  # noqa: PLW2901 - whatever is offered
        state, _ = step(state, event, 1.0)
    return node_status("here", "n", "test", "then", state, seen or vitals())


ACCEPTED = GatewayAccepted(0, None)  # type: ignore[arg-type]
UP = (PlanReceived(plan_of(3, M1)), EngineUp(1, {}), GatewayUp())


def standings(status: NodeStatus) -> dict[str, str]:
    return {f"{item.model}@{item.version}": item.state for item in status.models}


def test_before_the_first_plan() -> None:
    status = status_of()
    assert (status.plan_version, status.routed_version, status.models) == (0, -1, ())
    assert not status.gateway.ready
    assert status.gateway.message == "no plan yet"
    assert not status.engine.ready


def test_a_model_is_ready_only_when_requests_reach_it() -> None:
    fetched, loaded = Fetched(M1, "r-m-1", 5), Loaded(1, M1)
    assert standings(status_of(*UP)) == {"m@1": "fetching"}
    assert standings(status_of(*UP, fetched)) == {"m@1": "loading"}
    assert standings(status_of(*UP, fetched, loaded)) == {"m@1": "loading"}
    ready = status_of(*UP, fetched, loaded, ACCEPTED)
    assert standings(ready) == {"m@1": "ready"}
    assert ready.gateway.ready
    assert (ready.plan_version, ready.routed_version) == (3, 3)


def test_the_gateway_is_ready_only_with_a_confirmed_table() -> None:
    assert not status_of(*UP).gateway.ready
    assert status_of(*UP, ACCEPTED).gateway.ready


def test_progress_is_told() -> None:
    (model,) = status_of(*UP, FetchProgressed(M1, 3, 9)).models
    assert (model.done_bytes, model.total_bytes) == (3, 9)


def test_a_failed_version_says_why_beside_the_one_that_serves() -> None:
    status = status_of(
        *UP,
        Fetched(M1, "r-m-1", 5),
        Loaded(1, M1),
        ACCEPTED,
        PlanReceived(plan_of(4, M2)),
        FetchFailed(M2, "r-m-2", Blame.REFUSED, "DigestMismatch", "bytes differ"),
        ACCEPTED,
    )
    assert standings(status) == {"m@1": "ready", "m@2": "failed"}
    assert [(item.reason, item.message) for item in status.models] == [("", ""), ("DigestMismatch", "bytes differ")]


def test_an_old_version_is_told_as_draining() -> None:
    status = status_of(
        *UP,
        Fetched(M1, "r-m-1", 5),
        Loaded(1, M1),
        ACCEPTED,
        PlanReceived(plan_of(4, M2)),
        Fetched(M2, "r-m-2", 5),
        Loaded(1, M2),
        ACCEPTED,
    )
    assert standings(status) == {"m@1": "draining", "m@2": "ready"}


def test_troubles_of_plan_and_gateway_are_conditions() -> None:
    status = status_of(
        *UP, PlanRefused(Blame.REFUSED, "TrustRefused", "signature"), GatewayRefused(2, "Rejected", "no such field")
    )
    assert {(item.type, item.status, item.reason) for item in status.conditions} == {
        ("PlanTrusted", False, "TrustRefused"),
        ("GatewayConfigured", False, "Rejected"),
    }
    assert status.gateway.message == "no such field"


def test_places_that_the_plan_names_and_its_own_rules_bar_are_a_condition() -> None:
    ruled = msgspec.structs.replace(plan_of(4, M1), holding={"m": HoldingRule(tiers=("cloud",))})
    (said,) = status_of(*UP, PlanReceived(ruled)).conditions
    assert (said.type, said.status, said.reason) == ("RulesHold", False, "BarredPlaces")
    assert "they are not asked: m at " in said.message
    assert "may run on cloud only" in said.message


def test_an_engine_that_is_down_is_told() -> None:
    status = status_of(*UP, EngineLost(), LoadFailed(1, M1, Blame.REFUSED, "EngineRefused", "late"))
    assert not status.engine.ready


def test_figures_are_no_news_and_standings_are() -> None:
    near = {"peer": Estimate(measured_at_s=9.0, round_trip_s=0.1)}
    gone = {"peer": Estimate(measured_at_s=9.0, round_trip_s=0.1, failures=5)}
    one = status_of(*UP, seen=vitals(estimates=near))
    other = status_of(
        *UP, seen=vitals(estimates={"peer": Estimate(measured_at_s=2.0, round_trip_s=0.101)}, load=LoadReport())
    )
    assert urgent(one) == urgent(other)
    assert not has_moved(one, msgspec.structs.replace(other, load=None))
    assert urgent(one) != urgent(status_of(*UP, seen=vitals(estimates=gone)))


def test_what_has_moved() -> None:
    shares = ModelRoute("routed", (Share(percent=100, order=("here",)),))
    assert has_moved(None, status_of())
    assert has_moved(status_of(), status_of(seen=vitals(routes=RouteTable(models={"m": shares}))))
    near = vitals(estimates={"peer": Estimate(measured_at_s=9.0, round_trip_s=0.1)})
    far = vitals(estimates={"peer": Estimate(measured_at_s=9.0, round_trip_s=0.14)})
    assert has_moved(status_of(seen=near), status_of(seen=far))
    serving = LoadReport(named_metrics={"m.service_s": 0.1})
    with_model = vitals(estimates={"peer": Estimate(measured_at_s=9.0, round_trip_s=0.1, load=serving)})
    assert has_moved(status_of(seen=near), status_of(seen=with_model))
    assert not has_moved(status_of(seen=near), status_of(seen=near))
    assert not has_moved(status_of(seen=vitals(load=LoadReport())), status_of())


def demand_of(**rates: float) -> NodeStatus:
    return status_of(seen=vitals(demand={model: ModelDemand(rate_per_s=rate) for model, rate in rates.items()}))


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (100.0, 124.0, False),  # a fifth
        (100.0, 130.0, True),
        (130.0, 100.0, True),
        (0.5, 1.4, False),  # less than a request per second
        (4.0, 6.0, False),  # more than a quarter, and no more than chance
        (4.0, 11.0, True),
        (1000.0, 1300.0, True),
        (50.0, 0.0, True),
    ],
)
def test_a_demand_has_moved_when_it_changed_clearly(before: float, after: float, moved: bool) -> None:
    assert has_moved(demand_of(m=before), demand_of(m=after)) == moved
    assert urgent(demand_of(m=before)) == urgent(demand_of(m=after))


def test_a_demand_that_comes_or_goes_has_moved() -> None:
    assert has_moved(demand_of(), demand_of(m=20.0))
    assert has_moved(demand_of(m=20.0), demand_of())
    assert not has_moved(demand_of(), demand_of(m=0.5))


def test_the_first_sizes_of_a_demand_are_news_and_others_are_not() -> None:
    def sized(answer_bytes: float) -> NodeStatus:
        return status_of(seen=vitals(demand={"m": ModelDemand(rate_per_s=9.0, answer_bytes=answer_bytes)}))

    assert has_moved(sized(0.0), sized(400.0))
    assert not has_moved(sized(400.0), sized(500.0))
    assert not has_moved(sized(0.0), sized(0.0))


def test_an_engine_that_became_busy_has_moved_and_one_that_flickers_has_not() -> None:
    def busy(utilization: float) -> NodeStatus:
        return status_of(seen=vitals(load=LoadReport(application_utilization=utilization)))

    assert has_moved(busy(0.3), busy(0.9))
    assert has_moved(busy(0.9), busy(0.3))
    assert not has_moved(busy(0.3), busy(0.45))


def test_a_profile_that_comes_has_moved_and_one_that_learns_has_not() -> None:
    def told(*works_s: float) -> NodeStatus:
        profiles = tuple(
            ModelProfile(model=f"m{i}", version="1", service_s=0.01, work_s=w) for i, w in enumerate(works_s)
        )
        return status_of(seen=vitals(profiles=profiles, capacity=NodeCapacity(workers=1.0, memory_bytes=1)))

    assert has_moved(status_of(), told())
    assert has_moved(told(), told(0.001))
    assert not has_moved(told(0.001), told(0.0012))
    assert told(0.001).profiles[0].work_s == 0.001
