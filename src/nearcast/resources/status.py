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
    """``percent`` of the requests for a model try the sites of ``order``, first to last, then the first once more."""

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


class ModelDemand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients ask of one model at this node's public listener, as a moving average.

    ``request_bytes`` and ``answer_bytes`` are means per request; 0 while nothing is known.
    """

    rate_per_s: float
    request_bytes: float = 0.0
    answer_bytes: float = 0.0


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a loaded model version costs on this node: measured when it was loaded, then learned from traffic.

    Attributes:
        curve: (rows, seconds) of a run, by batch size; empty where it could not be measured.
        service_s: of one request in an idle engine.
        work_s: worker-seconds that one request takes when the engine is saturated: under ``service_s`` where requests
            are batched; ``1 / work_s`` requests per second saturate one worker.
        full_s: of a request in a full batch, which is what a saturated engine computes; 0 where it is not told.
        footprint_bytes: memory that the loaded model takes.
        load_s: how long loading took, warm-up included.
    """

    model: str
    version: str
    service_s: float
    work_s: float
    full_s: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()
    footprint_bytes: int = 0
    load_s: float = 0.0


class NodeCapacity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node has for models. A worker computes one batch at a time; ``memory_bytes`` is for all models.

    Over all models, ``sum(rate x work_s) / workers`` is the share of the node that is busy.
    """

    workers: float
    memory_bytes: int
    device: str = "cpu"


class EngineProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine answers to ``GET /-/profile``. Unknown fields are ignored: it may be newer than the agent."""

    capacity: NodeCapacity
    profiles: tuple[ModelProfile, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that one node reports.

    Attributes:
        plan_version: version of the site plan in force here.
        routed_version: version of the site plan whose routes the gateway has accepted; -1 before the first.
        routes: model -> shares that the gateway has in force.
        conditions: trouble that is not tied to one model (trust, disk, clock).
        demand: model -> what clients ask here.
        profiles: of the models that are loaded.
        capacity: None until the engine has told.
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
    demand: dict[str, ModelDemand] = {}
    profiles: tuple[ModelProfile, ...] = ()
    capacity: NodeCapacity | None = None
