"""gRPC through real gateways to real engines, with the reference client: what callers see, near and far."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from contract import engine_models as models
from contract.engine_process import Engine, running_engine
from e2e.local_fleet import eventually
from nearcast.gateway.render import Telemetry
from nearcast.resources import wire
from nearcast.resources.release import Signature

MIB = 1024 * 1024
SERVICE = "/inference.GRPCInferenceService/"
CHANNEL = [
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


class Called:
    """Every answer of one call: code, message, metadata (leading and trailing together), response."""

    def __init__(self, call: object, request: object, metadata: tuple = (), timeout: float = 20) -> None:
        try:
            self.response, done = call.with_call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            self.response, done = None, error
        self.code = done.code().name
        self.message = done.details()
        self.metadata: dict[str, str] = {}
        for key, value in (*done.initial_metadata(), *done.trailing_metadata()):
            self.metadata[key] = ", ".join(filter(None, (self.metadata.get(key), value)))


@contextlib.contextmanager
def called(port: int) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL) as channel:
        yield GRPCInferenceServiceStub(channel)


def question(model: str = "adder", *, rows: int = 1, value: float = 1.0, **more: object) -> pb.ModelInferRequest:
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, 4])
    raw = np.full((rows, 4), value, np.float32).tobytes()
    return pb.ModelInferRequest(model_name=model, inputs=[given], raw_input_contents=[raw], **more)


def real(stack: contextlib.ExitStack, site, *arguments: str) -> Engine:
    """An engine process in the run directory of ``site``, in place of the fake one."""
    site.status.stop()
    return stack.enter_context(running_engine(*arguments, run_dir=site.root / "run"))


def load(engine: Engine, site, manifest, folder, **more: object) -> None:
    engine.load(folder, manifest, **more).raise_for_status()
    place = SimpleNamespace(path=str(engine.socket_of(manifest)), stop=lambda: None)
    site.engines[manifest.model, manifest.version] = place


@pytest.fixture(scope="module")
def sites(fleet, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """`fra` has models of its own; `small` lives at `iad` only, `adder` at both, and `slow` has room for one call."""
    with contextlib.ExitStack() as stack:
        fra, iad = fleet.site("fra"), fleet.site("iad")
        near, far = real(stack, fra), real(stack, iad)
        made = {
            name: (make(tmp_path_factory.mktemp(name)), tmp_path_factory.getbasetemp() / f"{name}0")
            for name, make in {
                "adder": models.adder,
                "everything": models.everything,
                "slow": lambda folder: models.slow(folder, 400),
                "narrow": lambda folder: models.slow(folder, 200, model="narrow"),
                "small": lambda folder: models.adder(folder, model="small"),
                "closed": lambda folder: models.adder(folder, model="closed"),
                "wide": wide,
            }.items()
        }
        for name in ("adder", "everything", "closed", "wide"):
            load(near, fra, *made[name])
        for engine, site in ((near, fra), (far, iad)):
            load(engine, site, *made["narrow"], queue=1)
        load(near, fra, *made["slow"], queue=1)
        for name in ("adder", "small", "slow", "wide"):
            load(far, iad, *made[name])
        from nearcast.resources.plan import ResidencyRule

        rules = (ResidencyRule(policy="us-only", models=("closed",), allow_countries=("US",)),)
        iad.run(replace(iad.inputs({"adder": [(100, "iad")]}, callers=("fra",)), max_body_bytes=MIB))
        fra.run(
            fra.inputs(
                {
                    "adder": [(100, "fra>iad")],
                    "everything": [(100, "fra")],
                    "wide": [(100, "fra")],
                    "slow": [(100, "fra>iad")],
                    "narrow": [(100, "fra>iad")],
                    "small": [(100, "iad")],
                    "ghost": [(100, "iad")],
                    "closed": [(100, "fra")],
                },
                peers=(iad,),
                catalog=("absent",),
                rules=rules,
            )
        )
        yield SimpleNamespace(fra=fra, iad=iad, near=near, far=far)


def wide(folder):
    """``y = x`` over float32[batch, n]: as large as one likes."""
    signature = Signature(inputs=(models.tensor("x", "FP32", -1, -1),), outputs=(models.tensor("y", "FP32", -1, -1),))
    nodes = [models.helper.make_node("Identity", ["x"], ["y"])]
    return models.release(folder, "wide", "1", signature, nodes, {})


@pytest.fixture
def client(sites) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{sites.fra.public}") as made:
        yield made


@pytest.fixture
def stub(sites) -> Iterator[GRPCInferenceServiceStub]:
    with called(sites.fra.public) as made:
        yield made


def test_the_reference_client_asks_all_that_the_protocol_has(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata().name == "nearcast"
    assert client.is_model_ready("adder")
    assert client.is_model_ready("adder", "1")
    metadata = client.get_model_metadata("adder")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("adder", ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [("x", "FP32", [-1, 4])]
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.outputs] == [("y", "FP32", [-1, 4])]


def test_an_inference_says_where_it_was_computed_and_how_long_it_took(stub):
    answer = Called(stub.ModelInfer, question(id="seven"), metadata=(("x-request-id", "r-7"),))
    assert (answer.code, answer.response.id) == ("OK", "seven")
    assert (answer.response.model_name, answer.response.model_version) == ("adder", "1")
    assert np.frombuffer(answer.response.raw_output_contents[0], np.float32).tolist() == [2.0] * 4
    assert answer.metadata["x-nearcast-site"] == "fra"
    assert answer.metadata["x-nearcast-model"] == "adder@1"
    assert answer.metadata["x-nearcast-reason"] == "local;attempt=1"
    assert answer.metadata["x-request-id"] == "r-7"
    for part in ("gateway", "upstream", "queue", "compute"):
        assert f"{part};dur=" in answer.metadata["server-timing"]


def test_a_model_that_only_a_peer_has_is_answered_by_the_peer(client, stub):
    answer = Called(stub.ModelInfer, question("small"))
    assert (answer.code, answer.metadata["x-nearcast-site"]) == ("OK", "iad")
    assert answer.metadata["x-nearcast-reason"] == "nearest;attempt=1"
    assert client.is_model_ready("small")
    assert client.get_model_metadata("small").name == "small"


def test_twenty_megabytes_go_in_and_come_out(client):
    array = np.random.default_rng(0).standard_normal((5, MIB), dtype=np.float32)
    given = triton.InferInput("x", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    result = client.infer("wide", [given])
    np.testing.assert_array_equal(result.as_numpy("y"), array)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
def test_an_unknown_model_is_not_found(stub, method):
    request = {
        "ModelInfer": question("nope"),
        "ModelReady": pb.ModelReadyRequest(name="nope"),
        "ModelMetadata": pb.ModelMetadataRequest(name="nope"),
    }[method]
    answer = Called(getattr(stub, method), request)
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("NOT_FOUND", "model_not_found")
    assert "nope" in answer.message


def test_an_unknown_version_is_not_found(stub):
    answer = Called(stub.ModelInfer, question(model_version="9"))
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("NOT_FOUND", "model_not_found")
    assert "adder@1" in answer.message
    assert answer.metadata["x-nearcast-site"] == "fra"


def test_a_model_that_policies_keep_away_is_denied_naming_the_policy(stub):
    answer = Called(stub.ModelInfer, question("closed"))
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("PERMISSION_DENIED", "residency_refused")
    assert "us-only" in answer.message


def test_a_model_without_a_place_that_is_ready_is_unavailable(stub):
    answer = Called(stub.ModelInfer, question("absent"))
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("UNAVAILABLE", "no_place_ready")
    assert "absent" in answer.message
    assert answer.metadata["retry-after"] == "1"


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (question(""), "names its model"),
        (pb.ModelInferRequest(model_name="adder"), "takes the inputs x"),
        (question(value=1, rows=1, outputs=[{"name": "z"}]), "expected an output of 'y'; got 'z'"),
        (
            pb.ModelInferRequest(
                model_name="adder",
                inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 4]}],
                raw_input_contents=[b"1234"],
            ),
            "takes 16 bytes, got 4",
        ),
        (
            pb.ModelInferRequest(
                model_name="adder",
                inputs=[{"name": "x", "datatype": "INT8", "shape": [1, 4]}],
                raw_input_contents=[b"1234"],
            ),
            "expected datatype FP32, got 'INT8'",
        ),
    ],
)
def test_a_message_that_does_not_fit_is_an_invalid_argument(stub, request_, expected):
    answer = Called(stub.ModelInfer, request_)
    assert answer.code == "INVALID_ARGUMENT"
    assert expected in answer.message
    assert answer.metadata["x-nearcast-error"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "INVALID_ARGUMENT"),
        (b"\x0a\xff", "INVALID_ARGUMENT"),
        (b"\x0a\x05adder\x2a\x02\x0a\x09", "INVALID_ARGUMENT"),
        (b"\x0a\x05adder\x0a\x05small", "INVALID_ARGUMENT"),
        (b"\x0a\x05small\x0a\x05adder", "INVALID_ARGUMENT"),
        (b"\x0b", "INVALID_ARGUMENT"),
        (b"\xff" * 100, "INVALID_ARGUMENT"),
        (b"\x0a\x05a\x00\r\nb", "NOT_FOUND"),
    ],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(sites, message, code):
    with grpc.insecure_channel(f"127.0.0.1:{sites.fra.public}", options=CHANNEL) as channel:
        answer = Called(channel.unary_unary(f"{SERVICE}ModelInfer"), message)
    assert answer.code == code, answer.message
    assert answer.message


def test_a_message_over_the_limit_is_refused_with_a_clear_message(stub):
    answer = Called(stub.ModelInfer, question("wide", rows=4 * MIB + 1))
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("RESOURCE_EXHAUSTED", "body_too_large")
    assert str(64 * MIB) in answer.message


def test_the_limit_is_what_the_gateway_is_told(sites):
    with called(sites.iad.public) as stub:
        assert Called(stub.ModelInfer, question(rows=65_000)).code == "OK"
        answer = Called(stub.ModelInfer, question(rows=66_000))
    assert (answer.code, answer.metadata["x-nearcast-error"]) == ("RESOURCE_EXHAUSTED", "body_too_large")
    assert str(MIB) in answer.message


def test_streams_methods_that_are_not_there_and_other_services_are_unimplemented(client, sites):
    with grpc.insecure_channel(f"127.0.0.1:{sites.fra.public}", options=CHANNEL) as channel:
        stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as raised:
            list(stream(iter([b"\x0a\x05adder"]), timeout=20))
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "ModelStreamInfer" in raised.value.details()
        for path in (f"{SERVICE}RepositoryIndex", "/grpc.health.v1.Health/Check"):
            answer = Called(channel.unary_unary(path), b"")
            assert answer.code == "UNIMPLEMENTED"
            assert path.rpartition("/")[2] in answer.message
    given = triton.InferInput("x", [999, 4], "FP32")  # what does not shrink is sent as it is
    given.set_data_from_numpy(np.ones((999, 4), np.float32))
    with pytest.raises(InferenceServerException, match="compressed messages are not supported") as refused:
        client.infer("adder", [given], compression_algorithm="gzip")
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_what_is_no_grpc_call_is_refused_as_plain_http(sites):
    connection = http.client.HTTPConnection("127.0.0.1", sites.fra.public, timeout=20)
    with contextlib.closing(connection):
        for content in ("application/json", "application/grpc-web", "application/grpc+json", "application/grpc"):
            connection.request("POST", f"{SERVICE}ModelInfer", b"\0\0\0\0\0", {"content-type": content})
            answer = connection.getresponse()
            answer.read()
            assert answer.headers["x-nearcast-error"] == "unsupported", content
            assert answer.status == 415 or answer.headers["grpc-status"] == "12"


def test_a_call_that_ends_badly_is_in_the_log_of_errors_and_no_other(own_fleet):
    site = own_fleet.site("fra")
    log = site.root / "access.log"
    telemetry = Telemetry(access_log="errors", access_log_file=str(log))
    with contextlib.ExitStack() as stack:
        engine = real(stack, site)
        load(engine, site, models.adder(site.root / "model"), site.root / "model")
        site.run(replace(site.inputs({"adder": [(100, "fra")]}), telemetry=telemetry))
        with called(site.public) as stub:
            assert Called(stub.ModelInfer, question()).code == "OK"
            assert Called(stub.ModelInfer, question("nope")).code == "NOT_FOUND"
            assert Called(stub.ModelInfer, question(model_version="9")).code == "NOT_FOUND"
        own_fleet.until(lambda: log.exists() and log.read_text().count("\n") >= 2, "two lines")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["error"] for line in lines] == ["model_not_found", "model_not_found"]


def test_metadata_that_only_the_gateway_may_set_is_taken_away(stub, sites):
    forged = (("x-nearcast-model", "small"), ("x-nearcast-site", "mars"), ("x-envoy-max-retries", "0"))
    answer = Called(stub.ModelInfer, question(), metadata=forged)
    assert (answer.code, answer.metadata["x-nearcast-model"]) == ("OK", "adder@1")
    assert answer.metadata["x-nearcast-site"] == "fra"
    forged = (("x-nearcast-model", "adder"),)
    assert Called(stub.ModelInfer, question("nope"), metadata=forged).code == "NOT_FOUND"


def test_a_full_engine_spills_to_the_peer_and_is_not_ejected(stub, sites):
    calls = [stub.ModelInfer.future(question("slow"), timeout=30) for _ in range(24)]
    places = [dict(call.initial_metadata())["x-nearcast-site"] for call in calls if call.result()]
    assert len(places) == 24
    assert set(places) == {"fra", "iad"}
    assert sites.fra.ejections() == {}


def test_full_everywhere_is_resource_exhausted_and_nobody_is_ejected(stub, sites):
    calls = [stub.ModelInfer.future(question("narrow"), timeout=30) for _ in range(32)]
    ended = [call.exception() for call in calls]
    refused = [error for error in ended if error is not None]
    assert len(refused) < len(ended)
    assert {error.code().name for error in refused} == {"RESOURCE_EXHAUSTED"}
    told = dict(refused[0].trailing_metadata() or refused[0].initial_metadata())
    assert (told["x-nearcast-error"], told["x-nearcast-full"]) == ("queue_full", "queue")
    assert "is full" in refused[0].details()
    assert told["x-nearcast-reason"].endswith("attempt=3"), "both, and the first once more"
    assert sites.fra.ejections() == {}
    assert sites.iad.ejections() == {}


def test_what_a_peer_cannot_take_is_not_held_against_the_peer(stub, sites):
    """Envoy ejects a place that says UNAVAILABLE five times, and with it all other models of the peer."""
    for _ in range(8):
        answer = Called(stub.ModelInfer, question("ghost"))
        assert (answer.code, answer.metadata["x-nearcast-full"]) == ("UNAVAILABLE", "no-model")
        assert "ghost" in answer.message
    assert Called(stub.ModelInfer, question("small")).code == "OK"
    assert sites.fra.ejections() == {}


def test_a_dead_engine_at_the_only_peer_is_unavailable_and_not_held_against_the_peer(own_fleet):
    fra, iad = own_fleet.site("fra"), own_fleet.site("iad")
    iad.add("dead").stop()
    iad.add("well")
    iad.run(iad.inputs({}, callers=("fra",)))
    fra.run(fra.inputs({"dead": [(100, "iad")], "well": [(100, "iad")]}, peers=(iad,)))
    with called(fra.public) as stub:
        for _ in range(8):
            answer = Called(stub.ModelInfer, question("dead"))
            assert (answer.code, answer.metadata["x-nearcast-full"]) == ("UNAVAILABLE", "no-engine")
            assert answer.metadata["x-nearcast-error"] == "no_place_ready"
    assert own_fleet.ask(fra.public, "/v2/models/well/infer", {}).status == 200
    refused = own_fleet.ask(fra.public, "/v2/models/dead/infer", {})
    assert (refused.status, "grpc-status" in refused.headers) == (503, False)
    assert fra.ejections() == {}


def test_a_deadline_ends_the_call_and_the_engine_drops_what_waits_for_it(stub, sites):
    def dropped() -> float:
        with sites.far.client(wire.ENGINE_STATUS) as status:
            lines = status.get(wire.METRICS_PATH).text.splitlines()
        (line,) = [one for one in lines if one.startswith('nearcast_engine_cancelled_total{model="slow"')]
        return float(line.rpartition(" ")[2])

    before = dropped()
    calls = [stub.ModelInfer.future(question("slow"), timeout=0.05) for _ in range(12)]
    ended = [call.exception() for call in calls]
    assert {error.code().name for error in ended if error is not None} == {"DEADLINE_EXCEEDED"}
    assert sum(error is not None for error in ended) >= 8
    eventually(lambda: dropped() > before, "the engine lets go of what nobody waits for")
    assert Called(stub.ModelInfer, question("slow")).code == "OK"
    assert sites.fra.ejections() == {}


def test_the_gateway_keeps_the_deadline_of_a_client_that_does_not(sites):
    message = question("slow", rows=1).SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": "1m"}
    with httpx.Client(http1=False, http2=True, timeout=20) as plain:
        answer = plain.post(f"http://127.0.0.1:{sites.fra.public}{SERVICE}ModelInfer", content=body, headers=head)
    assert (answer.status_code, answer.headers["grpc-status"]) == (200, "4")
    assert answer.headers["x-nearcast-error"]
    assert answer.headers["grpc-message"]
