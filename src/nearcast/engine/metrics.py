"""The engine's figures in Prometheus' text format.

Decides names and labels; the figures are those of :mod:`~nearcast.engine.gauges`. They are collected when asked for,
so that a request pays for no metrics library.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nearcast.engine.gauges import BUCKETS_S, Histogram
from nearcast.engine.lane import Lane

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_LABELS = ("model", "version")

Served = Sequence[tuple[str, str, Lane]]
"""Model, version and lane of everything that is served."""


class _Collector(Collector):
    def __init__(self, served: Served) -> None:
        self._served = served

    def collect(self) -> Iterable[Metric]:
        yield from self._counters()
        yield from self._gauges()
        for name, text, field in (
            ("queue_seconds", "Time that work waited for its turn", "queue"),
            ("compute_seconds", "Time that work spent in the model, in its batch", "compute"),
        ):
            family = HistogramMetricFamily(f"nearcast_engine_{name}", text, labels=_LABELS)
            for model, version, lane in self._served:
                histogram: Histogram = getattr(lane.gauges, field)
                family.add_metric((model, version), list(_cumulated(histogram)), sum_value=histogram.total_s)
            yield family

    def _counters(self) -> Iterator[Metric]:
        for name, text, field in (
            ("answered", "Requests answered with a result", "answered"),
            ("failed", "Pieces of work that the model could not compute", "failed"),
            ("refused", "Requests refused because the queue was full", "refused"),
            ("cancelled", "Pieces of work whose caller went away", "cancelled"),
            ("rows", "Rows computed", "rows"),
            ("batches", "Runs of the model", "batches"),
            ("busy_seconds", "Time that the model spent computing", "busy_s"),
        ):
            counter = CounterMetricFamily(f"nearcast_engine_{name}", text, labels=_LABELS)
            for model, version, lane in self._served:
                counter.add_metric((model, version), getattr(lane.gauges, field))
            yield counter

    def _gauges(self) -> Iterator[Metric]:
        for name, text, field in (
            ("queue_length", "Pieces of work that wait", "queue"),
            ("queue_room", "Pieces of work that the queue still takes", "room"),
            ("wait_seconds", "How long work that arrives now waits", "wait_s"),
            ("service_seconds", "Time of one request in the model, moving average", "service_s"),
            ("utilization", "Share of the last seconds spent computing", "utilization"),
        ):
            gauge = GaugeMetricFamily(f"nearcast_engine_{name}", text, labels=_LABELS)
            for model, version, lane in self._served:
                gauge.add_metric((model, version), getattr(lane.load(), field))
            yield gauge


def _cumulated(histogram: Histogram) -> Iterator[tuple[str, float]]:
    names = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    yield from zip(names, itertools.accumulate(histogram.counts), strict=True)


def exposition(served: Served) -> bytes:
    """The whole document."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(served))
    return generate_latest(registry)
