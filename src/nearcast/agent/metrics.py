"""The agent's metrics: how the node stands, and what has happened on it. Pure; `scrape` gathers and serves.

One scrape tells of the whole node: the agent's own figures, those of its engine (`engine.metrics`) and of its gateway
(`gateway.metrics`), under names of which no two are the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from prometheus_client.core import Metric as Family

from nearcast.agent.tally import Tally
from nearcast.metrics import MODELS_MAX, OTHER, Metric, alone, capped, family, process_families, process_metrics
from nearcast.resources.status import ModelDemand, ModelState, NodeStatus

INFO: Final = Metric("nearcast_agent_info", "gauge", "Always 1; tells who this is", ("site", "node", "version"))
PLAN: Final = Metric("nearcast_agent_plan_version", "gauge", "Version of the plan in force; 0 before the first")
ROUTED: Final = Metric(
    "nearcast_agent_routed_version", "gauge", "Version of the plan whose routes the gateway accepted; -1 before it"
)
CONTACT: Final = Metric(
    "nearcast_agent_last_contact_seconds", "gauge", "Time since the control plane took a report; -1 before the first"
)
POLLS: Final = Metric("nearcast_agent_polls_total", "counter", "Looks for a new plan", ("result",))
FETCHES: Final = Metric("nearcast_agent_fetches_total", "counter", "Releases to be obtained, by outcome", ("result",))
FETCHED: Final = Metric("nearcast_agent_fetched_bytes_total", "counter", "Sizes of the releases that were obtained")
LOSSES: Final = Metric(
    "nearcast_agent_process_losses_total",
    "counter",
    "Times that the engine or the gateway was found gone",
    ("process",),
)
READY: Final = Metric(
    "nearcast_agent_process_ready", "gauge", "1 while that process is in service, else 0", ("process",)
)
MODELS: Final = Metric("nearcast_agent_models", "gauge", "Model versions on this node, by state", ("state",))
LOAD_FAILURES: Final = Metric("nearcast_agent_load_failures_total", "counter", "Models that the engine did not take")
REFUSED: Final = Metric(
    "nearcast_agent_gateway_refusals_total", "counter", "Configurations that the gateway did not take"
)
MOVES: Final = Metric("nearcast_agent_share_moves_total", "counter", "Times that the shares in force changed")
TRUST: Final = Metric(
    "nearcast_agent_trust_refusals_total", "counter", "Plans and releases refused, since nobody had signed them so"
)
PEER_RTT: Final = Metric("nearcast_agent_peer_round_trip_seconds", "gauge", "Smoothed round trip to a peer", ("site",))
PEER_UP: Final = Metric("nearcast_agent_peer_reachable", "gauge", "1 while the peer answers, else 0", ("site",))
PEER_AGE: Final = Metric("nearcast_agent_peer_age_seconds", "gauge", "Age of what is known of a peer", ("site",))
TROUBLE: Final = Metric(
    "nearcast_agent_trouble", "gauge", "1 for every condition that is wrong now", ("type", "reason")
)
EXPIRY: Final = Metric(
    "nearcast_agent_certificate_expiry_seconds", "gauge", "When the node's certificate ends, since the Unix epoch"
)
DEMAND: Final = Metric(
    "nearcast_agent_demand_per_second", "gauge", "What clients ask here, moving average over five seconds", ("model",)
)
ASKED_BYTES: Final = Metric(
    "nearcast_agent_demand_request_bytes", "gauge", "Mean size of what clients send, out of a sample", ("model",)
)
TOLD_BYTES: Final = Metric(
    "nearcast_agent_demand_answer_bytes", "gauge", "Mean size of what they are answered, out of a sample", ("model",)
)
DISK_FREE: Final = Metric("nearcast_agent_disk_free_bytes", "gauge", "Free space where the data directory lies")
DISK_SIZE: Final = Metric("nearcast_agent_disk_size_bytes", "gauge", "Size of that file system")

METRICS: Final = (
    INFO, PLAN, ROUTED, CONTACT, POLLS, FETCHES, FETCHED, LOSSES, READY, MODELS, LOAD_FAILURES, REFUSED, MOVES, TRUST,
    PEER_RTT, PEER_UP, PEER_AGE, DEMAND, ASKED_BYTES, TOLD_BYTES, TROUBLE, EXPIRY, DISK_FREE, DISK_SIZE,
    *process_metrics("agent"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What the agent knows of its node at one moment. ``certificate_ends`` and ``disk`` are None where nobody knows.

    Attributes:
        status: what it would report.
        tally: what has happened.
        contact_age_s: seconds since its last report arrived; None before the first.
        certificate_ends: seconds since the Unix epoch.
        disk: free bytes, and all.
    """

    status: NodeStatus
    tally: Tally
    contact_age_s: float | None
    certificate_ends: float | None
    disk: tuple[int, int] | None


def families(figures: Figures) -> Iterator[Family]:
    """All of :data:`METRICS` with their figures."""
    status, tally = figures.status, figures.tally
    age_s = figures.contact_age_s
    yield family(INFO, [((status.site, status.node, status.software.rpartition("/")[2]), 1)])
    yield family(PLAN, alone(status.plan_version))
    yield family(ROUTED, alone(status.routed_version))
    yield family(CONTACT, alone(-1.0 if age_s is None else age_s))
    yield from _happened(tally)
    processes = [("engine", status.engine.ready), ("gateway", status.gateway.ready)]
    yield family(READY, [((name,), float(ready)) for name, ready in processes])
    states = Counter(model.state for model in status.models)
    yield family(MODELS, [((state,), states[state]) for state in get_args(ModelState)])
    yield family(PEER_RTT, [((peer.site,), peer.round_trip_s) for peer in status.peers])
    yield family(PEER_UP, [((peer.site,), float(peer.reachable)) for peer in status.peers])
    yield family(PEER_AGE, [((peer.site,), peer.age_s) for peer in status.peers])
    yield from _asked(status.demand)
    yield family(TROUBLE, [((item.type, item.reason), 1) for item in status.conditions if not item.status])
    yield family(EXPIRY, [] if figures.certificate_ends is None else alone(figures.certificate_ends))
    free, size = (alone(figures.disk[0]), alone(figures.disk[1])) if figures.disk else ([], [])
    yield family(DISK_FREE, free)
    yield family(DISK_SIZE, size)
    yield from process_families("agent")


def _asked(demand: Mapping[str, ModelDemand]) -> Iterator[Family]:
    """Rates add up under ``other`` where there are too many models; means do not, and are left out there."""
    rates = capped({(model,): each.rate_per_s for model, each in demand.items()}, MODELS_MAX, (OTHER,))
    yield family(DEMAND, rates.items())
    told = [(labels, demand[labels[0]]) for labels in rates if labels[0] in demand]
    yield family(ASKED_BYTES, [(labels, each.request_bytes) for labels, each in told])
    yield family(TOLD_BYTES, [(labels, each.answer_bytes) for labels, each in told])


def _happened(tally: Tally) -> Iterator[Family]:
    for metric, counts in ((POLLS, tally.polls), (FETCHES, tally.fetches), (LOSSES, tally.losses)):
        yield family(metric, [((word,), count) for word, count in sorted(counts.items())])
    yield family(FETCHED, alone(tally.fetched_bytes))
    yield family(LOAD_FAILURES, alone(tally.load_failures))
    yield family(REFUSED, alone(tally.gateway_refusals))
    yield family(MOVES, alone(tally.share_moves))
    yield family(TRUST, alone(tally.trust_refusals))
