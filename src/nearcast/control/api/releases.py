"""Routes of releases and blobs: what `nearcast model push` calls."""

import base64
import binascii
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from nearcast.control import changes
from nearcast.control.api.bodies import Body, body, described
from nearcast.control.api.failures import failures
from nearcast.control.api.services import AdminOf, ServicesOf
from nearcast.errors import InvalidInput, NotFound

router = APIRouter(tags=["releases"])

VERSION_HEADER = "x-nearcast-targets-version"
CHUNK_BYTES = 1 << 20


class RootRequest(Body):
    """The beginning of the releases: both are base64 of exact bytes."""

    root: str = Field(description="version 1 of the root of trust, signed by the root keys")
    targets: str = Field(description="version 1 of the list of releases, empty, signed by a releaser")


class KeysRequest(Body):
    """Other keys of releases: both are base64 of exact bytes."""

    root: str = Field(description="the next version of the root, signed by the root keys before and after it")
    targets: str = Field(description="the list of releases as it is, in its next version, signed under that root")


class Roots(BaseModel):
    """Every version of the root of trust of releases, from the first: base64 of exact bytes."""

    items: list[str]


class ReleaseRequest(Body):
    """One release more: both are base64 of exact bytes."""

    targets: str = Field(description="the list with the release added, signed by a releaser")
    manifest: str = Field(description="the encoded manifest of the release")
    expected_version: int = Field(description="version of the list that this one was made from")


class TargetsVersion(BaseModel):
    """The version of the list of releases now."""

    version: int


class Release(BaseModel):
    """One release."""

    model: str
    version: str
    digest: str = Field(description="content address of the manifest")
    size_bytes: int = Field(description="bytes of all files together")
    created_at: str
    task: str
    manifest: dict[str, Any]


class ReleaseList(BaseModel):
    """Releases by model and version."""

    items: list[Release]


class BlobAnswer(BaseModel):
    """A blob that is in the store now."""

    digest: str
    size_bytes: int


@router.get("/v1/releases", summary="Every release", response_model=ReleaseList, responses=failures(401, 403, 422, 503))
def read_releases(services: ServicesOf, _admin: AdminOf) -> ReleaseList:
    """With the manifest of each: files, digests, signature."""
    plane = services.plane
    entries = sorted(plane.index.entries().values(), key=lambda entry: (entry.model, entry.version))
    return ReleaseList(
        items=[
            Release(
                model=entry.model,
                version=entry.version,
                digest=entry.digest,
                size_bytes=entry.size_bytes,
                created_at=entry.created_at,
                task=entry.task,
                manifest=msgspec.to_builtins(plane.releases.manifest(entry.model, entry.version)),
            )
            for entry in entries
        ]
    )


@router.post(
    "/v1/releases",
    summary="Publish a release",
    status_code=201,
    response_model=TargetsVersion,
    responses=failures(400, 401, 403, 404, 409, 413, 422, 503),
    openapi_extra=described(ReleaseRequest),
)
def add_release(
    services: ServicesOf, _admin: AdminOf, request: Annotated[ReleaseRequest, Depends(body(ReleaseRequest))]
) -> TargetsVersion:
    """Its blobs must be in the store. Makes the Model if there is none. The same release again is a no-op."""
    targets, manifest = _bytes("targets", request.targets), _bytes("manifest", request.manifest)
    version = changes.accept_release(services.plane, targets, manifest, request.expected_version)
    return TargetsVersion(version=version)


@router.get(
    "/v1/releases/targets",
    summary="The signed list of releases, to be signed again with one more",
    responses=failures(
        401,
        403,
        404,
        503,
        others={
            200: {
                "content": {"application/json": {}},
                "description": f"its exact bytes; {VERSION_HEADER} has its version",
            }
        },
    ),
    response_class=Response,
)
def read_targets(services: ServicesOf, _admin: AdminOf) -> Response:
    """404 before the releases were begun."""
    data, version = services.plane.releases.targets()
    return Response(data, media_type="application/json", headers={VERSION_HEADER: str(version)})


@router.post(
    "/v1/releases/root",
    summary="Begin the releases with a root of trust",
    status_code=201,
    response_model=TargetsVersion,
    responses=failures(400, 401, 403, 409, 413, 422, 503),
    openapi_extra=described(RootRequest),
)
def start_releases(
    services: ServicesOf, _admin: AdminOf, request: Annotated[RootRequest, Depends(body(RootRequest))]
) -> TargetsVersion:
    """Once. The same bytes again are a no-op."""
    services.plane.releases.initialise(_bytes("root", request.root), _bytes("targets", request.targets))
    changes.note_releases(services.plane)
    return TargetsVersion(version=services.plane.releases.targets()[1])


@router.get(
    "/v1/releases/roots",
    summary="Every version of the root of trust of releases",
    response_model=Roots,
    responses=failures(401, 403, 503),
)
def read_roots(services: ServicesOf, _admin: AdminOf) -> Roots:
    """Each is signed by its predecessor; whoever trusts one of them can trust those after it."""
    return Roots(items=[base64.b64encode(root).decode() for root in services.plane.releases.roots()])


@router.post(
    "/v1/releases/keys",
    summary="Change the keys of releases",
    response_model=TargetsVersion,
    responses=failures(400, 401, 403, 404, 409, 413, 422, 503),
    openapi_extra=described(KeysRequest),
)
def change_keys(
    services: ServicesOf, _admin: AdminOf, request: Annotated[KeysRequest, Depends(body(KeysRequest))]
) -> TargetsVersion:
    """What the old keys sign from now on is refused. The same bytes again are a no-op."""
    root, targets = _bytes("root", request.root), _bytes("targets", request.targets)
    return TargetsVersion(version=changes.change_release_keys(services.plane, root, targets))


@router.head(
    "/v1/blobs/{digest}",
    summary="Whether a blob is in the store",
    responses=failures(400, 401, 403, 404, 503),
    response_class=Response,
)
def has_blob(services: ServicesOf, _admin: AdminOf, digest: str) -> Response:
    """Its size is in `x-nearcast-blob-bytes`."""
    size = services.plane.blobs.size(digest)
    if size is None:
        raise NotFound(f"blob {digest} is not in the store")
    return Response(headers={"x-nearcast-blob-bytes": str(size)})


@router.put(
    "/v1/blobs/{digest}",
    summary="Put a blob into the store",
    response_model=BlobAnswer,
    responses=failures(400, 401, 403, 413, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_blob(services: ServicesOf, _admin: AdminOf, digest: str, request: Request) -> BlobAnswer:
    """Streamed; kept only when the bytes have the digest. Idempotent."""
    incoming = await run_in_threadpool(services.plane.blobs.receive, digest)
    with incoming:
        gathered = bytearray()
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= CHUNK_BYTES:
                await run_in_threadpool(incoming.write, bytes(gathered))
                gathered.clear()
        await run_in_threadpool(incoming.write, bytes(gathered))
        size = await run_in_threadpool(incoming.commit)
    return BlobAnswer(digest=digest, size_bytes=size)


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"expected {name} in base64: {error}") from error
