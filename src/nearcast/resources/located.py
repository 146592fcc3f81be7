"""YAML and JSON text as plain values that remember where they stood, so that an error can name its line and column.

Decides: which texts are refused before anybody looks at their meaning (too long, too deep, too many values once
aliases are followed, keys given twice, merge keys, tags, keys that are no text). Does not decide what a value means:
see `manifest`. Reads YAML 1.1 as PyYAML does, except that dates stay text; JSON by RFC 8259.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

MAX_CHARACTERS: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 100_000
MAX_DIGITS: Final = 100

Path = tuple[str | int, ...]
Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a text, both counted from 1. ``raw`` is a scalar as it was written, ``plain`` whether unquoted."""

    line: int
    column: int
    raw: str = ""
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, where each value stands, and where the key of each field stands."""

    value: Value
    values: dict[Path, Place]
    keys: dict[Path, Place]

    def place(self, path: Path) -> Place:
        """Where ``path`` stands: its key, else its value, else the nearest parent that stands in the text."""
        for end in range(len(path), -1, -1):
            found = self.keys.get(path[:end]) or self.values.get(path[:end])
            if found:
                return found
        return Place(1, 1)


class TextError(Exception):
    """The text is refused at ``place``, before its meaning is looked at."""

    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.place, self.message, self.hint = place, message, hint


@dataclass(slots=True)
class _Notes:
    """What is written down while one document is read. ``budget`` is shared by all documents of a text."""

    budget: list[int]
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def note(self, path: Path, place: Place) -> None:
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise TextError(place, f"expected at most {MAX_VALUES} values, got more (aliases count each time)")
        if len(path) > MAX_DEPTH:
            raise TextError(place, f"expected at most {MAX_DEPTH} levels of nesting, got more")
        self.values[path] = place

    def key(self, path: Path, place: Place) -> None:
        earlier = self.keys.get(path)
        if earlier:
            raise TextError(
                place, f"the key {str(path[-1])!r} is given twice, first in line {earlier.line}", "Keep one of them."
            )
        self.keys[path] = place


def read_yaml(text: str) -> Iterator[Document]:
    """The documents of a YAML stream, empty ones left out.

    Raises:
        TextError: at the first spot that cannot be read.
    """
    _check_length(text)
    budget = [MAX_VALUES]
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()) is not None:
            notes = _Notes(budget)
            value = _from_node(node, (), notes, frozenset())
            if value is not None:
                yield Document(value, notes.values, notes.keys)
    except yaml.MarkedYAMLError as error:
        raise TextError(_place_of(error.problem_mark or error.context_mark), _reason(error)) from error
    except yaml.reader.ReaderError as error:
        raise TextError(_place_at(text, error.position), f"this character is not allowed: {error.reason}") from error


class _Loader(yaml.SafeLoader):
    """A composer that counts its depth, since composing is recursive."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            here = _place_of(self.get_mark())
            raise TextError(here, f"expected at most {MAX_DEPTH} levels of nesting, got more")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _from_node(node: yaml.Node, path: Path, notes: _Notes, parents: frozenset[int]) -> Value:
    place = _place_of(node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        place = Place(place.line, place.column, node.value, node.style is None)
        notes.note(path, place)
        return _scalar(node, place)
    notes.note(path, place)
    if id(node) in parents:
        raise TextError(place, "an alias refers to a value that contains it", "Write the value out.")
    inside = parents | {id(node)}
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_from_node(item, (*path, index), notes, inside) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        fields: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = _key(key_node)
            notes.key((*path, key), _place_of(key_node.start_mark))
            fields[key] = _from_node(value_node, (*path, key), notes, inside)
        return fields
    raise TextError(place, f"expected a plain value, got the YAML tag {node.tag}", "Leave the tag out.")


def _key(node: yaml.Node) -> str:
    place = _place_of(node.start_mark)
    if not isinstance(node, yaml.ScalarNode):
        raise TextError(place, "expected a key that is text, got a list or a mapping")
    if node.tag == "tag:yaml.org,2002:merge":
        raise TextError(place, "merge keys (<<) are not taken: a reader should see every field", "Write them out.")
    value = _scalar(node, place)
    if isinstance(value, str):
        return value
    raise TextError(
        place, f"expected a key that is text; YAML reads {node.value} as {name_of(value)}", f'Quote it: "{node.value}"'
    )


def _scalar(node: yaml.ScalarNode, place: Place) -> Value:
    """The value of a scalar; what YAML would make a date, and everything quoted, stays text."""
    text: str = node.value
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(place, "this is not Unicode text: half of a surrogate pair") from error
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind in {"str", "timestamp", "value"}:
        return text
    if kind == "null":
        return None
    if kind == "merge":
        return text
    if kind in {"int", "float"} and len(text) > MAX_DIGITS:
        raise TextError(place, f"expected a number of at most {MAX_DIGITS} digits, got {len(text)}")
    try:
        if kind == "bool":
            return yaml.SafeLoader.bool_values[text.lower()]
        if kind == "int":
            return int(_constructor.construct_yaml_int(node))
        if kind == "float":
            return float(_constructor.construct_yaml_float(node))
    except (ValueError, KeyError, IndexError) as error:
        raise TextError(place, f"expected {kind}, got {text[:40]!r}") from error
    raise TextError(place, f"expected a plain value, got the YAML tag {node.tag}", "Leave the tag out.")


_constructor: Final = yaml.constructor.SafeConstructor()


def _place_of(mark: yaml.Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _place_at(text: str, offset: int) -> Place:
    before = text[:offset]
    return Place(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = " ".join(part for part in (error.context, error.problem) if part)
    return f"this is not YAML: {reason}"


def _check_length(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            Place(1, 1), f"expected at most {MAX_CHARACTERS} characters, got {len(text)}", "Split the file."
        )


def name_of(value: object) -> str:
    """What a reader would call ``value``: ``the number 3.3``, ``true``, ``a list``, ``nothing``."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return repr(value) if len(value) <= 80 else f"{value[:77]!r}…"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


# --- JSON ------------------------------------------------------------------------------------------------------------

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


def read_json(text: str) -> Document:
    """The one document of a JSON text.

    Raises:
        TextError: at the first spot that cannot be read.
    """
    _check_length(text)
    return _Json(text).read()


class _Json:
    """A recursive descent over one text; depth is bounded by :class:`_Notes`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line, self._line_start = 1, 0
        self._counted = 0
        self._notes = _Notes([MAX_VALUES])

    def read(self) -> Document:
        self._skip()
        value = self._value(())
        self._skip()
        if self._at < len(self._text):
            raise TextError(self._place(), "this is not JSON: expected the end of the text")
        return Document(value, self._notes.values, self._notes.keys)

    def _place(self) -> Place:
        """The current spot; lines are counted once, since the spot only moves on."""
        while (newline := self._text.find("\n", self._counted, self._at)) >= 0:
            self._line += 1
            self._line_start = self._counted = newline + 1
        self._counted = max(self._counted, self._at)
        return Place(self._line, self._at - self._line_start + 1)

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _value(self, path: Path) -> Value:
        place = self._place()
        self._notes.note(path, place)
        start = self._text[self._at : self._at + 1]
        if start == "{":
            return self._object(path)
        if start == "[":
            return self._array(path)
        if start == '"':
            return self._string()
        if match := _NUMBER.match(self._text, self._at):
            self._at = match.end()
            raw = match.group()
            self._notes.values[path] = Place(place.line, place.column, raw)
            if len(raw) > MAX_DIGITS:
                raise TextError(place, f"expected a number of at most {MAX_DIGITS} digits, got {len(raw)}")
            return float(raw) if match.group(1) or match.group(2) else int(raw)
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                self._notes.values[path] = Place(place.line, place.column, word)
                return value
        raise TextError(place, "this is not JSON: expected a value")

    def _object(self, path: Path) -> Value:
        fields: dict[str, Value] = {}
        for _ in self._items("}"):
            place = self._place()
            if self._text[self._at : self._at + 1] != '"':
                raise TextError(place, "this is not JSON: expected a key in double quotes")
            key = self._string()
            self._notes.key((*path, key), place)
            self._skip()
            self._expect(":")
            self._skip()
            fields[key] = self._value((*path, key))
        return fields

    def _array(self, path: Path) -> Value:
        items: list[Value] = []
        for index in self._items("]"):
            items.append(self._value((*path, index)))
        return items

    def _items(self, end: str) -> Iterator[int]:
        """Stop before each item of an object or array, and after its ``end``."""
        self._at += 1
        self._skip()
        if self._text[self._at : self._at + 1] == end:
            self._at += 1
            return
        index = 0
        while True:
            yield index
            index += 1
            self._skip()
            if self._text[self._at : self._at + 1] == end:
                self._at += 1
                return
            self._expect(",", f"',' or '{end}'")
            self._skip()

    def _expect(self, character: str, wanted: str = "") -> None:
        if self._text[self._at : self._at + 1] != character:
            raise TextError(self._place(), f"this is not JSON: expected {wanted or repr(character)}")
        self._at += 1

    def _string(self) -> str:
        place = self._place()
        match = _STRING.match(self._text, self._at)
        if not match:
            raise TextError(place, "this is not JSON: the string does not end, or holds a control character")
        self._at = match.end()
        try:
            text = str(json.loads(match.group()))
            text.encode()
        except UnicodeEncodeError as error:
            raise TextError(place, "this is not Unicode text: half of a surrogate pair") from error
        except json.JSONDecodeError as error:
            raise TextError(place, f"this is not JSON: {error.msg}") from error
        return text
