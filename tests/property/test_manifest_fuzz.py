"""Manifests of every kind, mutated in values, in text, and by what YAML can spell: refused in words, never a crash.

`fuzz.malformed` makes them, by seeded dice. A refusal names what was expected, and stands where it is.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fuzz.amount import amount, seeded
from fuzz.malformed import broken, mutant, spelled
from nearcast.resources.kinds import KINDS
from nearcast.resources.manifest import parse_manifests, resource_from_document
from nearcast.resources.problems import ManifestError

VALID: dict[str, dict[str, Any]] = {
    "Site": {
        "country": "DE",
        "tier": "edge",
        "jurisdictions": ["BW"],
        "location": {"latitude": 50.1, "longitude": 8.7},
    },
    "Model": {"description": "adds one"},
    "Deployment": {"model": "m", "version": "1", "placement": {"sites": ["a", "b"]}, "objective": "interactive"},
    "Policy": {
        "match": {"models": ["m"], "originCountries": ["DE"]},
        "residency": {"countries": ["DE"], "sites": ["a"]},
    },
}
BOUND_S = 20.0
"""A refusal of 1 MB takes a second; what explodes takes minutes."""


def manifest(kind: str) -> dict[str, Any]:
    return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": VALID[kind]}


def read(text: str, source: str = "manifest.yaml") -> None:
    """Parse; a refusal must be in words, and nothing but a refusal may come."""
    began = time.monotonic()
    with refused_in_words():
        parse_manifests(text, source)
    assert time.monotonic() - began < BOUND_S


@contextlib.contextmanager
def refused_in_words() -> Iterator[None]:
    """What is refused inside says so in words that can be printed and are not the text itself."""
    try:
        yield
    except ManifestError as error:
        problems, told = error.problems, str(error)
    else:
        return
    assert problems
    assert all(len(problem.message) > 8 and problem.line >= 0 and problem.column >= 0 for problem in problems)
    assert len(told) < 60_000, "a refusal does not send the text back"
    told.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_valid_one_is(kind: str) -> None:
    assert parse_manifests(yaml.safe_dump(manifest(kind)))[0].resource.kind == kind


def is_text(document: object) -> bool:
    """Whether all of it can be stored: bodies that hold half of a surrogate pair are refused before this."""
    return "\\ud" not in json.dumps(document)


@pytest.mark.parametrize("kind", KINDS)
def test_values(kind: str) -> None:
    """As the control plane gets them: JSON-able documents."""
    dice = seeded(f"values-{kind}")
    for _ in range(amount(250)):
        document = mutant(dice, manifest(kind))
        if isinstance(document, dict) and is_text(document):
            with refused_in_words():
                resource_from_document(document, "manifest")


def as_yaml(document: object, *, plain: bool) -> bytes:
    """``document`` as libyaml writes it; as JSON, which is YAML, where it cannot (depth, surrogates)."""
    try:
        return bytes(
            yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=plain, sort_keys=False, encoding="utf-8")
        )
    except (RecursionError, UnicodeEncodeError):
        return spelled(seeded("deep"), document)


@pytest.mark.parametrize("kind", KINDS)
def test_texts(kind: str) -> None:
    """As users write them: JSON, YAML, and bytes that are neither."""
    dice = seeded(f"texts-{kind}")
    for _ in range(amount(250)):
        document = mutant(dice, manifest(kind)) if dice.random() < 0.7 else manifest(kind)
        data = as_yaml(document, plain=dice.random() < 0.3) if dice.random() < 0.75 else spelled(dice, document)
        if dice.random() < 0.5:
            data = broken(dice, data)
        read(data.decode("utf-8", "replace"), dice.choice(("manifest.yaml", "manifest.json")))


@pytest.mark.parametrize("kind", KINDS)
def test_refusals_do_not_work_the_schema_out_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would cost milliseconds, of which a sender of bad manifests could make many."""
    bad = manifest(kind) | {"spec": {"nope": 1}}
    with pytest.raises(ManifestError) as first:
        resource_from_document(bad)
    monkeypatch.setattr(KINDS[kind], "model_json_schema", None)
    with pytest.raises(ManifestError) as again:
        resource_from_document(bad)
    assert str(again.value) == str(first.value)


