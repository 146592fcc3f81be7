"""Metrics in Prometheus' terms: what one is, and how a set of them becomes a document that scrapers read.

A room declares its metrics as :class:`Metric` values and gathers samples when it is asked; nothing is counted twice and
no request pays for a library. Decides the form, and that a label never grows without end (:func:`capped`). What is
counted is decided by the rooms; the reference page is written from their declarations.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

OTHER: Final = "other"
"""The label value that takes what is over a bound."""
MODELS_MAX: Final = 100
"""Most values of the labels ``model`` and ``site`` on one node."""
NO_LABELS: Final[tuple[str, ...]] = ()

Kind = Literal["counter", "gauge", "histogram"]
_Key = TypeVar("_Key", bound=Hashable)
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as it is served and documented.

    Attributes:
        name: as scrapers see it; counters end in ``_total``.
        meaning: one sentence, without a full stop.
        labels: names of its labels, in the order of the values in samples.
    """

    name: str
    kind: Kind
    meaning: str
    labels: Labels = ()

    @property
    def unit(self) -> str:
        """What it is measured in, as the name says; empty for plain counts."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes", "ratio") if stem.endswith(f"_{unit}")), "")


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's figures: upper bound -> how many were not above it (the last bound is ``+Inf``), and their sum."""

    cumulated: Sequence[tuple[str, float]]
    total: float


Samples = Iterable[tuple[Labels, float]] | Iterable[tuple[Labels, Distribution]]


def family(metric: Metric, samples: Samples) -> Family:
    """``metric`` with its samples: values of the labels, in their order, and the figure."""
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, figure in samples:
            if isinstance(figure, Distribution):
                histogram.add_metric(labels, list(figure.cumulated), figure.total)
        return histogram
    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = made(metric.name.removesuffix("_total"), metric.meaning, labels=metric.labels)
    for labels, figure in samples:
        if not isinstance(figure, Distribution):
            plain.add_metric(labels, figure)
    return plain


def alone(figure: float) -> list[tuple[Labels, float]]:
    """The samples of a metric without labels."""
    return [(NO_LABELS, figure)]


def capped(figures: Mapping[_Key, float], most: int, other: _Key) -> dict[_Key, float]:
    """The ``most`` first keys in order, and the sum of the rest under ``other``.

    The first ones in the alphabet stay the same from scrape to scrape; the largest ones would not, and a counter whose
    series comes and goes is of no use.
    """
    if len(figures) <= most:
        return dict(figures)
    kept = sorted(figures, key=str)[:most]
    found = {key: figures[key] for key in kept}
    found[other] = found.get(other, 0.0) + sum(value for key, value in figures.items() if key not in found)
    return found


def process_metrics(room: str) -> tuple[Metric, ...]:
    """What every process of ours says of itself."""
    prefix = f"nearcast_{room}_process"
    return (
        Metric(f"{prefix}_virtual_memory_bytes", "gauge", "Address space of the process"),
        Metric(f"{prefix}_resident_memory_bytes", "gauge", "Memory that the process has in RAM"),
        Metric(f"{prefix}_start_time_seconds", "gauge", "When the process started, since the Unix epoch"),
        Metric(f"{prefix}_cpu_seconds_total", "counter", "CPU time that the process has used"),
        Metric(f"{prefix}_open_fds", "gauge", "Files that the process has open"),
        Metric(f"{prefix}_max_fds", "gauge", "Files that the process may open"),
    )


def process_families(room: str) -> list[Family]:
    """The figures of this process; none where the system has no ``/proc``."""
    return list(ProcessCollector(namespace=f"nearcast_{room}", registry=None).collect())


class _Once(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def document(families: Iterable[Family], accept: str = "") -> tuple[str, bytes]:
    """Content type and body for a scraper that sent ``accept``: OpenMetrics where it asks so, else the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(families)))
    encoder: Callable[[CollectorRegistry], bytes]
    encoder, content_type = choose_encoder(accept)
    return content_type, encoder(registry)
