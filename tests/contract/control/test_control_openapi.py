"""The description of the API is valid, whole, and good enough for people."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema

Fleet = Any
METHODS = {"get", "put", "post", "delete", "head", "patch"}


def operations(fleet: Fleet) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in fleet.call("GET", "/openapi.json", token="").json()["paths"].items():
        for method in METHODS & set(item):
            yield path, method, item[method]


def parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts(inner)


def test_every_reference_leads_somewhere_and_every_schema_is_one(fleet: Fleet) -> None:
    document = fleet.call("GET", "/openapi.json", token="").json()
    assert document["openapi"].startswith("3.1")
    for part in parts(document):
        if isinstance(reference := part.get("$ref"), str):
            spot: Any = document
            for step in reference.removeprefix("#/").split("/"):
                spot = spot[step]
        if isinstance(part.get("schema"), dict):
            jsonschema.Draft202012Validator.check_schema(part["schema"])
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_says_what_it_does_and_how_it_fails(fleet: Fleet) -> None:
    names = []
    for path, method, operation in operations(fleet):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        assert "default" in operation["responses"], where
        names.append(operation["operationId"])
        for status, answer in operation["responses"].items():
            if status == "default" or (int(status) >= 400 and status != "416"):
                shape = answer["content"]["application/json"]["schema"]["$ref"]
                assert shape == "#/components/schemas/Failure", f"{where} {status}"
        assert "422" not in operation["responses"] or "vouched" in operation["responses"]["422"]["description"], where
        if "security" in operation:
            assert {"401", "403"} <= set(operation["responses"]), where
        declared = set(re.findall(r"\{(\w+)(?::path)?\}", path))
        assert declared == {item["name"] for item in operation.get("parameters", []) if item["in"] == "path"}, where
    assert len(names) == len(set(names))
    assert len(names) >= 24


def test_bodies_are_described(fleet: Fleet) -> None:
    for path, method, operation in operations(fleet):
        if method in {"put", "post"}:
            (content,) = operation["requestBody"]["content"].values()
            assert content["schema"].get("properties") or content["schema"]["type"] in {"object", "string"}, path
