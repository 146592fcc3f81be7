"""Envoy's statistics in names of ours, which stay the same when Envoy's change. Pure; the agent asks and serves.

Decides which of Envoy's some thousand figures are told, and sums what is too many: models and sites over the bound go
to ``other``, attempts and status codes to totals and classes. What Envoy counts is decided in `render.telemetry`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nearcast.gateway.render.telemetry import parted
from nearcast.metrics import MODELS_MAX, OTHER, Distribution, Labels, Metric, alone, capped, family

LABELLED: Final = r"^nearcast\."
"""The statistics that are asked for in Prometheus' form."""
PLAIN: Final = (
    r"^http\.(public|peer)\.downstream_cx_(active|total)$"
    r"|^cluster\.(engine|site)_.*\."
    r"(outlier_detection\.ejections_(active|enforced_total)|upstream_cx_(active|connect_fail)|upstream_rq_active)$"
    r"|^server\.(memory_allocated|memory_physical_size|uptime|live|total_connections)$"
    r"|^listener\..*\.ssl\.(connection_error|fail_verify_[a-z_]+)$"
    r"|\.update_rejected$|^nearcast\..*overflow"
)
"""The statistics that are asked for as plain text."""

REQUESTS: Final = Metric(
    "nearcast_gateway_requests_total",
    "counter",
    "Requests of clients, by model and by why the place was chosen (empty: the gateway answered by itself)",
    ("model", "reason", "code"),
)
ANSWERS: Final = Metric(
    "nearcast_gateway_answers_total",
    "counter",
    "The same requests by the site that computed the answer (empty: none did)",
    ("site", "reason", "code"),
)
RETRIES: Final = Metric(
    "nearcast_gateway_retries_total", "counter", "Attempts beyond the first of answered requests, by model", ("model",)
)
DURATION: Final = Metric(
    "nearcast_gateway_request_seconds", "histogram", "First byte of a request to last byte of its answer", ("model",)
)
PEER_REQUESTS: Final = Metric(
    "nearcast_gateway_peer_requests_total", "counter", "Requests of other sites, by model", ("model", "code")
)
PEER_DURATION: Final = Metric(
    "nearcast_gateway_peer_request_seconds", "histogram", "The same as request_seconds, for other sites", ("model",)
)
CONNECTIONS: Final = Metric("nearcast_gateway_open_connections", "gauge", "Connections that are open", ("listener",))
ACCEPTED: Final = Metric(
    "nearcast_gateway_connections_total", "counter", "Connections that were accepted", ("listener",)
)
UPSTREAM: Final = Metric(
    "nearcast_gateway_upstream_connections", "gauge", "Connections to a site (the own one: to its engines)", ("site",)
)
ACTIVE: Final = Metric("nearcast_gateway_upstream_requests", "gauge", "Attempts that wait for a site", ("site",))
CONNECT_FAILURES: Final = Metric(
    "nearcast_gateway_connect_failures_total", "counter", "Connections to a site that failed", ("site",)
)
EJECTIONS: Final = Metric(
    "nearcast_gateway_ejections_total", "counter", "Times that a host of a site was left out as broken", ("site",)
)
EJECTED: Final = Metric("nearcast_gateway_ejected_hosts", "gauge", "Hosts of a site that are left out now", ("site",))
TLS_FAILURES: Final = Metric(
    "nearcast_gateway_tls_failures_total", "counter", "Handshakes of peers that failed or were refused"
)
REJECTED: Final = Metric(
    "nearcast_gateway_rejected_configurations_total", "counter", "Files that the gateway refused; it kept the last good"
)
ALLOCATED: Final = Metric("nearcast_gateway_allocated_bytes", "gauge", "Memory that the gateway has allocated")
PHYSICAL: Final = Metric("nearcast_gateway_memory_bytes", "gauge", "Memory that the gateway holds from the system")
UPTIME: Final = Metric("nearcast_gateway_uptime_seconds", "gauge", "Age of the gateway's process")
UP: Final = Metric("nearcast_gateway_up", "gauge", "1 while the gateway answers and is initialised, else 0")

METRICS: Final = (
    REQUESTS, ANSWERS, RETRIES, DURATION, PEER_REQUESTS, PEER_DURATION, CONNECTIONS, ACCEPTED, UPSTREAM, ACTIVE,
    CONNECT_FAILURES, EJECTIONS, EJECTED, TLS_FAILURES, REJECTED, ALLOCATED, PHYSICAL, UPTIME, UP,
)  # fmt: skip

_ATTEMPT: Final = re.compile(r"(?P<reason>[a-z-]*);attempt=(?P<attempt>\d+)")
_PLACE: Final = re.compile(r"cluster\.(?P<kind>engine|site)_(?P<name>.*?)\.(?P<stat>(outlier_|upstream_).*)")
_CALLERS: Final = frozenset({1, 3, 5, 6, 7, 9, 10, 11, 12, 16})
"""Statuses of gRPC that are the caller's to change; RESOURCE_EXHAUSTED is a place that is full."""
_PER_SITE: Final = {
    "upstream_cx_active": UPSTREAM,
    "upstream_rq_active": ACTIVE,
    "upstream_cx_connect_fail": CONNECT_FAILURES,
    "outlier_detection.ejections_enforced_total": EJECTIONS,
    "outlier_detection.ejections_active": EJECTED,
}


def nothing() -> Iterator[Family]:
    """What is told while no gateway answers."""
    yield family(UP, alone(0))


