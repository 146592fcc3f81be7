"""Demand as metrics: labels are bounded, rates add up, means do not."""

from nearcast.agent.metrics import Figures, families
from nearcast.agent.tally import Tally
from nearcast.metrics import MODELS_MAX, OTHER
from nearcast.resources.status import EngineStatus, GatewayStatus, ModelDemand, NodeStatus


def told(demand: dict[str, ModelDemand]) -> dict[str, dict[str, float]]:
    status = NodeStatus(
        site="s",
        node="n",
        software="nearcast/1",
        started_at="",
        plan_version=1,
        plan_revision="r",
        routed_version=1,
        gateway=GatewayStatus(url="", peer_address="", ready=True),
        engine=EngineStatus(ready=True),
        demand=demand,
    )
    found = families(Figures(status, Tally(), None, None, None))
    return {
        each.name: {sample.labels["model"]: sample.value for sample in each.samples}
        for each in found
        if each.name.startswith("nearcast_agent_demand_")
    }


def test_demand_is_told_by_model() -> None:
    assert told({"m": ModelDemand(rate_per_s=2.5, request_bytes=100.0, answer_bytes=20.0)}) == {
        "nearcast_agent_demand_per_second": {"m": 2.5},
        "nearcast_agent_demand_request_bytes": {"m": 100.0},
        "nearcast_agent_demand_answer_bytes": {"m": 20.0},
    }


def test_models_over_the_bound_are_one() -> None:
    many = {f"m{i:04}": ModelDemand(rate_per_s=1.0, request_bytes=9.0) for i in range(MODELS_MAX + 30)}
    found = told(many)
    rates = found["nearcast_agent_demand_per_second"]
    assert (len(rates), rates[OTHER], sum(rates.values())) == (MODELS_MAX + 1, 30.0, len(many))
    assert OTHER not in found["nearcast_agent_demand_request_bytes"]
