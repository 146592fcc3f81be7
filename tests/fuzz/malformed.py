"""Requests that are wrong, each in another way, out of one that is right. Seeded: the same dice throw the same.

Two levels: values (types, ranges, names, nesting, what JSON can spell and a parser may stumble over) and bytes (cut,
flipped, repeated, spliced). Some of what comes out is still valid; whoever sends it must allow for that.
"""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

HUGE = "A" * 100_000
ODD_TEXTS = (
    "", " ", "\x00", "\x07\x1b[31m", "\ud800", "\udfff\ud800", "\uffff", "\u202e", "é" * 300, "../../etc/passwd",
    "%00", "${jndi:x}",
    "'; DROP TABLE", "{{7*7}}", "%s%n", "a" * 5000, "true", "null", "-1", "NaN", "m@1", "\r\nx: y", "<script>",
)  # fmt: skip
ODD_NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 2**200, -(2**63) - 1, 0.5, -0.0, 1e308, 1e-320,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [1, "a", None],
    *ODD_NUMBERS,
    *ODD_TEXTS,
)
ODD_SHAPES: tuple[Any, ...] = (
    [], [0], [0, 4], [-1, 4], [1, -4], [1, 5], [2, 4], [1, 4, 1], [2**40, 4], [2**62, 2**62], [2**64, 1],
    [1.0, 4], ["1", 4],
    [[1, 4]], [1] * 300, [1, 4, 0], None, "1,4", {"0": 1}, [True, 4],
)  # fmt: skip
ODD_DATATYPES = (
    "",
    "fp32",
    "FP32 ",
    "FP128",
    "INT32",
    "BYTES",
    "BOOL",
    "UINT64",
    "FP16",
    "STRING",
    "\x00",
    None,
    32,
    [],
)


