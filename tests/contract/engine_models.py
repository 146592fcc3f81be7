"""Releases of tiny ONNX models, written by the tests that use them."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from nearcast.resources.release import File, ReleaseManifest, Signature, Tensor

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "edge", "world", "near", "cast")
DIMENSIONS = 8
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def _value(tensor: Tensor) -> onnx.ValueInfoProto:
    shape = [f"d{index}" if size == -1 else size for index, size in enumerate(tensor.shape)]
    return helper.make_tensor_value_info(tensor.name, ONNX_TYPES[tensor.datatype], shape)


def release(
    folder: Path,
    model: str,
    version: str,
    signature: Signature,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    tokenizer: bool = False,
    labels: dict[str, str] | None = None,
    max_tokens: int | None = None,
) -> ReleaseManifest:
    """Write the model into ``folder`` and describe it."""
    values = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        nodes, model, [_value(one) for one in signature.inputs], [_value(one) for one in signature.outputs], values
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    folder.mkdir(parents=True, exist_ok=True)
    data = made.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    file = File(path="model.onnx", digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size_bytes=len(data))
    return ReleaseManifest(
        model=model,
        version=version,
        runtime="onnx",
        task="feature-extraction" if tokenizer else "tensor",
        entrypoint="model.onnx",
        files=(file, File(path="tokenizer.json", digest=file.digest, size_bytes=1)) if tokenizer else (file,),
        signature=signature,
        created_at="2026-01-01T00:00:00Z",
        tokenizer="tokenizer.json" if tokenizer else None,
        max_tokens=max_tokens,
        labels=labels or {},
    )


def tensor(name: str, datatype: str, *shape: int) -> Tensor:
    """A tensor of a signature."""
    return Tensor(name=name, datatype=datatype, shape=shape)  # type: ignore[arg-type]


def adder(folder: Path, version: str = "1", constant: float = 1.0, model: str = "adder") -> ReleaseManifest:
    """``y = x + constant`` over float32[batch, 4]."""
    signature = Signature(inputs=(tensor("x", "FP32", -1, 4),), outputs=(tensor("y", "FP32", -1, 4),))
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    return release(folder, model, version, signature, nodes, {"c": np.array(constant, np.float32)})


def mlp(folder: Path) -> ReleaseManifest:
    """The tiny multilayer perceptron 64-128-128-10 of the benchmarks."""
    generator = np.random.default_rng(0)
    sizes = (64, 128, 128, 10)
    nodes, constants, last = [], {}, "x"
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        constants[f"w{layer}"] = generator.standard_normal((fan_in, fan_out)).astype(np.float32) / 8
        constants[f"b{layer}"] = np.zeros(fan_out, np.float32)
        out = "y" if layer == 2 else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [out if layer == 2 else f"g{layer}"]))
        if layer != 2:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [out]))
        last = out
    signature = Signature(inputs=(tensor("x", "FP32", -1, 64),), outputs=(tensor("y", "FP32", -1, 10),))
    return release(folder, "mlp", "1", signature, nodes, constants)


def slow(folder: Path, turns: int = 200, model: str = "slow", batch: int = -1) -> ReleaseManifest:
    """``y = x`` over float32[batch, 4], after a detour of tens of milliseconds, whatever the batch."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "big"], ["m_raw"]),
            helper.make_node("Tanh", ["m_raw"], ["m_out"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [192, 192]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [192, 192]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),  # the detour depends on x: nothing folds it away
        helper.make_node("Mul", ["s", "zero"], ["nothing"]),
        helper.make_node("Add", ["big", "nothing"], ["begin"]),
        helper.make_node("Loop", ["turns", "yes", "begin"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["t"], keepdims=0),
        helper.make_node("Mul", ["t", "zero"], ["nil"]),
        helper.make_node("Add", ["x", "nil"], ["y"]),
    ]
    constants = {
        "big": np.random.default_rng(0).standard_normal((192, 192)).astype(np.float32)
        / 8,  # keeps its size: tiny numbers are slow
        "zero": np.array(0, np.float32),
        "turns": np.array(turns, np.int64),
        "yes": np.array(True),
    }
    signature = Signature(inputs=(tensor("x", "FP32", batch, 4),), outputs=(tensor("y", "FP32", batch, 4),))
    return release(folder, model, "1", signature, nodes, constants)


def centred(folder: Path) -> ReleaseManifest:
    """``y = x - mean(x over the batch)``: rows that depend on one another must never be batched."""
    signature = Signature(inputs=(tensor("x", "FP32", -1, 4),), outputs=(tensor("y", "FP32", -1, 4),))
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return release(folder, "centred", "1", signature, nodes, {})


def picker(folder: Path) -> ReleaseManifest:
    """``y = table[i]`` over int64[batch, 1], for 0 to 4: an index beyond fails in the model, not in the signature."""
    signature = Signature(inputs=(tensor("i", "INT64", -1, 1),), outputs=(tensor("y", "FP32", -1, 1),))
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    return release(folder, "picker", "1", signature, nodes, {"table": np.arange(5, dtype=np.float32)})


def everything(folder: Path) -> ReleaseManifest:
    """One input and one output of every datatype; outputs equal inputs."""
    inputs = tuple(tensor(f"in_{name.lower()}", name, -1, 2) for name in ONNX_TYPES)
    outputs = tuple(tensor(f"out_{name.lower()}", name, -1, 2) for name in ONNX_TYPES)
    nodes = [helper.make_node("Identity", [i.name], [o.name]) for i, o in zip(inputs, outputs, strict=True)]
    return release(folder, "everything", "1", Signature(inputs=inputs, outputs=outputs), nodes, {})


def embedder(
    folder: Path, *, labels: dict[str, str] | None = None, max_tokens: int | None = 16, model: str = "words"
) -> ReleaseManifest:
    """The mean of one row per token, float32[batch, 8], with a tokenizer of nine words that adds [CLS] and [SEP]."""
    signature = Signature(
        inputs=(tensor("input_ids", "INT64", -1, -1), tensor("attention_mask", "INT64", -1, -1)),
        outputs=(tensor("embedding", "FP32", -1, DIMENSIONS),),
    )
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["embedding"]),
    ]
    constants = {"table": table(), "one": np.array([1], np.int64), "last": np.array([-1], np.int64)}
    made = release(
        folder, model, "1", signature, nodes, constants, tokenizer=True, labels=labels, max_tokens=max_tokens
    )
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(4)  # what a release carries must not cut inputs silently
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return made


def table() -> np.ndarray:
    """The rows of :func:`embedder`, one per word."""
    return np.random.default_rng(1).standard_normal((len(WORDS), DIMENSIONS)).astype(np.float32)


def embedding_of(text: str) -> np.ndarray:
    """What :func:`embedder` answers for ``text``."""
    ids = [2, *(WORDS.index(word) if word in WORDS else 1 for word in text.split()), 3]
    return table()[ids].mean(axis=0)
