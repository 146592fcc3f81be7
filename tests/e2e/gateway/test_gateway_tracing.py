"""One trace through a spill: gateway, its attempts, the peer's gateway, a real engine; told to a small collector."""

import gzip
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from e2e.tiny_models import adder
from nearcast.gateway.render import Collector, GatewayInputs, Telemetry
from nearcast.registry.release import describe
from nearcast.resources import wire
from nearcast.resources.release import encode_release

BODY: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 0.0, 0.0, 0.0]}]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class OtlpCollector:
    """Takes spans by OTLP over HTTP, and keeps them: (service, instance, span)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, Span]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if "content-length" in self.headers:
                    return self.rfile.read(int(self.headers["content-length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):  # Envoy sends in chunks
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: item.value.string_value for item in each.resource.attributes}
            for scope in each.scope_spans:
                self.spans += [
                    (about["service.name"], about.get("nearcast.site", about.get("service.instance.id", "")), span)
                    for span in scope.spans
                ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def trace(self, trace_id: str) -> list[tuple[str, str, Span]]:
        return [item for item in list(self.spans) if item[2].trace_id.hex() == trace_id]


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    made = OtlpCollector()
    yield made
    made.close()


@pytest.fixture
def engine(own_fleet: Any, collector: OtlpCollector) -> Iterator[tuple[Any, Path]]:
    """A real engine behind the peer `iad`, with spans."""
    peer = own_fleet.site("iad")
    run_dir = peer.root / "run"
    peer.add("adder").stop()
    peer.status.stop()
    (run_dir / wire.model_socket("adder", "1")).unlink()
    (run_dir / wire.ENGINE_STATUS).unlink()
    traces = f"http://127.0.0.1:{collector.port}/v1/traces"
    command = [sys.executable, "-m", "nearcast.engine", "--run-dir", str(run_dir), "--threads", "1"]
    process = subprocess.Popen([*command, "--otlp-traces", traces, "--name", "iad/n1"], stderr=subprocess.DEVNULL)
    try:
        own_fleet.until((run_dir / wire.ENGINE_ADMIN).exists, "the engine")
        described = describe(adder(peer.root / "model", 1.0), model="adder", version="1", now=_now())
        manifest = encode_release(described.manifest).decode()
        order = f'{{"directory": "{peer.root / "model"}", "manifest": {manifest}}}'
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(run_dir / wire.ENGINE_ADMIN)), timeout=30) as client:
            answer = client.put(f"http://e{wire.admin_model_path('adder', '1')}", content=order)
            assert answer.status_code == 200, answer.text
        yield peer, run_dir
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def traced(inputs: GatewayInputs, collector: OtlpCollector, ratio: float) -> GatewayInputs:
    to = Collector("127.0.0.1", collector.port, "/v1/traces", tls=False, ratio=ratio)
    return replace(inputs, telemetry=Telemetry(collector=to))


def ask(site: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{site.public}/v2/models/adder/infer", json=BODY, headers=headers, timeout=20)


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def test_one_trace_through_a_spill_to_a_peers_engine(own_fleet, collector, engine):
    peer, _ = engine
    home = own_fleet.site("fra")
    home.add("adder").mode = "full"
    peer.run(traced(peer.inputs({"adder": [(100, "iad")]}, callers=("fra",)), collector, 0.0))
    home.run(traced(home.inputs({"adder": [(100, "fra>iad")]}, peers=(peer,)), collector, 0.0))

    assert ask(home).status_code == 200  # without a parent the ratio counts: none
    answer = ask(home, traceparent=f"00-{TRACE}-{PARENT}-01", **{"x-request-id": "traced-1"})
    assert (answer.status_code, answer.headers["x-nearcast-reason"]) == (200, "spill;attempt=2")
    own_fleet.until(lambda: len(collector.trace(TRACE)) >= 8, f"eight spans, there are {len(collector.spans)}")

    spans = collector.trace(TRACE)
    by_id = {span.span_id.hex(): (service, where, span) for service, where, span in spans}
    compute = next(span for _, _, span in spans if span.name == "compute")
    path = []
    span = compute
    while span.parent_span_id.hex() in by_id:
        service, where, span = by_id[span.parent_span_id.hex()]
        path.append((service, where))
    assert path == [
        ("nearcast-engine", "iad/n1"),
        ("nearcast-gateway", "iad"),  # its attempt
        ("nearcast-gateway", "iad"),  # the request as the peer got it
        ("nearcast-gateway", "fra"),  # the second attempt
        ("nearcast-gateway", "fra"),  # the request as it came in
    ]
    assert span.parent_span_id.hex() == PARENT
    first = [span for _, where, span in spans if where == "fra" and attributes(span).get("http.status_code") == "503"]
    assert len(first) == 1, "the full place is in the trace, too"
    served = attributes(by_id[compute.parent_span_id.hex()][2])
    assert (served["gen_ai.request.model"], served["gen_ai.response.model"]) == ("adder", "adder@1")
    assert (served["nearcast.request_id"], served["http.response.status_code"]) == ("traced-1", 200)
    assert attributes(compute)["nearcast.batch.size"] == 1
    assert {item[2].trace_id.hex() for item in collector.spans} == {TRACE}, "nothing else was sampled"


def test_a_grpc_call_is_traced_into_the_engine_as_any_request(own_fleet, collector, engine):
    peer, _ = engine
    peer.run(traced(peer.inputs({"adder": [(100, "iad")]}), collector, 0.0))
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    request = pb.ModelInferRequest(model_name="adder", inputs=[given], raw_input_contents=[bytes(16)])
    metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
    with grpc.insecure_channel(f"127.0.0.1:{peer.public}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(request, metadata=metadata, timeout=20)
        own_fleet.until(lambda: len(collector.trace(TRACE)) >= 5, "the spans of the call")
        request.inputs[0].datatype = "INT8"
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(request, metadata=metadata, timeout=20)
    own_fleet.until(lambda: len(collector.trace(TRACE)) >= 8, "the spans of the refused call")
    names = Counter(span.name for service, _, span in collector.trace(TRACE) if service == "nearcast-engine")
    assert names == {"infer adder": 2, "queue": 1, "compute": 1}


def test_a_ratio_samples_what_has_no_parent_and_a_parent_can_decline(own_fleet, collector):
    home = own_fleet.site("fra")
    seen = home.add("adder").seen
    home.run(traced(home.inputs({"adder": [(100, "fra")]}), collector, 1.0))
    ask(home)
    ask(home, traceparent=f"00-{TRACE}-{PARENT}-00")
    sampled, declined = (each.headers["traceparent"].split("-") for each in seen)
    assert sampled[3] == "01"
    assert (declined[1], declined[3]) == (TRACE, "00"), "the context goes on, unsampled"
    own_fleet.until(lambda: len(collector.spans) >= 2, "the spans of the first request")
    assert {item[2].trace_id.hex() for item in collector.spans} == {sampled[1]}


def test_a_collector_that_is_gone_costs_nobody_an_answer(own_fleet, collector):
    home = own_fleet.site("fra")
    home.add("adder")
    home.run(traced(home.inputs({"adder": [(100, "fra")]}), collector, 1.0))
    collector.close()
    assert [ask(home).status_code for _ in range(20)] == [200] * 20


def test_an_engine_without_a_collector_loads_nothing_of_it():
    program = "import sys, nearcast.engine.__main__; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
