"""What a node tells the control plane: what it serves, what it measured, and what it cannot do, and why.

One document per node, replaced as a whole. It never carries inputs, outputs or keys.
"""

from typing import Final, Literal

import msgspec

from nearcast.resources.load import LoadReport

DRAINED: Final = "Drained"
"""Type of the condition of a node that drains: true once it holds no model and has finished what was in flight."""

ModelState = Literal["fetching", "loading", "ready", "draining", "failed"]


class ConditionReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One observation in the form of ``status.conditions``; ``reason`` is CamelCase, ``message`` for people."""

    type: str
    status: bool
    reason: str
    message: str = ""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one model version stands on this node. ``reason`` and ``message`` say why, when it failed."""

    model: str
    version: str
    release: str
    state: ModelState
    reason: str = ""
    message: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


class PeerObservation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this node measured of one peer. ``age_s`` is the age of the measurement when the status was made."""

    site: str
    reachable: bool
    round_trip_s: float
    age_s: float
    load: LoadReport | None = None
    message: str = ""


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``percent`` of the requests for a model try the sites of ``order``, first to last, each at most once."""

    percent: int
    order: tuple[str, ...]


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node's Envoy. ``accepted`` is the hash of the configuration that it confirmed last."""

    url: str
    peer_address: str
    ready: bool
    accepted: str = ""
    message: str = ""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node's engine process."""

    ready: bool
    restarts: int = 0
    message: str = ""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that one node reports.

    Attributes:
        plan_version: version of the site plan in force here.
        routed_version: version of the site plan whose routes the gateway has accepted; -1 before the first.
        routes: model -> shares that the gateway has in force.
        conditions: trouble that is not tied to one model (trust, disk, clock).
    """

    site: str
    node: str
    software: str
    started_at: str
    plan_version: int
    plan_revision: str
    routed_version: int
    gateway: GatewayStatus
    engine: EngineStatus
    models: tuple[ModelStatus, ...] = ()
    load: LoadReport | None = None
    peers: tuple[PeerObservation, ...] = ()
    routes: dict[str, tuple[Share, ...]] = {}
    conditions: tuple[ConditionReport, ...] = ()
