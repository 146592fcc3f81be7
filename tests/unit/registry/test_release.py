"""Describing a model: what stands in the manifest, and what is refused."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nearcast.errors import InvalidInput
from nearcast.registry.onnx_files import external_files
from nearcast.registry.release import describe, same_content
from nearcast.resources.release import Tensor, decode_release, encode_release
from nearcast.resources.revision import digest_of

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def write_model(
    path: Path,
    *,
    datatype: int = TensorProto.FLOAT,
    shape: Sequence[int | str | None] = ("batch", 4),
    external: str | None = None,
) -> None:
    """y = x + w, or y = x where numbers cannot be added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = [helper.make_tensor_value_info("x", datatype, shape)]
    outputs = [helper.make_tensor_value_info("y", datatype, shape)]
    if datatype == TensorProto.FLOAT:
        weights = [numpy_helper.from_array(numpy.arange(4, dtype=numpy.float32), "w")]
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    else:
        weights, nodes = [], [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if external is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)


def described(path: Path, **changes: object):  # type: ignore[no-untyped-def]
    return describe(path, **({"model": "m", "version": "1", "now": NOW} | changes))


def test_a_file(tmp_path: Path) -> None:
    write_model(tmp_path / "net.onnx")
    write_model(tmp_path / "unrelated.onnx")
    found = described(tmp_path / "net.onnx", labels={"licence": "MIT"})
    manifest = found.manifest
    assert (manifest.entrypoint, manifest.task, manifest.tokenizer, manifest.max_tokens) == (
        "net.onnx",
        "tensor",
        None,
        None,
    )
    assert manifest.signature.inputs == (Tensor(name="x", datatype="FP32", shape=(-1, 4)),)
    assert manifest.signature.outputs == (Tensor(name="y", datatype="FP32", shape=(-1, 4)),)
    assert manifest.created_at == "2026-03-01T12:30:00Z"
    assert manifest.labels == {"licence": "MIT"}
    data = (tmp_path / "net.onnx").read_bytes()
    assert [(file.path, file.digest, file.size_bytes) for file in manifest.files] == [
        ("net.onnx", digest_of(data), len(data))
    ]
    assert found.files == {"net.onnx": tmp_path / "net.onnx"}
    assert decode_release(encode_release(manifest)) == manifest


@pytest.mark.parametrize(
    ("datatype", "name"),
    [
        (TensorProto.BOOL, "BOOL"),
        (TensorProto.UINT8, "UINT8"),
        (TensorProto.UINT16, "UINT16"),
        (TensorProto.UINT32, "UINT32"),
        (TensorProto.UINT64, "UINT64"),
        (TensorProto.INT8, "INT8"),
        (TensorProto.INT16, "INT16"),
        (TensorProto.INT32, "INT32"),
        (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.DOUBLE, "FP64"),
        (TensorProto.STRING, "BYTES"),
    ],
)
def test_datatypes(tmp_path: Path, datatype: int, name: str) -> None:
    write_model(tmp_path / "a.onnx", datatype=datatype, shape=(2, None, 3))
    (tensor,) = described(tmp_path / "a.onnx").manifest.signature.inputs
    assert (tensor.datatype, tensor.shape) == (name, (2, -1, 3))


def test_a_datatype_that_no_protocol_carries(tmp_path: Path) -> None:
    write_model(tmp_path / "a.onnx", datatype=TensorProto.BFLOAT16)
    with pytest.raises(InvalidInput, match=r"tensor\(bfloat16\)"):
        described(tmp_path / "a.onnx")


