"""Routes of resources: read, put, delete, their history, and `apply` for several at once."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, Field

from nearcast.control import changes
from nearcast.control.admission import Outcome, Precondition, require
from nearcast.control.api.bodies import Body, Document, body, described, document_of
from nearcast.control.api.failures import failures
from nearcast.control.api.services import AdminOf, Services, ServicesOf
from nearcast.errors import InvalidInput, NotFound
from nearcast.resources.kinds import PLURALS, AnyResource
from nearcast.resources.manifest import resource_from_document
from nearcast.resources.problems import ManifestError, Problem, did_you_mean

router = APIRouter(tags=["resources"])

Plural = Literal["sites", "models", "deployments", "policies"]
IfMatch = Annotated[str | None, Header(description="the revision that must be in force, quoted, or `*` for any")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: there must be none yet")]
_MANIFEST = described({"type": "object", "description": "a manifest; `nearcast schema KIND` shows its schema"})


class ApplyRequest(Body):
    """Manifests that the fleet shall hold."""

    manifests: list[Document] = Field(min_length=1, max_length=10_000)
    dry_run: bool = Field(default=False, description="only say what would change")


class Applied(BaseModel):
    """What became, or would become, of one resource."""

    kind: str
    name: str
    action: Literal["created", "updated", "unchanged", "deleted"]
    diff: str = Field(description="unified diff of its YAML, empty where nothing changes")
    revision: str = Field(description="content hash of the manifest")


class ApplyAnswer(BaseModel):
    """One result per manifest, in their order."""

    results: list[Applied]


class ResourceList(BaseModel):
    """All resources of a kind, by name, as manifests with their status."""

    items: list[dict[str, Any]]


class Revision(BaseModel):
    """One line of a resource's history."""

    sequence: int = Field(description="position in the history of all resources")
    action: Literal["put", "delete"]
    revision: str | None
    generation: int
    at: str = Field(description="RFC 3339, UTC")
    document: dict[str, Any] | None


class History(BaseModel):
    """What a resource has been, oldest first; at most the last 100."""

    items: list[Revision]


@router.post(
    "/v1/apply",
    summary="Make the fleet hold these manifests: all of them, or none",
    response_model=ApplyAnswer,
    responses=failures(400, 401, 403, 409, 413, 503),
    openapi_extra=described(ApplyRequest),
)
def apply(
    services: ServicesOf, _admin: AdminOf, request: Annotated[ApplyRequest, Depends(body(ApplyRequest))]
) -> ApplyAnswer:
    """Resources that are not named stay as they are. The same manifests again change nothing."""
    resources: list[AnyResource] = []
    problems: list[Problem] = []
    for index, manifest in enumerate(request.manifests):
        try:
            resources.append(resource_from_document(manifest, _source(manifest, index)))
        except ManifestError as error:
            problems.extend(error.problems)
    if problems:
        raise ManifestError(problems)
    outcomes = changes.apply(services.plane, resources, dry_run=request.dry_run)
    return ApplyAnswer(results=[_applied(outcome) for outcome in outcomes])


@router.get(
    "/v1/resources/{plural}",
    summary="All resources of a kind",
    response_model=ResourceList,
    responses=failures(400, 401, 403, 503),
)
def read_all(services: ServicesOf, _admin: AdminOf, plural: Plural) -> ResourceList:
    """Each as a manifest, with the status that the control plane observes."""
    view = services.observer.look()
    kind = _kind(plural)
    held = sorted((key[1], item) for key, item in view.snapshot.held.items() if key[0] == kind)
    return ResourceList(items=[services.observer.document(item, view) for _, item in held])


@router.get(
    "/v1/resources/{plural}/{name}",
    summary="One resource",
    response_model=dict[str, Any],
    responses=failures(400, 401, 403, 404, 503),
)
def read_one(services: ServicesOf, _admin: AdminOf, plural: Plural, name: str, response: Response) -> dict[str, Any]:
    """A manifest with its status; the `etag` is its revision."""
    return _answer(services, plural, name, response)


@router.put(
    "/v1/resources/{plural}/{name}",
    summary="Create or replace one resource",
    response_model=dict[str, Any],
    responses=failures(400, 401, 403, 409, 413, 503),
    openapi_extra=_MANIFEST,
)
def put(
    services: ServicesOf,
    _admin: AdminOf,
    plural: Plural,
    name: str,
    manifest: Annotated[Document, Depends(document_of)],
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> dict[str, Any]:
    """With `if-match`, only when that revision is in force: nobody's change is overwritten unseen."""
    kind = _kind(plural)
    resource = resource_from_document(manifest, f"{kind}/{name}")
    if (resource.kind, resource.name) != (kind, name):
        raise InvalidInput(f"expected a manifest of {kind}/{name}, got one of {resource.kind}/{resource.name}")
    outcome = changes.replace(services.plane, resource, _expected(if_match, if_none_match))
    response.status_code = 201 if outcome.action == "created" else 200
    return _answer(services, plural, name, response)


@router.delete(
    "/v1/resources/{plural}/{name}",
    summary="Delete one resource",
    response_model=Applied,
    responses=failures(400, 401, 403, 404, 409, 503),
)
def delete(services: ServicesOf, _admin: AdminOf, plural: Plural, name: str, if_match: IfMatch = None) -> Applied:
    """Refused while another resource or a node still names it. Its history stays."""
    return _applied(changes.remove(services.plane, _kind(plural), name, _expected(if_match, None)))


@router.get(
    "/v1/resources/{plural}/{name}/revisions",
    summary="What a resource has been",
    response_model=History,
    responses=failures(400, 401, 403, 404, 503),
)
def read_history(services: ServicesOf, _admin: AdminOf, plural: Plural, name: str) -> History:
    """Append-only, by content hash; deletions are part of it."""
    kind = _kind(plural)
    events = services.plane.store.history(kind, name)
    if not events:
        names = [other for other_kind, other in services.plane.store.snapshot().held if other_kind == kind]
        raise NotFound(f"there never was a {kind}/{name}", hint=did_you_mean(name, names))
    return History(
        items=[
            Revision(
                sequence=event.sequence,
                action="put" if event.action == "put" else "delete",
                revision=event.revision,
                generation=event.generation,
                at=event.at,
                document=event.document,
            )
            for event in events
        ]
    )


def _answer(services: Services, plural: Plural, name: str, response: Response) -> dict[str, Any]:
    view = services.observer.look()
    kind = _kind(plural)
    names = [other for other_kind, other in view.snapshot.held if other_kind == kind]
    held = require(view.snapshot.get(kind, name), kind, name, names)
    response.headers["etag"] = f'"{held.revision}"'
    return services.observer.document(held, view)


def _kind(plural: Plural) -> str:
    return next(kind for kind, word in PLURALS.items() if word == plural)


def _applied(outcome: Outcome) -> Applied:
    return Applied(
        kind=outcome.kind, name=outcome.name, action=outcome.action, diff=outcome.diff, revision=outcome.revision
    )


def _source(manifest: Document, index: int) -> str:
    """What to call a manifest in messages: by its kind and name where it has them."""
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    kind = manifest.get("kind")
    return f"{kind}/{name}" if isinstance(kind, str) and isinstance(name, str) else f"manifest {index + 1}"


def _expected(if_match: str | None, if_none_match: str | None) -> Precondition:
    if if_none_match is not None and if_none_match.strip() != "*":
        raise InvalidInput(f"expected if-none-match to be *, got {if_none_match!r}")
    revision = None if if_match is None else if_match.strip().removeprefix("W/").strip('"')
    return Precondition(revision=revision, absent=if_none_match is not None)
