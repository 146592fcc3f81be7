"""Manifests: the text that users write becomes resources, or every reason why it cannot.

Decides: which texts are manifests, strictly (`kinds` holds the rules of each field), and how a change of one is
shown. Does not decide whether resources fit one another (a deployment's site must exist): the control plane does, when
it sees all of them.
"""

import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import ValidationError

from nearcast.errors import NotFound
from nearcast.resources.kinds import API_VERSION, KINDS, AnyResource, kind_named
from nearcast.resources.located import Document, Place, TextError, name_of, read_json, read_yaml
from nearcast.resources.problems import ManifestError, Problem, did_you_mean, problems_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SHAPE: Final = "a mapping with apiVersion, kind, metadata, spec"


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A resource and where it was written: ``line`` is the first of its document, from 1."""

    resource: AnyResource
    source: str
    line: int


def parse_manifests(text: str, source: str = "manifest.yaml") -> list[ParsedManifest]:
    """The resources in ``text``: YAML with one or several documents, JSON, or a list of manifests in either.

    Args:
        text: what the user wrote, at most 1 MiB.
        source: its name in messages; ``.json`` at the end admits JSON only.

    Returns:
        The resources in the order of the text. ``status`` is dropped: the control plane writes it.

    Raises:
        ManifestError: something is wrong; it lists every problem of the text, save that unreadable text ends the list.
    """
    problems: list[Problem] = []
    parsed: list[ParsedManifest] = []
    first: dict[tuple[str, str], int] = {}
    try:
        for document in _manifests(text, source):
            line = document.place(()).line
            try:
                resource = _resource(document, source)
            except ManifestError as error:
                problems.extend(error.problems)
                continue
            key = (resource.kind, resource.name)
            if key in first:
                place = document.place(("metadata", "name"))
                message = f"{resource.kind}/{resource.name} is written twice, first in line {first[key]}"
                problems.append(
                    Problem(source, place.line, place.column, "metadata.name", message, "Keep one of them.")
                )
            first.setdefault(key, line)
            parsed.append(ParsedManifest(resource, source, line))
    except TextError as error:
        problems.append(Problem(source, error.place.line, error.place.column, "", error.message, error.hint))
    if not problems and not parsed:
        problems.append(Problem(source, 1, 1, "", f"expected at least one manifest, {_SHAPE}; the text is empty"))
    if problems:
        raise ManifestError(problems)
    return parsed


def resource_from_document(value: Mapping[str, Any], source: str = "manifest") -> AnyResource:
    """The resource that a JSON-able ``value`` is; ``source`` names it in messages.

    Raises:
        ManifestError: it is none.
    """
    return _resource(Document(dict(value), {}, {}), source)


def _manifests(text: str, source: str) -> Iterator[Document]:
    """One document per manifest: a list at the top of a document is a list of manifests."""
    for document in _documents(text, source):
        if not isinstance(document.value, list):
            yield document
            continue
        for index, item in enumerate(document.value):
            yield Document(
                item,
                {path[1:]: place for path, place in document.values.items() if path[:1] == (index,)},
                {path[1:]: place for path, place in document.keys.items() if path[:1] == (index,)},
            )


def _documents(text: str, source: str) -> Iterator[Document]:
    if source.endswith(".json"):
        yield read_json(text)
        return
    if text.lstrip()[:1] in {"{", "["}:
        try:
            document = read_json(text)
        except TextError:  # YAML's own flow style begins alike
            pass
        else:
            yield document
            return
    yield from read_yaml(text)


def _resource(document: Document, source: str) -> AnyResource:
    value = document.value
    if not isinstance(value, dict):
        raise ManifestError([_problem(document, source, (), f"expected {_SHAPE}; got {name_of(value)}")])
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        got = name_of(kind) if "kind" in value else "nothing: it is missing"
        hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        message = f"expected one of {', '.join(KINDS)}; got {got}"
        raise ManifestError([_problem(document, source, ("kind",), message, hint)])
    try:
        return model.model_validate(
            {name: item for name, item in value.items() if name != "status"}, by_alias=True, by_name=False
        )
    except ValidationError as error:
        details = _details(model.__name__)
        found = problems_of(error.errors(include_url=False), details, document, source)
        raise ManifestError(found, hint=f"nearcast schema {kind} shows what may stand where.") from error


def _problem(document: Document, source: str, path: tuple[str, ...], message: str, hint: str = "") -> Problem:
    place = document.values.get(path) or document.place(path) if document.values else Place(0, 0)
    return Problem(source, place.line, place.column, ".".join(path), message, hint)


def schema(kind: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the manifests of ``kind``; ``site`` and ``sites`` name ``Site`` too.

    Raises:
        NotFound: there is no such kind.
    """
    name = kind_named(kind)
    if name is None:
        hint = did_you_mean(kind, [*KINDS]) or f"There are {', '.join(KINDS)}."
        raise NotFound(f"expected one of {', '.join(KINDS)}; got {kind!r}", hint=hint)
    title = f"{API_VERSION}/{name}"
    return {"$schema": DIALECT, "$id": title, **KINDS[name].model_json_schema(by_alias=True), "title": name}


@functools.cache
def _details(name: str) -> dict[str, Any]:
    """`schema`, worked out once per kind: refusals read it, and whoever sends bad manifests sends many."""
    return schema(name)


def to_yaml(*documents: Mapping[str, Any]) -> str:
    """``documents`` as one YAML stream, fields in their order; parsing it again gives the same resources."""
    return yaml.safe_dump_all(
        [dict(document) for document in documents], sort_keys=False, allow_unicode=True, width=100
    )


def diff(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    """What changes between two documents of a resource, as a unified diff of their YAML; empty where nothing does.

    Args:
        old: the document before, or None for a resource that is made.
        new: the document after, or None for a resource that is deleted.
    """
    named = new or old or {}
    name = f"{named.get('kind', '')}/{named.get('metadata', {}).get('name', '')}"
    before = to_yaml(old).splitlines() if old else []
    after = to_yaml(new).splitlines() if new else []
    lines = difflib.unified_diff(
        before, after, "(none)" if old is None else name, "(none)" if new is None else name, lineterm=""
    )
    return "\n".join(lines)
