"""BentoML: a service of one worker, adaptive batching on models that gain by it. All inputs stand in one array."""

import bentoml
import numpy as np
import onnx_session as on

batching = {} if on.MODEL == "tiny" else {"batchable": True, "max_batch_size": on.BATCH_MAX, "max_latency_ms": 60_000}
dtype = next(iter(on.ROWS.values()))[0]


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 512}, logging={"access": {"enabled": False}})
class Infer:
    def __init__(self) -> None:
        self.session = on.open_session()

    @bentoml.api(**batching)
    def infer(self, x: np.ndarray) -> np.ndarray:
        parts = np.split(x.astype(dtype), len(on.ROWS), axis=1)
        feeds = {
            name: part.reshape(-1, *shape[1:]) for part, (name, (_, shape)) in zip(parts, on.ROWS.items(), strict=True)
        }
        return self.session.run(None, feeds)[0]
