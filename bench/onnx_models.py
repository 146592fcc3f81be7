"""Models made up for the comparison of devices: seeded weights, real shapes. Needs `onnx`, no network.

`encoder` is a BERT without its pooler (mean over tokens instead), `residual` a ResNet of bottleneck blocks whose
normalisations are folded into the convolutions.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 30522


class _Graph:
    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def weight(self, *shape: int, scale: float = 0.02) -> str:
        return self.constant(self._rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.values)}"
        self.values.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        self._count += 1
        out = name or f"t{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def save(self, folder: Path, inputs: list[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> Path:
        graph = helper.make_graph(self.nodes, "bench", inputs, [output], self.values)
        folder.mkdir(parents=True, exist_ok=True)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, str(folder / "model.onnx"))
        return folder


def encoder(folder: Path, *, hidden: int, layers: int, heads: int) -> Path:
    """Token ids int64[batch, tokens] to one embedding float32[batch, hidden] each."""
    graph = _Graph(1)
    shape = graph.constant(np.array([0, 0, heads, hidden // heads], np.int64))
    flat = graph.constant(np.array([0, 0, hidden], np.int64))
    scale = graph.constant(np.array((hidden // heads) ** -0.5, np.float32))
    root, one, half = (graph.constant(np.array(value, np.float32)) for value in (2**0.5, 1.0, 0.5))

    def linear(x: str, rows: int, columns: int) -> str:
        return graph.add("Add", graph.add("MatMul", x, graph.weight(rows, columns)), graph.weight(columns))

    def normed(x: str) -> str:
        ones, zeros = graph.constant(np.ones(hidden, np.float32)), graph.constant(np.zeros(hidden, np.float32))
        return graph.add("LayerNormalization", x, ones, zeros, axis=-1)

    def split(x: str, order: list[int]) -> str:
        return graph.add("Transpose", graph.add("Reshape", linear(x, hidden, hidden), shape), perm=order)

    x = normed(graph.add("Gather", graph.weight(VOCABULARY, hidden), "ids"))
    for _ in range(layers):
        query, key, value = split(x, [0, 2, 1, 3]), split(x, [0, 2, 3, 1]), split(x, [0, 2, 1, 3])
        shares = graph.add("Softmax", graph.add("Mul", graph.add("MatMul", query, key), scale), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", shares, value), perm=[0, 2, 1, 3])
        x = normed(graph.add("Add", x, linear(graph.add("Reshape", mixed, flat), hidden, hidden)))
        wide = linear(x, hidden, 4 * hidden)
        bent = graph.add("Add", graph.add("Erf", graph.add("Div", wide, root)), one)
        active = graph.add("Mul", graph.add("Mul", wide, bent), half)
        x = normed(graph.add("Add", x, linear(active, 4 * hidden, hidden)))
    graph.add("ReduceMean", x, name="embedding", axes=[1], keepdims=0)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])
    return graph.save(folder, [ids], helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", hidden]))


def residual(folder: Path) -> Path:
    """Images float32[batch, 3, 224, 224] to float32[batch, 1000]: the shapes of ResNet-50."""
    graph = _Graph(2)

    def convolved(x: str, channels: tuple[int, int], size: int, stride: int = 1, *, relu: bool = True) -> str:
        before, after = channels
        weight = graph.weight(after, before, size, size, scale=(2 / (before * size * size)) ** 0.5)
        edge = [size // 2] * 4
        out = graph.add("Conv", x, weight, graph.weight(after), strides=[stride, stride], pads=edge)
        return graph.add("Relu", out) if relu else out

    x = convolved("image", (3, 64), 7, 2)
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    before = 64
    for narrow, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            inner = convolved(convolved(x, (before, narrow), 1), (narrow, narrow), 3, stride)
            outer = convolved(inner, (narrow, 4 * narrow), 1, relu=False)
            short = convolved(x, (before, 4 * narrow), 1, stride, relu=False) if block == 0 else x
            x = graph.add("Relu", graph.add("Add", graph.add("Mul", outer, graph.constant(np.float32([0.2]))), short))
            before = 4 * narrow
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", pooled, graph.weight(before, 1000), graph.weight(1000), name="scores")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    return graph.save(folder, [image], helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1000]))
