"""KServe's model server, its Open Inference Protocol v2 endpoint with binary tensors. It batches nothing by itself."""

import sys

import onnx_session as on

sys.argv = [sys.argv[0], "--http_port", str(on.PORT), "--enable_grpc", "false", "--workers", "1"]
import kserve  # noqa: E402  it reads the command line when it is imported
from kserve import InferOutput, InferRequest, InferResponse  # noqa: E402


class Infer(kserve.Model):
    def __init__(self) -> None:
        super().__init__(on.MODEL)
        self.session = on.open_session()
        self.names = [each.name for each in self.session.get_outputs()]
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        results = self.session.run(None, {each.name: each.as_numpy() for each in payload.inputs})
        outputs = []
        for name, result in zip(self.names, results, strict=True):
            output = InferOutput(name=name, shape=list(result.shape), datatype="FP32")
            output.set_data_from_numpy(result, binary_data=True)
            outputs.append(output)
        return InferResponse(response_id="1", model_name=on.MODEL, infer_outputs=outputs)


if __name__ == "__main__":
    kserve.ModelServer(access_log_format=None).start([Infer()])
