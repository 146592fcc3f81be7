"""What happens in this process of the control plane, counted and timed as it happens.

Routes are labelled by their template, so that no name of a caller's ever becomes a label. What else is told, and when,
is decided in `metrics`.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from time import perf_counter
from typing import Any, Final, TypeVar

from prometheus_client.core import Metric as Family
from sqlalchemy import Engine, event

from nearcast.metrics import Distribution, Labels, Metric, family

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS: Final = Metric("nearcast_control_requests_total", "counter", "Calls of the API", ("route", "method", "code"))
DURATION: Final = Metric("nearcast_control_request_seconds", "histogram", "Time that a call took", ("route",))
PUBLISHED: Final = Metric("nearcast_control_plans_published_total", "counter", "Site plans that were signed and stored")
PUBLISH: Final = Metric("nearcast_control_publish_seconds", "histogram", "Time of a pass that published plans")
PLAN: Final = Metric(
    "nearcast_control_plan_seconds", "histogram", "Time of a pass of the fleet's planner", ("planned",)
)
FAILED: Final = Metric("nearcast_control_pass_failures_total", "counter", "Passes of the controllers that failed")
DATABASE: Final = Metric("nearcast_control_database_seconds", "histogram", "Time of a statement in the database")
DATABASE_ERRORS: Final = Metric("nearcast_control_database_errors_total", "counter", "Statements that failed")
STORE: Final = Metric("nearcast_control_store_seconds", "histogram", "Time of a call of the object store", ("call",))
STORE_ERRORS: Final = Metric("nearcast_control_store_errors_total", "counter", "Calls of it that failed", ("call",))

COUNTED: Final = (REQUESTS, DURATION, PUBLISHED, PUBLISH, PLAN, FAILED, DATABASE, DATABASE_ERRORS, STORE, STORE_ERRORS)

_Port = TypeVar("_Port")
_NO_LABELS: Final[Labels] = ()


class Recorder:
    """Counts what happens in this process. Safe for several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counts: dict[str, Counter[Labels]] = {}
        self._buckets: dict[str, dict[Labels, list[float]]] = {}

    def count(self, metric: Metric, labels: Labels = _NO_LABELS, by: int = 1) -> None:
        """Add to a counter."""
        with self._guard:
            found = self._counts.setdefault(metric.name, Counter())
            found[labels] += by

    def time(self, metric: Metric, seconds: float, labels: Labels = _NO_LABELS) -> None:
        """Add to a histogram."""
        with self._guard:
            held = self._buckets.setdefault(metric.name, {}).setdefault(labels, [0.0] * (len(BUCKETS_S) + 2))
            held[bisect_left(BUCKETS_S, seconds)] += 1
            held[-1] += seconds

    @contextmanager
    def timed(self, metric: Metric, errors: Metric, labels: Labels = _NO_LABELS) -> Iterator[None]:
        """Time what is done inside, and count it where it raises."""
        began_s = perf_counter()
        try:
            yield
        except BaseException:
            self.count(errors, labels)
            raise
        finally:
            self.time(metric, perf_counter() - began_s, labels)

    def family(self, metric: Metric) -> Family:
        """What was counted of ``metric``; zero where it has no labels and nothing was."""
        with self._guard:
            if metric.kind == "histogram":
                held = self._buckets.get(metric.name, {} if metric.labels else {(): [0.0] * (len(BUCKETS_S) + 2)})
                return family(metric, [(labels, _distribution(figures)) for labels, figures in held.items()])
            counts = self._counts.get(metric.name, Counter() if metric.labels else Counter({(): 0}))
            return family(metric, list(counts.items()))

    def watch_database(self, engine: Engine) -> None:
        """Time every statement of ``engine``."""

        def before(_connection: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: Any) -> None:
            context.nearcast_began_s = perf_counter()

        def after(_connection: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: Any) -> None:
            self.time(DATABASE, perf_counter() - context.nearcast_began_s)

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", lambda _context: self.count(DATABASE_ERRORS))

    def watched_store(self, objects: _Port) -> _Port:
        """``objects`` with every call timed; what it answers and raises stays as it is."""
        return _Watched(objects, self)  # type: ignore[return-value]


class _Watched:
    """Any port, each of its methods timed under its name."""

    def __init__(self, port: object, recorder: Recorder) -> None:
        self._port = port
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._timed(found, name) if callable(found) else found

    def _timed(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._recorder.timed(STORE, STORE_ERRORS, (name,)):
                return method(*arguments, **named)

        return call


def _distribution(figures: list[float]) -> Distribution:
    names = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    return Distribution(list(zip(names, accumulate(figures[:-1]), strict=True)), figures[-1])
