"""LitServe: FastAPI before a worker process; its batching on models that gain by it."""

import litserve
import numpy as np
import onnx_session as on


class Infer(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.session = on.open_session()

    def decode_request(self, request: dict) -> dict[str, np.ndarray]:
        return {name: np.asarray(request[name], dtype) for name, (dtype, _) in on.ROWS.items()}

    def batch(self, inputs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([each[name] for each in inputs]) for name in inputs[0]}

    def predict(self, x: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self.session.run(None, x)

    def unbatch(self, output: list[np.ndarray]) -> list[list[np.ndarray]]:
        return [[each[row : row + 1] for each in output] for row in range(len(output[0]))]

    def encode_response(self, output: list[np.ndarray]) -> dict[str, list]:
        return {"outputs": [each.tolist() for each in output]}


if __name__ == "__main__":
    batching = {} if on.MODEL == "tiny" else {"max_batch_size": on.BATCH_MAX, "batch_timeout": on.WAIT_S}
    server = litserve.LitServer(Infer(**batching), accelerator="cpu", fast_queue=True, workers_per_device=1)
    server.run(host="127.0.0.1", port=on.PORT, generate_client_file=False, num_api_servers=1, log_level="warning")
