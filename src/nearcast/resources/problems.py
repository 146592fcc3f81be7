"""What is wrong with a manifest, so that its writer can mend it: where, what was expected, what came, what is near.

Turns the errors of pydantic into :class:`Problem`, with the words of the kind's JSON Schema. Decides no rule itself.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import ErrorDetails

from nearcast.errors import InvalidInput
from nearcast.resources.located import Document, Path, Place, name_of
from nearcast.resources.names import NAME_PATTERN, NAME_RULE, SITE_PATTERN, SITE_RULE, VERSION_PATTERN, VERSION_RULE

MAX_SHOWN: Final = 20
MAX_TEXT: Final = 400
"""Characters of one text of a problem. Keys and values of a manifest stand in them, and may be as long as it is."""
BOUNDLESS: Final = 1e12
"""Bounds from here on only keep arithmetic finite: nobody is told of them."""
_RULES: Final = {NAME_PATTERN: NAME_RULE, SITE_PATTERN: SITE_RULE, VERSION_PATTERN: VERSION_RULE}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        source: name of the file, or of the manifest where there was no text.
        line: line of the text, from 1; 0 where there was no text.
        column: column, likewise.
        field: path of the field (``spec.placement.sites[0]``), or the empty string for the whole document.
        message: what was expected and what came.
        hint: what to do, or the empty string.
    """

    source: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        for name in ("field", "message", "hint"):
            text = getattr(self, name)
            if len(text) > MAX_TEXT:
                object.__setattr__(self, name, f"{text[: MAX_TEXT - 30]}… ({len(text)} characters)")

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        parts = [where, self.field, self.message] if self.field else [where, self.message]
        text = ": ".join(parts)
        return f"{text}. {self.hint}" if self.hint else text


