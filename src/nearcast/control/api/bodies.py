"""Bodies of requests: read strictly (a key given twice is refused), described in OpenAPI by the same model."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from nearcast.errors import InvalidInput
from nearcast.resources.unreadable import UNREADABLE

Document = dict[str, Any]


class Body(BaseModel):
    """What all bodies share: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Kind = TypeVar("Kind", bound=Body)
Wire = TypeVar("Wire", bound=msgspec.Struct)


async def json_of(request: Request) -> object:
    """The JSON value in the body.

    Raises:
        InvalidInput: it is not JSON, a key comes twice in an object, it is nested too deeply, or a text in it holds
            half of a surrogate pair, which JSON can spell and nothing can store.
    """
    data = await request.body()
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise InvalidInput("the body is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise InvalidInput("expected text in Unicode, got half of a surrogate pair in the body") from error
    except ValueError as error:
        raise InvalidInput(f"expected a body in JSON: {error}") from error
    return value


def body(model: type[Kind]) -> Callable[[Request], Awaitable[Kind]]:
    """A dependency that reads the body as ``model``. Raises :class:`InvalidInput`, naming the fields."""

    async def read(request: Request) -> Kind:
        value = await json_of(request)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            reasons = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()]
            raise InvalidInput("; ".join(reasons)) from error

    return read


def wire(model: type[Wire]) -> Callable[[Request], Awaitable[Wire]]:
    """A dependency that reads the body as a struct that our own processes exchange. Raises :class:`InvalidInput`."""
    decoder = msgspec.json.Decoder(model, strict=True)

    async def read(request: Request) -> Wire:
        try:
            return decoder.decode(await request.body())
        except UNREADABLE as error:
            raise InvalidInput(f"expected a {model.__name__}: {error}") from error

    return read


async def document_of(request: Request) -> Document:
    """The JSON object in the body. Raises :class:`InvalidInput`."""
    value = await json_of(request)
    if not isinstance(value, dict):
        raise InvalidInput("expected a manifest as a JSON object")
    return value


def described(schema: type[Body] | type[msgspec.Struct] | Document) -> Document:
    """The description of a body for OpenAPI, to be given as ``openapi_extra``."""
    if isinstance(schema, dict):
        shape = schema
    elif issubclass(schema, BaseModel):
        shape = _inlined(schema.model_json_schema())
    else:
        _, components = msgspec.json.schema_components([schema], ref_template="#/$defs/{name}")
        shape = _inlined({**components[schema.__name__], "$defs": components})
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": shape}}}}


def _inlined(schema: Document) -> Document:
    """``schema`` with its references replaced by what they refer to: OpenAPI looks for them elsewhere."""
    definitions = schema.get("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(definitions[str(value["$ref"]).rpartition("/")[2]])
        return {key: inline(item) for key, item in value.items() if key != "$defs"}

    found: Document = inline(schema)
    return found


def _once(pairs: list[tuple[str, Any]]) -> Document:
    found: Document = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput(f"the key {key!r} is given twice", hint="Keep one of them.")
        found[key] = value
    return found


def _no_constant(word: str) -> None:
    raise InvalidInput(f"expected JSON, got {word}, which JSON does not know")
