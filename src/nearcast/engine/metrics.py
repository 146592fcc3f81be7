"""The engine's figures in Prometheus' text format.

Decides names and labels; the figures are those of :mod:`~nearcast.engine.gauges`. They are collected when asked for,
so that a request pays for no metrics library.
"""

import itertools
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric as Family

from nearcast.engine.device import Device, device_memory
from nearcast.engine.gauges import BUCKETS_S, Histogram
from nearcast.engine.serving import Serving
from nearcast.metrics import Distribution, Metric, alone, document, family, process_families, process_metrics

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
    ("busy_seconds", "Time of the worker that the model took; batches that run at once divide it", "busy_s"),
)
_GAUGES: Final = (
    ("queue_length", "Pieces of work that wait", "queue"),
    ("queue_room", "Pieces of work that the queue still takes", "room"),
    ("wait_seconds", "How long work that arrives now waits, for other models too", "wait_s"),
    ("service_seconds", "Time of one request in the model, moving average", "service_s"),
    ("utilization_ratio", "Share of the worker that the model took over the last seconds", "utilization"),
)
_PROFILE: Final = (
    ("idle_service_seconds", "Time of one request in an idle engine, learned", "service_s"),
    ("work_seconds", "Time of the worker that one request takes when the engine is saturated, learned", "work_s"),
    ("footprint_bytes", "Memory that loading the model took", "footprint_bytes"),
    ("load_seconds", "How long loading took, measuring included", "load_s"),
)
_CAPACITY: Final = (
    Metric("nearcast_engine_workers", "gauge", "Batches that the engine computes at once at full speed"),
    Metric("nearcast_engine_models_memory_bytes", "gauge", "Memory for all models: what they hold and what is free"),
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
    *(Metric(f"nearcast_engine_{name}", "gauge", text, _LABELS) for name, text, _ in _PROFILE),
    *_CAPACITY,
    *_DEVICE,
    *process_metrics("engine"),
)
"""Everything that an engine serves. Models of one engine are few, so that their labels need no bound here."""


def families(serving: Serving) -> Iterator[Family]:
    """All metrics with their figures of now."""
    metrics = iter(METRICS)
    served = serving.lanes()
    for _, _, field in _HISTOGRAMS:
        found = [((model, version), _distribution(getattr(lane.gauges, field))) for model, version, lane in served]
        yield family(next(metrics), found)
    for _, _, field in _COUNTERS:
        yield family(
            next(metrics), [((model, version), getattr(lane.gauges, field)) for model, version, lane in served]
        )
    loads = [((model, version), load) for model, version, load in serving.loads()]
    for _, _, field in _GAUGES:
        yield family(next(metrics), [(key, getattr(load, field)) for key, load in loads])
    told = serving.profile()
    profiles = [((profile.model, profile.version), profile) for profile in told.profiles]
    for _, _, field in _PROFILE:
        yield family(next(metrics), [(key, getattr(profile, field)) for key, profile in profiles])
    workers, memory = _CAPACITY
    yield family(workers, alone(told.capacity.workers))
    yield family(memory, alone(told.capacity.memory_bytes))
    yield from _device_families(serving.device)
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


def exposition(serving: Serving, accept: str = "") -> tuple[str, bytes]:
    """Content type and the whole document, for a scraper that sent ``accept``."""
    return document(families(serving), accept)
