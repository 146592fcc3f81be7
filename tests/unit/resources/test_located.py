"""Texts that are refused before anybody looks at their meaning, and the places of what is not."""

import pytest

from nearcast.resources.located import MAX_CHARACTERS, MAX_DEPTH, Place, TextError, read_json, read_yaml


def yaml_error(text: str) -> TextError:
    with pytest.raises(TextError) as caught:
        list(read_yaml(text))
    return caught.value


def json_error(text: str) -> TextError:
    with pytest.raises(TextError) as caught:
        read_json(text)
    return caught.value


def test_places_of_keys_and_values() -> None:
    (document,) = read_yaml("a: 1\nb:\n  - x\n  - c: NO\n")
    assert document.value == {"a": 1, "b": ["x", {"c": False}]}
    assert document.keys["b", 1, "c"] == Place(4, 5)
    assert document.values["b", 1, "c"] == Place(4, 8, "NO", plain=True)
    assert document.place(("b", 1, "missing")) == document.values["b", 1]


def test_json_places_and_values() -> None:
    document = read_json('{"a": [1, -2.5e1, true, null],\n  "b": "\\u00e9\\ud83d\\ude00"}')
    assert document.value == {"a": [1, -25.0, True, None], "b": "é😀"}
    assert document.keys["b",] == Place(2, 3)
    assert document.values["a", 1].raw == "-2.5e1"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key 'a' is given twice, first in line 1"),
        ("no: 1", 1, 1, "YAML reads no as false"),
        ("1: a", 1, 1, "YAML reads 1 as the number 1"),
        ("? [a]\n: b", 1, 3, "expected a key that is text"),
        ("a: &x {b: 1}\nc: {<<: *x}", 2, 5, "merge keys"),
        ("&a [*a]", 1, 1, "an alias refers to a value that contains it"),
        ("a: !!python/object:os.system {}", 1, 4, "the YAML tag"),
        ("a: !!binary aGk=", 1, 4, "the YAML tag"),
        ("a: [1\n", 2, 1, "this is not YAML"),
        ("a:\n\tb: 1", 2, 1, "this is not YAML"),
        ("a: \x01", 1, 4, "this character is not allowed"),
        ("a: " + "9" * 200, 1, 4, "at most 100 digits"),
        ("a: " + "1:" * 500 + "1", 1, 4, "at most 100 digits"),
    ],
)
def test_yaml_that_is_refused(text: str, line: int, column: int, words: str) -> None:
    error = yaml_error(text)
    assert words in error.message
    assert (error.place.line, error.place.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2, "the key 'a' is given twice"),
        ('{"a" 1}', 1, 6, "expected ':'"),
        ("[1,]", 1, 4, "expected a value"),
        ("[1 2]", 1, 4, "expected ',' or ']'"),
        ("{1: 2}", 1, 2, "expected a key in double quotes"),
        ("01", 1, 2, "expected the end"),
        ('"a\nb"', 1, 1, "does not end, or holds a control character"),
        ('"\\q"', 1, 1, "this is not JSON"),
        ('"\\ud83d"', 1, 1, "surrogate"),
        ("NaN", 1, 1, "expected a value"),
        ("9" * 200, 1, 1, "at most 100 digits"),
        ("", 1, 1, "expected a value"),
    ],
)
def test_json_that_is_refused(text: str, line: int, column: int, words: str) -> None:
    error = json_error(text)
    assert words in error.message
    assert (error.place.line, error.place.column) == (line, column)


def test_depth_is_bounded() -> None:
    for read in (yaml_error, json_error):
        assert "levels of nesting" in read("[" * 5000).message
    (document,) = read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert document.value == read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH).value


def test_aliases_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "at most 100000 values" in yaml_error("\n".join(lines)).message


def test_an_alias_is_taken_where_it_stays_small() -> None:
    (document,) = read_yaml("a: &x [1, 2]\nb: *x")
    assert document.value == {"a": [1, 2], "b": [1, 2]}


def test_length_is_bounded() -> None:
    for read in (yaml_error, json_error):
        assert "characters" in read(" " * (MAX_CHARACTERS + 1)).message
