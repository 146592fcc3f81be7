"""What every server under comparison runs: the same session, told by BENCH_SERVER=DIRECTORY;MODEL;PORT."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import onnxruntime

BATCH_MAX = 32
WAIT_S = 0.002

_directory, MODEL, _port = os.environ["BENCH_SERVER"].split(";")
DIRECTORY, PORT = Path(_directory), int(_port)
ROWS = {
    name: (np.dtype(kind), tuple(shape))
    for name, (kind, shape) in json.loads((DIRECTORY / "rows.json").read_text()).items()
}
"""Input name -> dtype and shape of one row, the row's dimension 0 included."""


def open_session() -> onnxruntime.InferenceSession:
    """One intra-op thread, as for all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(DIRECTORY / "model.onnx"), options, providers=["CPUExecutionProvider"])


def free_port() -> int:
    """A port for what else a server insists on listening at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