def test_an_output_that_is_no_tensor(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    node = helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    graph = helper.make_graph([node], "g", inputs, [helper.make_value_info("z", kind)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(InvalidInput, match="output 'z'") as raised:
        described(tmp_path / "a.onnx")
    assert "zipmap=False" in raised.value.hint


def test_a_folder_with_everything(tmp_path: Path) -> None:
    write_model(tmp_path / "onnx/model.onnx", external="model.onnx_data")
    for name, content in {
        "tokenizer.json": {"truncation": {"max_length": 64}},
        "tokenizer_config.json": {"model_max_length": 512},
        "sentence_bert_config.json": {"max_seq_length": 256},
        ".git/config": {},
        ".hidden": {},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    told: list[tuple[int, int]] = []
    manifest = described(tmp_path, progress=lambda done, total: told.append((done, total))).manifest
    assert [file.path for file in manifest.files] == [
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert manifest.entrypoint == "onnx/model.onnx"
    assert (manifest.tokenizer, manifest.max_tokens, manifest.task) == ("tokenizer.json", 256, "feature-extraction")
    assert told[-1] == (manifest.size_bytes, manifest.size_bytes)


@pytest.mark.parametrize(
    ("files", "tokens"),
    [
        ({"tokenizer_config.json": {"model_max_length": 512}}, 512),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, None),
        ({"tokenizer_config.json": {"model_max_length": 1e30}, "config.json": {"max_position_embeddings": 77}}, 77),
        ({"tokenizer.json": {"truncation": {"max_length": 64}}}, 64),
        ({"tokenizer.json": {"truncation": None}}, None),
        ({"sentence_bert_config.json": {"max_seq_length": None}, "config.json": {"max_position_embeddings": 8}}, 8),
        ({"config.json": []}, None),
    ],
)
def test_longest_input(tmp_path: Path, files: dict[str, object], tokens: int | None) -> None:
    write_model(tmp_path / "model.onnx")
    for name, content in ({"tokenizer.json": {}} | files).items():
        (tmp_path / name).write_text(json.dumps(content))
    assert described(tmp_path).manifest.max_tokens == tokens
    assert described(tmp_path, max_tokens=5, task="fill-mask").manifest.max_tokens == 5


def test_a_tokenizer_beside_the_model_comes_first(tmp_path: Path) -> None:
    write_model(tmp_path / "sub/model.onnx")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "sub/tokenizer.json").write_text("{}")
    assert described(tmp_path).manifest.tokenizer == "sub/tokenizer.json"


def test_which_file_is_opened(tmp_path: Path) -> None:
    write_model(tmp_path / "a.onnx")
    assert described(tmp_path).manifest.entrypoint == "a.onnx"
    write_model(tmp_path / "b.onnx")
    with pytest.raises(InvalidInput, match=r"expected one \.onnx file") as raised:
        described(tmp_path)
    assert "a.onnx, b.onnx" in raised.value.message
    assert described(tmp_path, entrypoint="b.onnx").manifest.entrypoint == "b.onnx"
    with pytest.raises(InvalidInput, match=r"'c\.onnx' among the files"):
        described(tmp_path, entrypoint="c.onnx")
    write_model(tmp_path / "model.onnx")
    assert described(tmp_path).manifest.entrypoint == "model.onnx"


def test_weights_in_another_file_come_along(tmp_path: Path) -> None:
    write_model(tmp_path / "net.onnx", external="net.weights")
    (tmp_path / "unrelated").write_text("")
    assert list(described(tmp_path / "net.onnx").files) == ["net.onnx", "net.weights"]
    (tmp_path / "net.weights").unlink()
    with pytest.raises(InvalidInput, match=r"keeps weights in 'net\.weights'"):
        described(tmp_path / "net.onnx")


def test_weights_of_a_subgraph_and_of_an_attribute(tmp_path: Path) -> None:
    def tensor(name: str, location: str) -> TensorProto:
        proto = numpy_helper.from_array(numpy.ones(2, dtype=numpy.float32), name)
        proto.ClearField("raw_data")
        proto.data_location = TensorProto.EXTERNAL
        entry = proto.external_data.add()
        entry.key, entry.value = "location", location
        return proto

    inner = helper.make_graph([], "inner", [], [], [tensor("w", "./inner.bin")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=tensor("v", "deep/attribute.bin")),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor("u", "outer.bin")]))
    onnx.save(model, tmp_path / "a.onnx")
    assert set(external_files(tmp_path / "a.onnx")) == {"inner.bin", "deep/attribute.bin", "outer.bin"}


@pytest.mark.parametrize("location", ["../up.bin", "/etc/passwd"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    write_model(tmp_path / "a.onnx", external="w.bin")
    model = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInput, match="beside or below"):
        described(tmp_path / "a.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100, b"\x3a\x7f", b'{"a": 1}'])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InvalidInput, match="expected an ONNX model"):
        described(tmp_path / "a.onnx")


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing at"):
        described(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="holds no files"):
        described(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"1")
    with pytest.raises(InvalidInput, match=r"expected an \.onnx file"):
        described(tmp_path)
    with pytest.raises(InvalidInput, match=r"expected an \.onnx file"):
        described(tmp_path / "weights.bin")


def test_links_out_of_the_folder_are_refused_and_links_within_are_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    folder = tmp_path / "model"
    write_model(folder / "model.onnx")
    (folder / "copy.txt").symlink_to("model.onnx")
    assert [file.path for file in described(folder).manifest.files] == ["copy.txt", "model.onnx"]
    (folder / "leak").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInput, match="leads out of"):
        described(folder)
    (folder / "leak").unlink()
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(InvalidInput, match="link to nothing"):
        described(folder)
    (folder / "dangling").unlink()
    (folder / "weights").mkdir()
    (folder / "linked").symlink_to("weights")
    with pytest.raises(InvalidInput, match="linked is a link to a folder"):
        described(folder)
    (folder / "linked").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInput, match="expected files"):
        described(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "Not A Name"}, "expected the name of a model"),
        ({"version": "../1"}, "expected a version"),
        ({"runtime": "torch"}, "expected a runtime"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write_model(tmp_path / "model.onnx")
    with pytest.raises(InvalidInput, match=message):
        described(tmp_path, **changes)


def test_the_same_content_at_another_time_is_the_same(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx")
    one = described(tmp_path).manifest
    later = described(tmp_path, now=datetime(2027, 1, 1, tzinfo=UTC)).manifest
    assert one != later
    assert same_content(one, later)
    assert not same_content(one, described(tmp_path, task="other").manifest)
