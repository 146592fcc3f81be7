"""Triton's server with its Python backend, as nvidia-pytriton starts it; dynamic batching without delay."""

import numpy as np
import onnx_session as on
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

session = on.open_session()
outputs = session.get_outputs()


@batch
def infer(**feeds: np.ndarray) -> list[np.ndarray]:
    return session.run(None, feeds)


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=on.PORT,
        grpc_port=on.free_port(),
        metrics_port=on.free_port(),
        log_verbose=0,
        http_thread_count=2,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=on.MODEL,
            infer_func=infer,
            inputs=[Tensor(name=name, dtype=dtype, shape=shape[1:]) for name, (dtype, shape) in on.ROWS.items()],
            outputs=[Tensor(name=each.name, dtype=np.float32, shape=(-1,) * (len(each.shape) - 1)) for each in outputs],
            config=ModelConfig(batching=True, max_batch_size=on.BATCH_MAX, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()
