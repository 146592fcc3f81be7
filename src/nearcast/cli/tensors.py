"""Tensors of the Open Inference Protocol v2 for people: from the words of a command line, and into them.

Numeric tensors travel by the protocol's binary extension in both directions (FP16 has no JSON form there), text as
JSON. Decides how a value is fitted to the model's signature: its datatype, and a missing batch dimension.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nearcast.errors import InvalidInput, NearcastError
from nearcast.resources.release import Tensor

DTYPES: Final[Mapping[str, str]] = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
Array = NDArray[Any]
_NAMED: Final = re.compile(r"^([A-Za-z_][\w./:-]*)=(.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Filled:
    """An input with its value: an array of the signature's datatype; of ``object`` (text) for BYTES."""

    tensor: Tensor
    value: Array


def fill(texts: Sequence[str], inputs: Sequence[Tensor]) -> list[Filled]:
    """The inputs of a request out of ``NAME=JSON``, ``NAME=@file.json``, ``NAME=@file.npy``; one input needs no name.

    Raises:
        InvalidInput: a name, file, value or shape does not fit, or an input is missing.
    """
    known = {tensor.name: tensor for tensor in inputs}
    filled: dict[str, Filled] = {}
    for text in texts:
        name, value = _split(text, known)
        if name in filled:
            raise InvalidInput(f"the input {name!r} is given twice")
        filled[name] = Filled(known[name], fit(known[name], _value(name, value)))
    if missing := [name for name in known if name not in filled]:
        raise InvalidInput(
            f"expected a value for {', '.join(missing)}",
            hint="; ".join(f"--input {tensor.name}=…  ({words(tensor)})" for tensor in inputs),
        )
    return [filled[name] for name in known]


def fit(tensor: Tensor, value: Any) -> Array:
    """``value`` as an array for ``tensor``; where only the batch dimension is missing, it becomes a batch of one.

    Raises:
        InvalidInput: it does not fit.
    """
    try:
        if tensor.datatype == "BYTES":
            array: Array = np.array(value, dtype=object)
        elif isinstance(value, np.ndarray):
            array = value.astype(DTYPES[tensor.datatype], casting="same_kind")
        else:
            array = np.array(value, dtype=DTYPES[tensor.datatype])
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"input {tensor.name}: expected {words(tensor)}: {error}") from error
    if array.ndim == len(tensor.shape) - 1 and tensor.shape[0] in {-1, 1}:
        array = array[np.newaxis]
    fits = array.ndim == len(tensor.shape) and all(
        wanted in {-1, size} for wanted, size in zip(tensor.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidInput(f"input {tensor.name}: expected {words(tensor)}, got the shape {list(array.shape)}")
    return array


def encode(filled: Sequence[Filled]) -> tuple[bytes, int]:
    """The body of an inference request, and the length of the JSON at its head."""
    inputs, tail = [], b""
    for each in filled:
        entry: dict[str, Any] = {
            "name": each.tensor.name,
            "datatype": each.tensor.datatype,
            "shape": list(each.value.shape),
        }
        if each.tensor.datatype == "BYTES":
            entry["data"] = each.value.ravel().tolist()
        else:
            data = np.ascontiguousarray(each.value).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail += data
        inputs.append(entry)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + tail, len(head)


def decode(body: bytes, head_length: int | None) -> dict[str, Any]:
    """An inference answer as a document whose outputs hold ``data`` as nested lists.

    Raises:
        NearcastError: it does not keep to the protocol.
    """
    try:
        answer: dict[str, Any] = json.loads(body[:head_length])
        offset = len(body) if head_length is None else head_length
        for output in answer["outputs"]:
            size = (output.get("parameters") or {}).pop("binary_data_size", None)
            if size is not None:
                output["data"] = _from_binary(body[offset : offset + size], output["datatype"], output["shape"])
                offset += size
            else:
                output["data"] = np.array(output["data"], dtype=object).reshape(output["shape"]).tolist()
            if not output.get("parameters"):
                output.pop("parameters", None)
    except (ValueError, KeyError, TypeError) as error:
        raise NearcastError(f"the answer is none of the Open Inference Protocol: {error!r}") from error
    return answer


def words(tensor: Tensor) -> str:
    """A tensor for people: ``INT32[-1, 2048]``."""
    return f"{tensor.datatype}[{', '.join(str(size) for size in tensor.shape)}]"


def _split(text: str, known: Mapping[str, Tensor]) -> tuple[str, str]:
    match = _NAMED.match(text)
    if match and match.group(1) in known:
        return match.group(1), match.group(2)
    if match is None and len(known) == 1:
        return next(iter(known)), text
    raise InvalidInput(
        f"expected --input NAME=VALUE with a name among {', '.join(known)}; got {text[:60]!r}",
        hint="a VALUE is JSON, or @file.json, or @file.npy",
    )


def _value(name: str, text: str) -> Any:
    path = Path(text[1:]).expanduser() if text.startswith("@") else None
    try:
        if path is not None and path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return json.loads(path.read_text(encoding="utf-8") if path else text)
    except FileNotFoundError as error:
        raise InvalidInput(f"input {name}: there is no file {path}") from error
    except (OSError, ValueError) as error:
        source = str(path) if path else repr(text[:60])
        raise InvalidInput(
            f"input {name}: expected JSON{' or an .npy file' if path else ''}, got {source}: {error}"
        ) from error


def _from_binary(data: bytes, datatype: str, shape: Sequence[int]) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=DTYPES[datatype]).reshape(shape).tolist()
    texts, offset = [], 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset : offset + 4], "little")
        texts.append(data[offset + 4 : end].decode("utf-8", errors="replace"))
        offset = end
    return np.array(texts, dtype=object).reshape(shape).tolist()