def families(labelled: str, plain: Mapping[str, str], own_site: str) -> Iterator[Family]:
    """Envoy's statistics as metrics of ours.

    Args:
        labelled: those of :data:`LABELLED`, in Prometheus' text format.
        plain: those of :data:`PLAIN`.
        own_site: what places on this node are called.
    """
    told = text_string_to_metric_families(labelled)
    samples = [sample._replace(labels=dict(parted(sample.labels))) for each in told for sample in each.samples]
    yield from _requests(samples)
    yield from _durations(samples)
    yield from _connections(plain)
    yield from _places(plain, own_site)
    yield from _process(plain)


def _requests(samples: list[Sample]) -> Iterator[Family]:
    by_model: dict[Labels, float] = defaultdict(float)
    by_site: dict[Labels, float] = defaultdict(float)
    of_peers: dict[Labels, float] = defaultdict(float)
    retries: dict[str, float] = defaultdict(float)
    models = _bounded(samples, "model")
    sites = _bounded(samples, "site")
    for sample in samples:
        labels, code = sample.labels, code_class(sample.labels)
        reason, attempt = _attempt(labels.get("reason", ""))
        match sample.name.removesuffix("_total"):
            case "envoy_nearcast_public_requests":
                model = models[labels["model"]]
                by_model[model, reason, code] += sample.value
                retries[model] += sample.value * (attempt - 1)
                by_site[sites[labels["site"]], reason, code] += sample.value
            case "envoy_nearcast_peer_requests":
                of_peers[models[labels["model"]], code] += sample.value
    yield family(REQUESTS, by_model.items())
    yield family(ANSWERS, by_site.items())
    yield family(RETRIES, [((model,), count) for model, count in retries.items()])
    yield family(PEER_REQUESTS, of_peers.items())


def code_class(labels: Mapping[str, str]) -> str:
    """The class of a status code; of a gRPC call, that of the status which the same error has without gRPC."""
    call = labels.get("call", "0")
    if call.isdigit() and call != "0":
        return "4xx" if int(call) in _CALLERS else "5xx"
    return f"{labels.get('code', '')[:1] or '0'}xx"


def _attempt(reason: str) -> tuple[str, int]:
    found = _ATTEMPT.match(reason)
    return (found["reason"], max(1, int(found["attempt"]))) if found else ("", 1)


def _bounded(samples: Iterable[Sample], label: str) -> dict[str, str]:
    """Label value -> itself, or ``other`` where there are too many. Envoy says "-" or nothing for what has none."""
    values = sorted({sample.labels.get(label, "") for sample in samples})
    kept = capped(dict.fromkeys(values, 0.0), MODELS_MAX, OTHER)
    return {value: ("" if value in {"", "-"} else value if value in kept else OTHER) for value in values}


@dataclass(slots=True)
class _Gathered:
    """A histogram as it comes out of samples."""

    buckets: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    def distribution(self) -> Distribution:
        ordered = sorted(self.buckets.items(), key=lambda item: float(item[0]))
        return Distribution([(f"{float(le):g}".replace("inf", "+Inf"), count) for le, count in ordered], self.total)


def _durations(samples: list[Sample]) -> Iterator[Family]:
    models = _bounded(samples, "model")
    for prefix, metric in (("public", DURATION), ("peer", PEER_DURATION)):
        found: dict[str, _Gathered] = defaultdict(_Gathered)
        stem = f"envoy_nearcast_{prefix}_duration"
        for sample in samples:
            if sample.name == f"{stem}_bucket":
                milliseconds = float(sample.labels["le"])
                found[models[sample.labels["model"]]].buckets[str(milliseconds / 1000)] += sample.value
            elif sample.name == f"{stem}_sum":
                found[models[sample.labels["model"]]].total += sample.value / 1000
        yield family(metric, [((model,), each.distribution()) for model, each in found.items() if each.buckets])


def _connections(plain: Mapping[str, str]) -> Iterator[Family]:
    listeners = ("public", "peer")
    for metric, word in ((CONNECTIONS, "active"), (ACCEPTED, "total")):
        yield family(metric, [((name,), _figure(plain, f"http.{name}.downstream_cx_{word}")) for name in listeners])


def _places(plain: Mapping[str, str], own_site: str) -> Iterator[Family]:
    figures: dict[str, dict[str, float]] = {stat: defaultdict(float) for stat in _PER_SITE}
    for name in plain:
        if found := _PLACE.fullmatch(name):
            site = own_site if found["kind"] == "engine" else found["name"]
            if found["stat"] in figures:
                figures[found["stat"]][site] += _figure(plain, name)
    for stat, metric in _PER_SITE.items():
        sites = capped(figures[stat], MODELS_MAX, OTHER)
        yield family(metric, [((site,), value) for site, value in sites.items()])


def _process(plain: Mapping[str, str]) -> Iterator[Family]:
    tls = [name for name in plain if ".ssl." in name]
    rejected = [name for name in plain if name.endswith(".update_rejected")]
    yield family(TLS_FAILURES, alone(sum(_figure(plain, name) for name in tls)))
    yield family(REJECTED, alone(sum(_figure(plain, name) for name in rejected)))
    yield family(ALLOCATED, alone(_figure(plain, "server.memory_allocated")))
    yield family(PHYSICAL, alone(_figure(plain, "server.memory_physical_size")))
    yield family(UPTIME, alone(_figure(plain, "server.uptime")))
    yield family(UP, alone(_figure(plain, "server.live")))


def _figure(plain: Mapping[str, str], name: str) -> float:
    text = plain.get(name, "0")
    return float(text) if text.isdigit() else 0.0
