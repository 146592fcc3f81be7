"""Routes of the repository: what nodes fetch. Nothing here is secret; what it says of other sites is kept from a node.

A path is matched as a whole against the layout of the repository before any store sees it, so that none leads out.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from nearcast.control.api.failures import failures
from nearcast.control.api.services import CallerOf, NodeCaller, ServicesOf
from nearcast.errors import Forbidden, NotFound
from nearcast.registry.objects import Objects, Stored

router = APIRouter(tags=["repository"])

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}"
_LAYOUT: Final = re.compile(
    rf"(?P<blob>blobs/sha256/[0-9a-f]{{2}}/(?P<digest>[0-9a-f]{{64}}))"
    rf"|releases/metadata/{_PART}\.json"
    rf"|releases/targets/{_PART}/{_PART}\.json"
    rf"|plans/(?P<site>[a-z0-9][a-z0-9-]{{0,62}})/(?:metadata|targets)/{_PART}\.json"
)
_RANGE: Final = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


@router.get(
    "/repository/{path:path}",
    summary="A file of the signed repository",
    responses=failures(
        401,
        403,
        404,
        503,
        others={
            200: {"content": {"application/octet-stream": {}}, "description": "the whole file"},
            206: {"content": {"application/octet-stream": {}}, "description": "the part of a blob that was asked for"},
            304: {"description": "it still is what `if-none-match` names"},
            416: {"description": "the range begins behind the end"},
        },
    ),
    response_class=Response,
)
def read(
    services: ServicesOf,
    who: CallerOf,
    path: str,
    if_none_match: Annotated[str | None, Header()] = None,
    byte_range: Annotated[
        str | None, Header(alias="range", description="for blobs: `bytes=FIRST-` or with an end")
    ] = None,
) -> Response:
    """Releases and blobs for every node; plans for nodes of that site only."""
    match = _LAYOUT.fullmatch(path)
    if match is None or ".." in path:
        raise NotFound("there is no such file in the repository")
    if isinstance(who, NodeCaller) and match["site"] not in {None, who.site}:
        raise Forbidden(f"node {who.site}/{who.node} may not read the plans of another site")
    objects = services.plane.objects
    if match["blob"]:
        return _blob(objects, path, match["digest"], if_none_match, byte_range)
    data = objects.read(path)
    if data is None:
        raise NotFound(f"there is no {path} in the repository")
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if _still(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


def _blob(objects: Objects, path: str, digest: str, if_none_match: str | None, byte_range: str | None) -> Response:
    stored = objects.stat(path)
    if stored is None:
        raise NotFound(f"there is no {path} in the repository")
    etag = f'"{digest}"'
    headers = {"etag": etag, "cache-control": "max-age=31536000, immutable", "accept-ranges": "bytes"}
    if _still(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    start, end = _span(byte_range, stored)
    if start > end:
        if stored.size_bytes == 0:
            return Response(b"", headers=headers)
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{stored.size_bytes}"})
    part = (start, end) != (0, stored.size_bytes - 1)
    headers["content-length"] = str(end - start + 1)
    if part:
        headers["content-range"] = f"bytes {start}-{end}/{stored.size_bytes}"
    chunks = _cut(objects.stream(path, start), end - start + 1)
    return StreamingResponse(chunks, 206 if part else 200, headers, "application/octet-stream")


def _span(byte_range: str | None, stored: Stored) -> tuple[int, int]:
    """First and last byte that are asked for; a range that we do not know means everything, as RFC 9110 allows."""
    last = stored.size_bytes - 1
    match = _RANGE.fullmatch(byte_range.strip()) if byte_range else None
    if match is None:
        return 0, last
    return int(match[1]), min(last, int(match[2])) if match[2] else last


def _cut(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) >= length:
            yield chunk[:length]
            return
        length -= len(chunk)
        yield chunk


def _still(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in {
        part.strip().removeprefix("W/") for part in if_none_match.split(",")
    }
