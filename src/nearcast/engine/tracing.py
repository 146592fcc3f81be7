"""Spans of the engine: one per request, with its wait and its computation as children, exported by OTLP over HTTP.

Imported only where a collector is named, so that nobody else loads OpenTelemetry or pays for it. Decides what a span
says, in the names of OpenTelemetry's conventions for HTTP and generative AI where they fit. Whether a request is traced
was decided before: by the ``traceparent`` that the gateway sends. A request without one, or not sampled, has no span.
"""

import functools
import re
from collections.abc import Callable
from time import perf_counter, time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nearcast import __version__
from nearcast.engine.connection import Connection
from nearcast.engine.embedding import Embedding
from nearcast.engine.endpoint import Inference, InferenceCall, ModelEndpoint
from nearcast.engine.exchange import Exchange
from nearcast.engine.headers import Headers, Names
from nearcast.engine.layout import Part
from nearcast.engine.refusal import Refusal
from nearcast.engine.work import Timing
from nearcast.resources import wire

SERVICE: Final = "nearcast-engine"
QUEUE: Final = 2048
"""Spans that wait for the collector; more are dropped."""
EXPORT_S: Final = 5
TEXT_MAX: Final = 256
"""Of what a caller wrote, in a span: spans wait for the collector, and a head may have 60 KiB."""

_SAMPLED: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf](?:-.*)?")
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")


class Tracing:
    """Makes and exports spans. For the loop's thread; the export has one of its own.

    Args:
        endpoint: URL that takes traces (``…/v1/traces``).
        node: who this engine belongs to.
        exporter: where spans go instead, for tests.
    """

    def __init__(self, endpoint: str, node: str, exporter: SpanExporter | None = None) -> None:
        attributes = {"service.name": SERVICE, "service.version": __version__, "service.instance.id": node}
        self._provider = TracerProvider(resource=Resource(attributes), shutdown_on_exit=False)
        export = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
        self._provider.add_span_processor(
            BatchSpanProcessor(export, max_queue_size=QUEUE, schedule_delay_millis=1000, export_timeout_millis=5000)
        )
        self._tracer = self._provider.get_tracer("nearcast.engine", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def kinds(self) -> tuple[Callable[..., ModelEndpoint], Callable[[Any], Connection]]:
        """What makes endpoints and connections whose requests are traced."""
        return functools.partial(TracedEndpoint, tracing=self), TracedConnection

    def close(self) -> None:
        """Export what is left, in some seconds at most."""
        self._provider.shutdown()

    def record(self, exchange: "TracedExchange", status: int, message: str = "") -> None:
        """Write the spans of an exchange that is being answered with ``status``."""
        ended_s, ended_ns = perf_counter(), time_ns()

        def at(moment_s: float) -> int:
            return ended_ns - round((ended_s - moment_s) * 1e9)

        context = self._propagator.extract({"traceparent": exchange.traceparent.decode("latin-1")})
        model, version = exchange.traced.codec.model, exchange.traced.codec.version
        embeds = exchange.path == wire.EMBEDDINGS_PATH.encode()
        span = self._tracer.start_span(
            f"{'embeddings' if embeds else 'infer'} {model}",
            context,
            SpanKind.SERVER,
            {
                "http.request.method": exchange.method.decode("latin-1"),
                "url.path": exchange.path[:TEXT_MAX].decode("latin-1"),
                "http.response.status_code": status,
                "gen_ai.operation.name": "embeddings" if embeds else "infer",
                "gen_ai.request.model": model,
                "gen_ai.response.model": wire.model_at(model, version),
                "nearcast.model.version": version,
                **(
                    {"nearcast.request_id": exchange.request_id[:TEXT_MAX].decode("latin-1")}
                    if exchange.request_id
                    else {}
                ),
            },
            start_time=at(exchange.arrived_s),
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, message[:TEXT_MAX]))
        if exchange.timing is not None:
            self._parts(exchange.timing, set_span_in_context(span), at(exchange.arrived_s), at)
        span.end(ended_ns)

    def _parts(self, timing: Timing, parent: Context, arrived_ns: int, at: Callable[[float], int]) -> None:
        started_ns, finished_ns = at(timing.started_s), at(timing.finished_s)
        self._tracer.start_span("queue", parent, start_time=arrived_ns).end(started_ns)
        attributes = {"nearcast.batch.size": timing.pieces}
        self._tracer.start_span("compute", parent, attributes=attributes, start_time=started_ns).end(finished_ns)


class TracedExchange(Exchange):
    """An exchange that writes a span when it is answered, if its ``traceparent`` asks for one."""

    __slots__ = ("arrived_s", "timing", "traced", "traceparent")

    def __init__(
        self, connection: "TracedConnection", method: bytes, target: bytes, headers: Headers, names: Names, body: bytes
    ) -> None:
        super().__init__(connection, method, target, headers, names, body)
        self.traced = connection.traced
        self.arrived_s = perf_counter()
        self.timing: Timing | None = None
        found = headers.get(b"traceparent", b"")
        self.traceparent = found if _SAMPLED.fullmatch(found) else b""

    def reply(self, head: bytes, body: bytes) -> None:
        """See `engine.exchange`."""
        super().reply(head, body)
        if self.traceparent:
            status = _STATUS.match(head)
            self.traced.tracing.record(self, int(status[1]) if status else 0)

    def reply_call(self, head: bytes, message: bytes) -> None:
        """See `engine.exchange`."""
        super().reply_call(head, message)
        if self.traceparent:
            self.traced.tracing.record(self, 200)

    def refuse(self, refusal: Refusal) -> None:
        """See `engine.exchange`."""
        super().refuse(refusal)
        if self.traceparent:
            self.traced.tracing.record(self, refusal.status, refusal.message)


class TracedConnection(Connection):
    """A connection whose requests are traced."""

    exchange_type = TracedExchange  # type: ignore[assignment]

    def __init__(self, endpoint: "TracedEndpoint") -> None:
        super().__init__(endpoint)
        self.traced = endpoint


class _TracedInference(Inference):
    __slots__ = ()

    def finished(self, results: Part, timing: Timing) -> None:
        if isinstance(self._exchange, TracedExchange):
            self._exchange.timing = timing
        super().finished(results, timing)


class _TracedCall(InferenceCall):
    __slots__ = ()

    def finished(self, results: Part, timing: Timing) -> None:
        if isinstance(self._exchange, TracedExchange):
            self._exchange.timing = timing
        super().finished(results, timing)


class _TracedEmbedding(Embedding):
    def _answer(self, timing: Timing) -> None:
        if isinstance(self._exchange, TracedExchange):
            self._exchange.timing = timing
        super()._answer(timing)


class TracedEndpoint(ModelEndpoint):
    """A model's endpoint whose requests are traced."""

    def __init__(self, *parts: Any, tracing: Tracing, **more: Any) -> None:
        super().__init__(*parts, **more)
        self.tracing = tracing
        self._inference, self._embedding = _TracedInference, _TracedEmbedding
        self._inference_call = _TracedCall
