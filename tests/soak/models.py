"""A model whose answer tells its version, and whose cost can be set."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 512


def worker(folder: Path, constant: float, layers: int) -> Path:
    """``y = x + constant`` over float32[batch, 4], after ``layers`` products with a 512 x 512 matrix that add nothing.

    The products end in a column that is multiplied by a number too small to show in float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    dice = np.random.default_rng(7)
    square = dice.standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(np.sqrt(WIDTH))
    values = {
        "c": np.array(constant, dtype=np.float32),
        "wide": dice.standard_normal((4, WIDTH)).astype(np.float32),
        "square": square,
        "narrow": np.full((WIDTH, 4), 1e-20, dtype=np.float32),
    }
    nodes = [helper.make_node("Add", ["x", "c"], ["y" if layers == 0 else "sum"])]
    if layers:
        nodes.append(helper.make_node("MatMul", ["x", "wide"], ["h0"]))
        for n in range(layers):
            nodes.append(helper.make_node("MatMul", [f"h{n}", "square"], [f"m{n}"]))
            nodes.append(helper.make_node("Tanh", [f"m{n}"], [f"h{n + 1}"]))
        nodes.append(helper.make_node("MatMul", [f"h{layers}", "narrow"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["sum", "nothing"], ["y"]))
    else:
        values = {"c": values["c"]}
    initialisers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "worker", [x], [y], initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    onnx.save(made, str(folder / "model.onnx"))
    return folder
