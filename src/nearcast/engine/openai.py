"""OpenAI's embeddings API as bytes in and bytes out: no sockets, no tokenizer, no model runs here.

Decides what a well-formed request is and how an answer is written. A body that repeats its top-level ``model`` is
refused: two parsers might choose differently, and a gateway's rule would then be checked for another model than runs.
Source: OpenAI API reference, "Create embeddings". Ours to choose: unknown fields are ignored; ``dimensions`` other than
the model's own needs a release that is labelled for it.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np

from nearcast.engine.datatypes import Array
from nearcast.engine.refusal import Refusal, invalid_request, model_mismatch
from nearcast.resources import wire

MAX_INPUTS: Final = 2048
REPEAT_MAX: Final = 2 * 1024 * 1024
"""Bytes of a body that is read a second time for a repeated ``model``: the interpreter is held meanwhile."""

_ESCAPED_LETTER = re.compile(rb"\\u00[46][cdfCDF45]")
"""An escape that may spell a letter of ``model``; without one, the key can only be written plainly."""


class _Body(msgspec.Struct):
    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A well-formed request: either texts or token ids, one entry per embedding that is wanted."""

    texts: list[str]
    tokens: list[list[int]]
    as_base64: bool
    dimensions: int | None


def parse_embeddings(body: bytes, model: str) -> EmbeddingRequest:
    """The request in ``body``.

    Args:
        body: the whole body.
        model: the model of the socket; the body must name it.

    Raises:
        Refusal: status 400, with what was expected and what came.
    """
    try:
        parsed = msgspec.json.decode(body, type=_Body)
        _refuse_repeated_model(body)
    except msgspec.ValidationError as error:
        raise invalid_request(f"not an embeddings request: {error}") from error
    except RecursionError as error:
        raise invalid_request("not an embeddings request: nested too deeply") from error
    except ValueError as error:  # msgspec.DecodeError, UnicodeDecodeError, json.JSONDecodeError
        raise invalid_request(f"not JSON: {error}") from error
    if parsed.model is None:
        raise Refusal(400, wire.CODE_MODEL_REQUIRED, f"expected model {model!r}, got none", param="model")
    if parsed.model != model:
        raise model_mismatch(f"expected model {model!r}, the body names {parsed.model!r}")
    texts, tokens = _inputs(parsed.input)
    return EmbeddingRequest(texts, tokens, parsed.encoding_format == "base64", parsed.dimensions)


def _refuse_repeated_model(body: bytes) -> None:
    if body.count(b'"model"') <= 1 and _ESCAPED_LETTER.search(body) is None:
        return
    if len(body) > REPEAT_MAX:
        raise invalid_request(
            f'a body of {len(body)} bytes may name its model twice: expected the word "model" once, as the key, and no '
            f"letter of it escaped, in more than {REPEAT_MAX} bytes"
        )
    repeated = False

    def look(pairs: list[tuple[str, object]]) -> None:
        nonlocal repeated  # objects close inside out, so the last word is that of the outermost
        repeated = sum(key == "model" for key, _ in pairs) > 1

    json.loads(body, object_pairs_hook=look)
    if repeated:
        raise model_mismatch("the body names its model more than once")


def _inputs(value: object) -> tuple[list[str], list[list[int]]]:
    """Texts and token ids in OpenAI's four forms of ``input``: one of the two is empty."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise invalid_request(
            f"expected input as text, texts, tokens or lists of tokens; got {_kind(value)}", param="input"
        )
    items: list[Any] = [value] if _is_tokens(value) else value
    if len(items) > MAX_INPUTS:
        message = f"expected at most {MAX_INPUTS} inputs, got {len(items)}"
        raise Refusal(400, wire.CODE_INPUT_TOO_LARGE, message, param="input")
    if all(type(item) is str for item in items):
        if not all(items):
            raise invalid_request(f"input {items.index('')} is an empty text", param="input")
        return items, []
    if all(type(item) is list and item and _is_tokens(item) for item in items):
        return [], items
    kinds = ", ".join(sorted({_kind(item) for item in items}))
    raise invalid_request(
        f"expected input as text, texts, tokens or lists of tokens; got a list of {kinds}", param="input"
    )


def _is_tokens(value: list[Any]) -> bool:
    return all(type(item) is int for item in value)


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "lists" if value else "an empty list"
    return {"str": "text", "NoneType": "null", "dict": "an object"}.get(type(value).__name__, type(value).__name__)


def encode_embeddings(model: str, rows: Sequence[Array], total_tokens: int, *, as_base64: bool) -> bytes:
    """The body of an answer.

    Args:
        model: name of the model.
        rows: one ``float32[dimensions]`` per input, in the order of the inputs.
        total_tokens: tokens of all inputs together, special tokens included.
        as_base64: whether embeddings are base64 of little-endian float32 instead of JSON numbers.
    """
    entries = []
    for index, row in enumerate(rows):
        if as_base64:
            value = b'"%b"' % base64.b64encode(row.astype("<f4", copy=False).tobytes())
        else:
            value = msgspec.json.encode(row.tolist())
        entries.append(b'{"object":"embedding","index":%d,"embedding":%b}' % (index, value))
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        b",".join(entries),
        msgspec.json.encode(model),
        total_tokens,
        total_tokens,
    )


def shortened(row: Array, dimensions: int) -> Array:
    """The first ``dimensions`` of ``float32[n]``, scaled to length 1 (right for models trained to be cut short)."""
    head = row[:dimensions]
    length = float(np.linalg.norm(head))
    return head if length == 0.0 else (head / np.float32(length))