def laughs(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


HEAD = "apiVersion: nearcast.dev/v1alpha1\nkind: Site\nmetadata: {name: a}\n"
TRICKS = {
    "billion laughs": laughs(12),
    "laughs in a manifest": HEAD + "spec:\n" + "\n".join(f"  {line}" for line in laughs(9).splitlines()),
    "an alias to itself": HEAD + "spec: &a [*a]",
    "a merge": "b: &b {kind: Site}\n<<: *b",
    "a python tag": HEAD + "spec: !!python/object/apply:os.system ['true']",
    "a tag of its own": HEAD + "spec: !mine {country: DE}",
    "binary": HEAD + "spec: {country: !!binary REU=}",
    "a set": HEAD + "spec: !!set {country}",
    "a complex key": HEAD + "spec: {? [a, b] : c}",
    "a key twice": HEAD + "spec: {country: DE, country: US}",
    "a key twice, quoted": HEAD + 'spec: {country: DE, "country": US}',
    "a kind twice": HEAD + "kind: Model\nspec: {country: DE}",
    "deep flow": "[" * 20_000,
    "deep block": "\n".join(" " * depth + "a:" for depth in range(2000)),
    "deep JSON": '{"a":' * 50_000,
    "deep and closed": "[" * 3000 + "]" * 3000,
    "huge int": HEAD + "spec: {country: " + "9" * 500_000 + "}",
    "huge int in base 60": HEAD + "spec: {country: " + "1:" * 5_000 + "1}",
    "huge hex": HEAD + "spec: {country: 0x" + "f" * 500_000 + "}",
    "not a number": HEAD + "spec: {country: DE, location: {latitude: .nan, longitude: .inf}}",
    "control characters": HEAD + "spec: {country: \x07}",
    "escaped control characters": HEAD + 'spec: {country: "\\x00\\e\\u202e"}',
    "a surrogate": HEAD + 'spec: {country: "\\ud800"}',
    "a surrogate in JSON": json.dumps(manifest("Site") | {"kind": "\ud800"}),
    "10 MB of text": HEAD + "spec: {country: " + "A" * 10_000_000 + "}",
    "just under the limit": HEAD + "spec: {country: " + "A" * ((1 << 20) - 200) + "}",
    "twenty thousand keys": "{" + ", ".join(f"k{n}: 1" for n in range(20_000)) + "}",
    "ten thousand documents": "---\na: 1\n" * 10_000,
    "a thousand unknown kinds": "---\nkind: Nope\n" * 1_000,
    "ten thousand empty documents": "---\n" * 10_000,
    "another version": HEAD.replace("v1alpha1", "v9") + "spec: {country: DE}",
    "another group": HEAD.replace("nearcast.dev", "evil.dev") + "spec: {country: DE}",
    "no kind": "apiVersion: nearcast.dev/v1alpha1",
    "a kind that is a list": HEAD.replace("kind: Site", "kind: [Site]"),
    "a list of lists": "[[[[]]]]",
    "a directive": "%YAML 9.9\n---\n" + HEAD,
    "a directive too much": "%TAG ! tag:x,2000:\n%TAG ! tag:y,2000:\n---\n" + HEAD,
    "a tab": HEAD + "spec:\n\tcountry: DE",
    "NUL": "\x00",
    "a byte order mark inside": HEAD + "spec: {country: \ufeffDE}",
    "Norway": HEAD + "spec: {country: NO}",
    "an octal": HEAD.replace("name: a", "name: 0777"),
    "a date": HEAD.replace("name: a", "name: 2026-01-01"),
    "percent": HEAD.replace("name: a", "name: '%s%n%x'"),
    "a path": HEAD.replace("name: a", "name: ../../etc"),
    "a name of 10,000": HEAD.replace("name: a", "name: " + "a" * 10_000),
    "only comments": "# nothing\n" * 1000,
    "empty": "",
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_of_texts(name: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifests(TRICKS[name])
    read(TRICKS[name])
    read(TRICKS[name], "manifest.json")
