"""gRPC through a gateway under malformed messages: each ends with a status that says whose fault it is."""

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import grpc
import pytest
from tritonclient.grpc import service_pb2

from e2e.local_fleet import LocalFleet
from e2e.tiny_models import adder
from fuzz.amount import amount, limit_s, seeded
from fuzz.malformed import ODD_TEXTS, broken
from fuzz.vitals import Bounds, Watch, traces

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(limit_s(600))]

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CALLERS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
}


def valid(value: float = 0.0) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="fuzz-grpc")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(struct.pack("<4f", value, 0, 0, 0))
    return request


def message(dice: Random) -> bytes:
    """A message that is wrong by its bytes, or by its fields."""
    request = valid()
    how = dice.randrange(9)
    if how == 0:
        request.inputs[0].shape[:] = dice.choice(([], [0, 4], [-1, 4], [2**62, 4], [1] * 200, [1, 5]))
    elif how == 1:
        request.inputs[0].datatype = dice.choice(("", "FP64", "fp32", "BYTES", "BOOL", "X" * 9000))
    elif how == 2:
        request.raw_input_contents[0] = dice.randbytes(dice.choice((0, 1, 15, 17, 5000)))
    elif how == 3:
        request.inputs.add(name=dice.choice(("x", "y", "", "\x00")), datatype="FP32", shape=[1])
    elif how == 4:
        request.inputs[0].contents.fp32_contents.extend([1.0] * dice.choice((1, 4, 4000)))
    elif how == 5:
        request.outputs.add(name=dice.choice(("nope", "", "x" * 5000)))
    elif how == 6:
        request.model_version = dice.choice(("9", "\x00", "../1"))
    elif how == 7:
        request.model_name = dice.choice([text for text in ODD_TEXTS if text.isprintable()])
    else:
        return broken(dice, request.SerializeToString())
    return bytes(request.SerializeToString())


@pytest.fixture(scope="module")
def site(fleet: LocalFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    folder: Path = tmp_path_factory.mktemp("fuzzed-grpc")
    fleet.push("fuzz-grpc", "1", adder(folder, 1.0))
    fleet.deploy("fuzz-grpc", "1", "frankfurt")
    yield fleet
    fleet.run("delete", "deployment/fuzz-grpc", check=False)


def test_messages(site: LocalFleet) -> None:
    dice = seeded("gateway-grpc")
    logs = [*(site.data_dir / "sites" / "frankfurt" / "logs").glob("*.log")]
    mark = {path: path.stat().st_size for path in logs}
    with grpc.insecure_channel(site.gateway("frankfurt")) as channel:
        call = channel.unary_unary(METHOD, response_deserializer=service_pb2.ModelInferResponse.FromString)

        def refusal() -> grpc.RpcError | None:
            try:
                call(message(dice), timeout=30)
            except grpc.RpcError as error:
                return error
            return None

        def throw() -> None:
            refused = refusal()
            if refused is not None:
                assert refused.code() in CALLERS_FAULT, (refused.code(), refused.details())
                assert len(refused.details()) > 8
                assert "Traceback" not in refused.details()

        for _ in range(100):
            throw()
        watch = Watch(lambda: site.pids("frankfurt"), Bounds(memory_bytes=48 << 20, descriptors=64, threads=12))
        for index in range(amount(400)):
            throw()
            if index % 10 == 0:
                answer = call(valid(float(index)).SerializeToString(), timeout=30)
                assert struct.unpack("<4f", answer.raw_output_contents[0]) == (index + 1.0, 1.0, 1.0, 1.0)
    watch.check()
    assert traces(logs, mark) == []
