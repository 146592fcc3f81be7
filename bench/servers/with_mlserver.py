"""Seldon's MLServer: a custom runtime, no parallel workers (they cost more than they give on one core), JSON."""

import onnx_session as on
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Infer(MLModel):
    async def load(self) -> bool:
        self.session = on.open_session()
        self.names = [each.name for each in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        results = self.session.run(None, feeds)
        outputs = [NumpyCodec.encode_output(name, result) for name, result in zip(self.names, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