class ManifestError(InvalidInput):
    """Manifests are refused, for all of ``problems`` together."""

    def __init__(self, problems: Iterable[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"and {len(self.problems) - MAX_SHOWN} more")
        super().__init__("\n".join(lines), hint=hint)


def field_name(path: Path) -> str:
    """``path`` as a reader writes it: ``spec.placement.sites[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``word`` was probably meant to be, or None where none is near."""

    def plain(text: str) -> str:
        return "".join(character for character in text.lower() if character.isalnum())

    def likeness(candidate: str) -> tuple[float, bool]:
        wanted = plain(word)
        return difflib.SequenceMatcher(None, candidate, wanted).ratio(), wanted.startswith(candidate)

    by_plain: dict[str, str] = {}
    for candidate in sorted(candidates):
        by_plain.setdefault(plain(candidate), candidate)
    found = difflib.get_close_matches(plain(word), list(by_plain), n=3, cutoff=0.6)
    return by_plain[max(found, key=likeness)] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """``Did you mean 'x'?``, or the empty string."""
    near = nearest(word, candidates)
    return f"Did you mean {near!r}?" if near and near != word else ""


def problems_of(
    errors: Sequence[ErrorDetails], schema: Mapping[str, Any], document: Document, source: str
) -> list[Problem]:
    """As :func:`problem_of`, all in the order of the text; a list is not called too short for its wrong items."""
    wrong = {error["loc"][:end] for error in errors for end in range(len(error["loc"]))}
    real = [error for error in errors if error["type"] != "too_short" or error["loc"] not in wrong]
    found = [problem_of(error, schema, document, source) for error in real]
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def problem_of(error: ErrorDetails, schema: Mapping[str, Any], document: Document, source: str) -> Problem:
    """The problem that ``error`` of pydantic means in ``document``, in the words of the kind's ``schema``."""
    location: Path = tuple(part for part in error["loc"] if part != "[key]")
    value_place = document.values.get(location)
    place = value_place or document.place(location)
    if error["loc"][-1:] == ("[key]",):
        place = document.place(location)
        rule = _RULES.get(str(error.get("ctx", {}).get("pattern")), "another name")
        message, hint = f"expected a name of {rule}; got {name_of(location[-1])}", ""
    elif error["type"] == "extra_forbidden":
        place = document.place(location)
        message, hint = _unknown_field(location, schema)
    elif error["type"] == "missing":
        place = document.place(location[:-1])
        message, hint = f"expected {_expected(_node_at(schema, location), schema)}; got nothing: it is missing", ""
    elif error["type"] == "value_error":
        reason = error.get("ctx", {}).get("error", error["msg"])
        message, hint = str(reason), str(getattr(reason, "hint", ""))
    else:
        node = _node_at(schema, location)
        message = f"expected {_expected(node, schema)}; got {name_of(error['input'])}"
        hint = _hint(node, schema, error["input"], place, location)
    line, column = (place.line, place.column) if document.values else (0, 0)
    return Problem(source, line, column, field_name(location), message, hint)


def _unknown_field(location: Path, schema: Mapping[str, Any]) -> tuple[str, str]:
    name = str(location[-1])
    here = list(_resolved(_node_at(schema, location[:-1]), schema).get("properties", {}))
    message = f"unknown field; expected one of {', '.join(here)}"
    elsewhere = next((path for path in _all_fields(schema, schema) if path[-1] == name), None)
    if elsewhere:
        return message, f"It belongs at {field_name(elsewhere)}."
    return message, did_you_mean(name, here)


def _all_fields(node: Mapping[str, Any], schema: Mapping[str, Any], above: Path = ()) -> Iterable[Path]:
    """Paths of all fields of a kind but its status, outer ones first."""
    properties = dict(_resolved(node, schema).get("properties", {}))
    if not above:
        properties.pop("status", None)
    for name in properties:
        yield (*above, name)
    for name, inner in properties.items():
        yield from _all_fields(inner, schema, (*above, name))


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """``node`` with its reference followed and "or null" taken off; a description beside a reference is kept."""
    if "$ref" in node:
        inner = schema.get("$defs", {}).get(str(node["$ref"]).rpartition("/")[2], {})
        return _resolved({**inner, **{key: value for key, value in node.items() if key != "$ref"}}, schema)
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return _resolved({**options[0], **{key: value for key, value in node.items() if key != "anyOf"}}, schema)
    return node


def _node_at(schema: Mapping[str, Any], location: Path) -> Mapping[str, Any]:
    """The part of ``schema`` that describes ``location``; empty where it describes nothing there."""
    node: Mapping[str, Any] = schema
    for part in location:
        node = _resolved(node, schema)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            extra = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
            node = node.get("properties", {}).get(part) or (extra if isinstance(extra, Mapping) else {})
    return _resolved(node, schema)


def _expected(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What ``node`` takes, in words."""
    node = _resolved(node, schema)
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    if "const" in node:
        return name_of(node["const"])
    match node.get("type"):
        case "string":
            rule = _RULES.get(node.get("pattern", "")) or node.get("description")
            limit = f"at most {node['maxLength']} characters" if "maxLength" in node else None
            details = "; ".join(part for part in (rule, limit) if part)
            return f"text ({details})" if details else "text"
        case "integer" | "number" as kind:
            return ("a whole number" if kind == "integer" else "a number") + _range(node)
        case "array":
            least = f" (at least {node['minItems']})" if "minItems" in node else ""
            return f"a list{least}, each {_expected(node.get('items', {}), schema)}"
        case "object":
            names = list(node.get("properties", {}))
            return f"a mapping with {', '.join(names)}" if names else "a mapping"
    return str(node.get("description", "another value"))


def _range(node: Mapping[str, Any]) -> str:
    """The bounds of a number, in words; empty where there are none."""
    low, high = node.get("minimum"), node.get("maximum")
    high = None if high is not None and high >= BOUNDLESS else high
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    bounds = [("at least", low), ("above", node.get("exclusiveMinimum"))]
    bounds += [("at most", high), ("below", node.get("exclusiveMaximum"))]
    said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return f" {' and '.join(said)}" if said else ""


def _hint(node: Mapping[str, Any], schema: Mapping[str, Any], value: object, place: Place, location: Path) -> str:
    """The way out of a wrong value, where it can be guessed."""
    kind = node.get("type")
    key = str(location[-1]) if location and isinstance(location[-1], str) else ""
    raw = value if isinstance(value, str) else place.raw
    if "pattern" in node and (unit := _with_unit(node["pattern"], raw)):
        return f"Write it with its unit: {key}: {unit}" if key else f"Write it with its unit: {unit}"
    if kind == "string" and isinstance(value, bool | int | float):
        quoted = f'{key}: "{place.raw}"' if key else f'"{place.raw}"'
        if place.plain:
            return f"YAML reads {place.raw} as {_kind_of(value)}: quote it, {quoted}"
        return f"Put it in quotes: {quoted}" if place.raw else "Write it as text."
    if kind == "array" and isinstance(value, str):
        return f"Write it as a list: {key}: [{value}]"
    if isinstance(value, str):
        candidates = [*map(str, node.get("enum", ())), *([str(node["const"])] if "const" in node else ())]
        if "pattern" in node:
            other = next((text for text in (value.upper(), value.lower()) if re.fullmatch(node["pattern"], text)), None)
            return f"Did you mean {other!r}?" if other else ""
        return did_you_mean(value, candidates)
    return ""


def _with_unit(pattern: str, raw: str) -> str:
    """``raw`` with milliseconds, where ``pattern`` is that of durations and nothing else is missing; else empty."""
    return f"{raw}ms" if pattern.endswith("(ms|s)$") and re.fullmatch(pattern, f"{raw}ms") else ""


def _kind_of(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "a number"
