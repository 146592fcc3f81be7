"""Mosec: its own Rust front, one worker process, dynamic batching. Raw bytes both ways, the least it can do."""

import sys

import numpy as np
import onnx_session as on
from mosec import Server, Worker


class Infer(Worker):
    def __init__(self) -> None:
        self.session = on.open_session()

    def deserialize(self, data: bytes) -> dict[str, np.ndarray]:
        feeds, offset = {}, 0
        for name, (dtype, shape) in on.ROWS.items():
            count = int(np.prod(shape))
            feeds[name] = np.frombuffer(data, dtype, count, offset).reshape(shape)
            offset += count * dtype.itemsize
        return feeds

    def forward(self, data: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
        results = self.session.run(None, {name: np.concatenate([each[name] for each in data]) for name in data[0]})
        return [[result[row : row + 1] for result in results] for row in range(len(data))]

    def serialize(self, data: list[np.ndarray]) -> bytes:
        return b"".join(each.tobytes() for each in data)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "--port", str(on.PORT), "--address", "127.0.0.1", "--log-level", "warning"]
    server = Server()
    server.append_worker(Infer, num=1, max_batch_size=on.BATCH_MAX, max_wait_time=int(on.WAIT_S * 1000))
    server.run()
