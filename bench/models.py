"""The three models of the engine's benchmark, and one request for each, as a binary tensor body."""

import importlib.util
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TOKENS = 32
SIZES = (64, 128, 128, 10)


@dataclass(frozen=True)
class Subject:
    """A release directory, and the feeds of one request (name -> array with a batch dimension of 1)."""

    name: str
    directory: Path
    feeds: dict[str, np.ndarray]

    def request(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one inference with binary tensors both ways (Open Inference Protocol v2)."""
        names = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
        inputs = [
            {
                "name": name,
                "shape": list(value.shape),
                "datatype": names[str(value.dtype)],
                "parameters": {"binary_data_size": value.nbytes},
            }
            for name, value in self.feeds.items()
        ]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        body = head + b"".join(value.tobytes() for value in self.feeds.values())
        return body, {
            "inference-header-content-length": str(len(head)),
            "content-type": "application/octet-stream",
        }


def subjects(folder: Path) -> list[Subject]:
    """The tiny MLP (64-128-128-10), magika, and MiniLM with 32 tokens."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (1, TOKENS), dtype=np.int64)
    ones = np.ones_like(ids)
    return [
        Subject("tiny", tiny(folder / "tiny"), {"x": rng.standard_normal((1, SIZES[0]), dtype=np.float32)}),
        Subject(
            "magika",
            _example("01-file-types").write_release(folder / "magika"),
            {"bytes": rng.integers(0, 256, (1, 2048), dtype=np.int32)},
        ),
        Subject(
            "minilm",
            _example("02-sentence-embeddings").write_release(folder / "minilm"),
            {"input_ids": ids, "attention_mask": ones, "token_type_ids": np.zeros_like(ids)},
        ),
    ]


def tiny(folder: Path) -> Path:
    """Write an MLP with ReLUs and seeded weights, float32[batch, 64] to float32[batch, 10]."""
    rng = np.random.default_rng(1)
    values, nodes, last = [], [], "x"
    for layer, (rows, columns) in enumerate(itertools.pairwise(SIZES)):
        values.append(numpy_helper.from_array(rng.standard_normal((rows, columns), dtype=np.float32), f"w{layer}"))
        values.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"b{layer}"))
        out = "y" if layer == len(SIZES) - 2 else f"h{layer}"
        linear = out if out == "y" else f"l{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [linear]))
        if out != "y":
            nodes.append(helper.make_node("Relu", [linear], [out]))
        last = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZES[-1]])
    graph = helper.make_graph(nodes, "tiny", [x], [y], values)
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_example_{name[:2]}", EXAMPLES / name / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