def paths_of(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in ``value``, the outermost first."""
    yield above
    if len(above) > 12:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*above, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """``value`` with another one at ``path``."""
    if not path:
        return change(value)
    made = copy.copy(value)
    made[path[0]] = changed(value[path[0]], path[1:], change)
    return made


def mutant(dice: Random, document: Any) -> Any:
    """``document`` with one to three values wrong, missing, or one too many."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        path = dice.choice([*paths_of(document)])
        document = changed(document, path, lambda old: _other(dice, old))
    return document


def _other(dice: Random, old: Any) -> Any:
    how = dice.randrange(7)
    if how == 0 and isinstance(old, dict) and old:
        gone = dice.choice([*old])
        return {key: value for key, value in old.items() if key != gone}
    if how == 1 and isinstance(old, dict):
        return {**old, dice.choice(ODD_TEXTS): dice.choice(ODD_VALUES)}
    if how == 2 and isinstance(old, dict) and old:
        key = dice.choice([*old])
        return {(f"{key}x" if name == key else name): value for name, value in old.items()}
    if how == 3 and isinstance(old, list):
        return old * dice.choice((0, 2, 50))
    if how == 4:
        return [old] if dice.random() < 0.5 else {"a": old}
    if how == 5:
        return nested(dice.choice((40, 400)), dice.choice("[{"))
    return dice.choice(ODD_VALUES)


def nested(depth: int, opening: str) -> Any:
    """Lists in lists, or objects in objects. JSON of our own writes some 900 of them; `spelled` goes deeper."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if opening == "[" else {"a": value}
    return value


def spelled(dice: Random, document: Any) -> bytes:
    """``document`` as JSON, or nearly: NaN as it is, escapes, duplicate keys, odd spaces."""
    try:
        text = json.dumps(document, ensure_ascii=dice.random() < 0.5)
    except RecursionError:
        text = "[" * 2000 + "1" + "]" * 2000
    how = dice.randrange(12)
    if how == 0 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]  # every key twice
    elif how == 1:
        text = text.replace('"', dice.choice(("'", '\\"', "")), dice.randrange(1, 4))
    elif how == 2:
        text = dice.choice(("\ufeff", " " * 5000, "\x00", "/* c */", "[" * 50_000)) + text
    elif how == 3:
        text += dice.choice((text, "]", "}", ",", "\x00", " x", "\n" * 3000))
    elif how == 4:
        text = text.replace(":", ": 1e99999,", 1)
    elif how == 5:
        text = text.replace("e", "\\u0065", dice.randrange(1, 4))
    return text.encode("utf-8", "surrogatepass")


def broken(dice: Random, data: bytes) -> bytes:
    """``data`` with bytes flipped, cut, doubled, or replaced."""
    if not data:
        return b"\x00"
    how, at = dice.randrange(6), dice.randrange(len(data))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    if how == 2:
        return data[:at] + dice.randbytes(dice.randrange(1, 40)) + data[at:]
    if how == 3:
        return data[:at] + data[at:] * 2
    if how == 4:
        return data[at:] + data[:at]
    return dice.randbytes(dice.randrange(0, 200))


def body_of(dice: Random, document: Any) -> bytes:
    """A body that is wrong by its values, by its bytes, or by both."""
    how = dice.randrange(10)
    data = spelled(dice, mutant(dice, document) if how else document)
    return broken(dice, data) if how in {0, 1} else data


# --- the Open Inference Protocol -------------------------------------------------------------------------------------


def inference(dice: Random, valid: dict[str, Any]) -> bytes:
    """A body of ``POST …/infer``: general mutants, and what is special to tensors."""
    if dice.random() < 0.5:
        return body_of(dice, valid)
    document = copy.deepcopy(valid)
    given = dice.choice(document["inputs"])
    how = dice.randrange(9)
    if how == 0:
        given["shape"] = dice.choice(ODD_SHAPES)
    elif how == 1:
        given["datatype"] = dice.choice(ODD_DATATYPES)
    elif how == 2:
        given["data"] = dice.choice(
            ([], [1], [1] * 5, [[1, 2], [3, 4]], [[1, 2, 3]], "AAAA", {"0": 1}, None, [None] * 4)
        )
    elif how == 3:
        given["data"] = [dice.choice(ODD_VALUES) for _ in given["data"]]
    elif how == 4:
        given["parameters"] = dice.choice(
            (
                {"binary_data_size": dice.choice(ODD_NUMBERS)},
                {"shared_memory_region": "x"},
                {"classification": 1},
                [],
                7,
            )
        )
    elif how == 5:
        document["inputs"] = document["inputs"] * dice.choice((0, 2, 500))
    elif how == 6:
        document["outputs"] = dice.choice(([{"name": "nope"}], [{"name": "y"}] * 2, {}, 1, [None], [{"name": 1}]))
    elif how == 7:
        document["model_name"] = dice.choice(ODD_VALUES)
    else:
        document["parameters"] = {"binary_data_output": dice.choice(ODD_VALUES)}
    return spelled(dice, document)


def binary_inference(dice: Random) -> tuple[bytes, list[tuple[str, str]]]:
    """A body with binary tensors, and its headers: sizes that lie, in the JSON, in the header, or in both."""
    size = dice.choice((16, 16, 16, 0, 8, 17, 64, 2**31, 2**63, -16, 1.5, None, "16"))
    given = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": size}}
    document = {"inputs": [given] * dice.choice((1, 1, 1, 2)), "parameters": {"binary_data_output": True}}
    if dice.random() < 0.3:
        document = mutant(dice, document)
    head = spelled(dice, document)
    tail = dice.randbytes(dice.choice((16, 16, 0, 15, 17, 4000)))
    right = str(len(head))
    told = dice.choice(
        (
            right,
            right,
            right,
            "0",
            "-1",
            str(len(head) + len(tail) + 1),
            "9" * 30,
            "NaN",
            "1e2",
            "",
            " 5 5",
            f"+{right}",
            "0x10",
            f"{right},{right}",
            "½",
            str(len(head) - 1),
            str(len(head) + 3),
        )
    )
    headers = [("inference-header-content-length", told)]
    if dice.random() < 0.1:
        headers.append(("Inference-Header-Content-Length", dice.choice((right, "1", "-5"))))
    return head + tail, headers


# --- embeddings ------------------------------------------------------------------------------------------------------


def embeddings(dice: Random, model: str) -> bytes:
    """A body of ``POST /v1/embeddings``."""
    document: dict[str, Any] = {"model": model, "input": "hello edge", "encoding_format": "float"}
    if dice.random() < 0.4:
        return body_of(dice, document)
    how = dice.randrange(6)
    if how == 0:
        document["input"] = dice.choice(
            (
                "",
                [],
                [""],
                ["a", 1],
                [[]],
                [[1], "a"],
                [[-1]],
                [[2**40]],
                [1.5],
                [[[1]]],
                None,
                {},
                7,
                [None],
                [True],
                ["x"] * 3000,
                "hello " * 20_000,
                [4, 5, 10**9],
                "\ud800",
                ["\x00"],
            )
        )
    elif how == 1:
        document["encoding_format"] = dice.choice(ODD_VALUES)
    elif how == 2:
        document["dimensions"] = dice.choice(ODD_VALUES)
    elif how == 3:
        document["model"] = dice.choice((*ODD_TEXTS, "other", f"{model} ", model.upper(), None, 1, [model]))
    elif how == 4:
        del document[dice.choice([*document])]
    else:
        document |= {"user": dice.choice(ODD_VALUES), "model": [model]}
    return spelled(dice, document)
