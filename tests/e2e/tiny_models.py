"""Models of a few hundred bytes, written by the test, whose answers tell which version computed them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17)]
WORDS = ("[PAD]", "[UNK]", "hello", "edge", "world")


def adder(folder: Path, constant: float) -> Path:
    """A model ``y = x + constant`` over float32[batch, 4]: the constant tells the version."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    value = numpy_helper.from_array(np.array(constant, dtype=np.float32), "c")
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "adder", [x], [y], [value])
    return _save(folder, graph)


def heavy_adder(folder: Path, constant: float, size_bytes: int) -> Path:
    """As :func:`adder`, with a table of that size in the file, one number of which is looked up."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    table = np.full(size_bytes // 4, constant, dtype=np.float32)
    values = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(0, dtype=np.int64), "first")]
    nodes = [helper.make_node("Gather", ["table", "first"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return _save(folder, helper.make_graph(nodes, "heavy", [x], [y], values))


def embedder(folder: Path) -> Path:
    """A text embedder over five words: the mean of one row per token, float32[batch, 8], with its tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])
    table = np.arange(len(WORDS) * 8, dtype=np.float32).reshape(len(WORDS), 8) / 10
    values = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "one"),
        numpy_helper.from_array(np.array([-1], dtype=np.int64), "last"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["embedding"]),
    ]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _save(folder, helper.make_graph(nodes, "embedder", inputs, [output], values))


def _save(folder: Path, graph: onnx.GraphProto) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    return folder
