"""The bare Protocol: the least that an asyncio server can do for one model, as the limit for ours.

    python -m bench.bare DIRECTORY MODEL PORT

It speaks the binary form of the Open Inference Protocol v2, trusts every byte that comes, and runs what arrived in one
tick of the loop as one batch of at most 32. It has no limits, timeouts, metrics, refusals, errors, cancellation,
padding, second thread or drain: what those cost in the engine is the difference between the two.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvloop

BATCH_MAX = 32
DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any]


class _Body(msgspec.Struct):
    inputs: list[_Input]


class Tick:
    """What arrived in this tick of the loop, and the session that runs it."""

    def __init__(self, model: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options)
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.decode = msgspec.json.Decoder(_Body).decode
        self.waiting: list[tuple[asyncio.Transport, dict[str, Any]]] = []
        self.loop = asyncio.get_running_loop()

    def add(self, transport: asyncio.Transport, body: bytes, json_length: int) -> None:
        """Parse one request; it runs at the end of the tick."""
        feeds = {}
        position = json_length
        for given in self.decode(body[:json_length]).inputs:
            size = given.parameters["binary_data_size"]
            dtype = DTYPES[given.datatype]
            feeds[given.name] = np.frombuffer(body, dtype, size // dtype.itemsize, position).reshape(given.shape)
            position += size
        if not self.waiting:
            self.loop.call_soon(self.run)
        self.waiting.append((transport, feeds))

    def run(self) -> None:
        """Run all of it, in batches, and answer."""
        waiting, self.waiting = self.waiting, []
        for start in range(0, len(waiting), BATCH_MAX):
            batch = waiting[start : start + BATCH_MAX]
            if len(batch) == 1:
                feeds = batch[0][1]
            else:
                feeds = {name: np.concatenate([each[name] for _, each in batch]) for name in batch[0][1]}
            results = self.session.run(self.outputs, feeds)
            for row, (transport, _) in enumerate(batch):
                transport.write(self.answer([result[row : row + 1] for result in results]))

    def answer(self, results: list[Any]) -> bytes:
        """One answer, as raw tensors behind their JSON."""
        outputs = []
        tail = b""
        for name, result in zip(self.outputs, results, strict=True):
            raw = result.tobytes()
            tail += raw
            shape = ",".join(map(str, result.shape))
            outputs.append(
                f'{{"name":"{name}","datatype":"FP32","shape":[{shape}],"parameters":{{"binary_data_size":{len(raw)}}}}}'
            )
        head = f'{{"model_name":"m","outputs":[{",".join(outputs)}]}}'.encode()
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
            b"content-length: %d\r\n\r\n%b%b" % (len(head), len(head) + len(tail), head, tail)
        )


class Bare(asyncio.Protocol):
    """One connection."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.json_length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 31 and name.lower() == b"inference-header-content-length":
            self.json_length = int(value)

    def on_body(self, body: bytes) -> None:
        self.body = self.body + body if self.body else body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        self.tick.add(self.transport, body, self.json_length)  # type: ignore[arg-type]


async def serve(directory: Path, port: int) -> None:
    """Serve until killed."""
    tick = Tick(directory / "model.onnx")
    server = await asyncio.get_running_loop().create_server(lambda: Bare(tick), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[3])))
