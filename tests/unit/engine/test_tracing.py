"""What a span of the engine may hold of what a caller wrote."""

from types import SimpleNamespace
from typing import Any, cast

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nearcast.engine.tracing import TEXT_MAX, TracedExchange, Tracing


def test_a_span_holds_little_of_a_long_head() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("http://127.0.0.1:1/v1/traces", "n", exporter)
    exchange: Any = SimpleNamespace(
        traceparent=b"00-%b-%b-01" % (b"a" * 32, b"b" * 16),
        traced=SimpleNamespace(codec=SimpleNamespace(model="m", version="1")),
        path=b"/" * 60_000,
        method=b"POST",
        request_id=b"r" * 60_000,
        arrived_s=0.0,
        timing=None,
    )
    tracing.record(cast(TracedExchange, exchange), 500, "why " * 60_000)
    tracing.close()
    (span,) = exporter.get_finished_spans()
    texts = [value for value in (span.attributes or {}).values() if isinstance(value, str)]
    assert max(map(len, [*texts, span.status.description or ""])) == TEXT_MAX
