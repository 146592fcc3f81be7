"""Granian: a Rust HTTP server calling Python by its own RSGI interface; batches what came in one tick of the loop."""

import asyncio

import msgspec
import numpy as np
import onnx_session as on

DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}


class App:
    def __init__(self) -> None:
        self.session = on.open_session()
        self.waiting = []

    async def __rsgi__(self, scope, protocol) -> None:
        body = await protocol()
        length = int(scope.headers.get("inference-header-content-length"))
        feeds, position = {}, length
        for given in msgspec.json.decode(body[:length])["inputs"]:
            size, dtype = given["parameters"]["binary_data_size"], DTYPES[given["datatype"]]
            feeds[given["name"]] = np.frombuffer(body, dtype, size // dtype.itemsize, position).reshape(given["shape"])
            position += size
        future = asyncio.get_running_loop().create_future()
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.run)
        self.waiting.append((future, feeds))
        raw = await future
        output = b'{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":%d}}' % len(raw)
        head = b'{"model_name":"m","outputs":[%b]}' % output
        headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head)))]
        protocol.response_bytes(200, headers, head + raw)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for start in range(0, len(waiting), on.BATCH_MAX):
            batch = waiting[start : start + on.BATCH_MAX]
            joined = {name: np.concatenate([feeds[name] for _, feeds in batch]) for name in batch[0][1]}
            results = self.session.run(None, joined)
            for row, (future, _) in enumerate(batch):
                future.set_result(b"".join(result[row : row + 1].tobytes() for result in results))


app = App()
