"""What the control plane answers, as far as its clients read it. Fields that are not known here are passed over."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nearcast.planning.fleet.explanation import PlanHeading
from nearcast.resources.release import ReleaseManifest
from nearcast.resources.status import ModelState

Document = dict[str, Any]
Action = Literal["created", "updated", "unchanged"]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What ``apply`` did, or would do, to one resource. ``diff`` is a unified diff of the manifests."""

    kind: str
    name: str
    action: Action
    diff: str = ""
    revision: str = ""


class ControlInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The control plane itself."""

    url: str
    version: str = ""


class ConditionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One condition, as manifests spell it."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class SiteModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A model version at a site."""

    model: str
    version: str
    state: ModelState = "ready"


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """One site as the control plane sees it."""

    name: str
    country: str
    tier: str = "edge"
    gateway_url: str | None = None
    ready: bool = False
    nodes: tuple[Document, ...] = ()
    models: tuple[SiteModelView, ...] = ()
    conditions: tuple[ConditionView, ...] = ()


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as the control plane sees it."""

    name: str
    model: str
    version: str
    ready: bool = False
    conditions: tuple[ConditionView, ...] = ()


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/status``."""

    fleet: str
    control: ControlInfo
    sites: tuple[SiteView, ...] = ()
    deployments: tuple[DeploymentView, ...] = ()


class ReleaseView(msgspec.Struct, frozen=True, kw_only=True):
    """One release, as the signed list names it. ``digest`` is that of the manifest."""

    model: str
    version: str
    digest: str
    size_bytes: int
    created_at: str
    task: str
    manifest: ReleaseManifest


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What a node pins: the authority and both trust roots (base64; None while there is none)."""

    fleet: str
    ca_pem: str
    releases_root: str | None = None
    plans_root: str | None = None


class Documents(msgspec.Struct, frozen=True):
    """A list of documents, as the API wraps it."""

    items: list[Document]


class Decisions(msgspec.Struct, frozen=True):
    """``GET /v1/decisions``."""

    items: list[PlanHeading]


class Releases(msgspec.Struct, frozen=True):
    """``GET /v1/releases``."""

    items: list[ReleaseView]


class Results(msgspec.Struct, frozen=True):
    """``POST /v1/apply``: one result per manifest, in their order."""

    results: list[Applied]


@dataclass(frozen=True, slots=True)
class Stored:
    """A resource as it stands in the control plane, with the revision for ``If-Match``."""

    document: Document
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Targets:
    """The signed list of all releases: the bytes, and the version that a change must name."""

    data: bytes
    version: int
