"""The engine's figures in Prometheus' text format.

Decides names and labels; the figures are those of :mod:`~nearcast.engine.gauges`. They are collected when asked for,
so that a request pays for no metrics library.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import Metric as Family

from nearcast.engine.device import Device, device_memory
from nearcast.engine.gauges import BUCKETS_S, Histogram
from nearcast.engine.lane import Lane
from nearcast.metrics import Distribution, Metric, document, family, process_families, process_metrics

_LABELS: Final = ("model", "version")
_HISTOGRAMS: Final = (
    ("queue_seconds", "Time that work waited for its turn", "queue"),
    ("compute_seconds", "Time that work spent in the model, in its batch", "compute"),
)
_COUNTERS: Final = (
    ("answered", "Requests answered with a result", "answered"),
    ("failed", "Pieces of work that the model could not compute", "failed"),
    ("refused", "Requests refused because the queue was full", "refused"),
    ("cancelled", "Pieces of work whose caller went away", "cancelled"),
    ("rows", "Rows computed", "rows"),
    ("batches", "Runs of the model", "batches"),
    ("busy_seconds", "Time that the model spent computing", "busy_s"),
)
_GAUGES: Final = (
    ("queue_length", "Pieces of work that wait", "queue"),
    ("queue_room", "Pieces of work that the queue still takes", "room"),
    ("wait_seconds", "How long work that arrives now waits", "wait_s"),
    ("service_seconds", "Time of one request in the model, moving average", "service_s"),
    ("utilization_ratio", "Share of the last seconds spent computing", "utilization"),
)
_DEVICE: Final = (
    Metric("nearcast_engine_device_info", "gauge", "Where models run; always 1", ("device", "name")),
    Metric(
        "nearcast_engine_device_memory_used_bytes", "gauge", "Memory of a CUDA device taken, by whomever", ("device",)
    ),
    Metric("nearcast_engine_device_memory_bytes", "gauge", "Memory of a CUDA device", ("device",)),
)

METRICS: Final = (
    *(Metric(f"nearcast_engine_{name}", "histogram", text, _LABELS) for name, text, _ in _HISTOGRAMS),
    *(Metric(f"nearcast_engine_{name}_total", "counter", text, _LABELS) for name, text, _ in _COUNTERS),
    *(Metric(f"nearcast_engine_{name}", "gauge", text, _LABELS) for name, text, _ in _GAUGES),
    *_DEVICE,
    *process_metrics("engine"),
)
"""Everything that an engine serves. Models of one engine are few, so that their labels need no bound here."""

Served = Sequence[tuple[str, str, Lane]]
"""Model, version and lane of everything that is served."""


def families(served: Served, device: Device) -> Iterator[Family]:
    """All metrics with their figures of now."""
    metrics = iter(METRICS)
    for _, _, field in _HISTOGRAMS:
        found = [((model, version), _distribution(getattr(lane.gauges, field))) for model, version, lane in served]
        yield family(next(metrics), found)
    for _, _, field in _COUNTERS:
        yield family(
            next(metrics), [((model, version), getattr(lane.gauges, field)) for model, version, lane in served]
        )
    loads = [((model, version), lane.load()) for model, version, lane in served]
    for _, _, field in _GAUGES:
        yield family(next(metrics), [(key, getattr(load, field)) for key, load in loads])
    yield from _device_families(device)
    yield from process_families("engine")


def _device_families(device: Device) -> Iterator[Family]:
    info, used, total = _DEVICE
    memory = device_memory(device)
    name = str(device)
    yield family(info, [((name, memory.name if memory is not None else ""), 1.0)])
    yield family(used, [((name,), memory.used_bytes)] if memory is not None else [])
    yield family(total, [((name,), memory.total_bytes)] if memory is not None else [])


def _distribution(histogram: Histogram) -> Distribution:
    names = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    return Distribution(
        list(zip(names, map(float, itertools.accumulate(histogram.counts)), strict=True)), histogram.total_s
    )


def exposition(served: Served, device: Device, accept: str = "") -> tuple[str, bytes]:
    """Content type and the whole document, for a scraper that sent ``accept``."""
    return document(families(served, device), accept)
