"""The words of the reconciler: what a node knows (State), and what happened (Event); what shall be done: `commands`.

Data only; what follows from them is decided in :mod:`nearcast.agent.reconcile`. All are frozen; mappings in them are
never changed in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from nearcast.agent.backoff import CRASHED, REFUSED, TRANSIENT, Backoff
from nearcast.resources.plan import SitePlan


class Key(NamedTuple):
    """A model version."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


class Phase(Enum):
    """Where a model version stands between the repository and the engine."""

    ABSENT = "absent"
    """Not verified on disk in this agent's life."""
    FETCHING = "fetching"
    HELD = "held"
    """Verified on disk."""
    LOADING = "loading"
    LOADED = "loaded"
    """The engine serves it on its socket."""
    UNLOADING = "unloading"


class Blame(Enum):
    """What a failure says about a further try; the schedule of retries follows from it."""

    TRANSIENT = "transient"
    """Something was not reachable."""
    REFUSED = "refused"
    """The same bytes will be refused again."""
    CRASHED = "crashed"
    """The engine died of it, or while it was at it."""


SCHEDULE: Final[Mapping[Blame, Backoff]] = {
    Blame.TRANSIENT: TRANSIENT,
    Blame.REFUSED: REFUSED,
    Blame.CRASHED: CRASHED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a step, and when to try again.

    Attributes:
        reason: CamelCase, for conditions.
        attempts: failures in a row.
        retry_at_s: no earlier than this, on the clock of ``now_s``.
    """

    blame: Blame
    reason: str
    message: str
    attempts: int
    retry_at_s: float


@dataclass(frozen=True, slots=True)
class Unit:
    """One model version on this node.

    Attributes:
        key: model and version.
        release: digest of its manifest; empty for one that an adopted engine holds and no plan explains.
        phase: how far it is.
        held: its files were verified in this agent's life (needed again when the engine is lost).
        failure: why the last step failed; None after a step that worked.
        idle_since_s: when it stopped being routed to, while it is loaded and not wanted.
        done_bytes: fetched so far.
        total_bytes: of all its files, once known.
    """

    key: Key
    release: str
    phase: Phase = Phase.ABSENT
    held: bool = False
    failure: Failure | None = None
    idle_since_s: float | None = None
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether an engine died while this was loading, and it has not loaded since."""
        return self.failure is not None and self.failure.blame is Blame.CRASHED


@dataclass(frozen=True, slots=True)
class Serving:
    """What the gateway shall know: the plan, the sockets that are up, and which version of a model gets new requests.

    Invariant: every active version is one of ``local``.
    """

    plan: SitePlan
    local: frozenset[Key] = frozenset()
    active: Mapping[str, str] = field(default_factory=dict)

    @property
    def routed(self) -> frozenset[Key]:
        """The versions that get new requests."""
        return frozenset(Key(model, version) for model, version in self.active.items())


@dataclass(frozen=True, slots=True)
class GoodVersion:
    """The version of a model that was routed to last; served until the wanted one can be, also after a reboot."""

    version: str
    release: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, and how patiently.

    Attributes:
        fetching: downloads at once.
        loading: models that load at once; a suspect loads alone.
        drain_s: between the moment when a version is out of the routes and its removal: requests that were routed
            before must have reached the engine.
        engine_drain_s: how long the engine may finish what is in flight.
    """

    fetching: int = 2
    loading: int = 2
    drain_s: float = 2.0
    engine_drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class State:
    """What a node knows.

    Attributes:
        who: names the node (``site/node``); spreads its retries.
        limits: see :class:`Limits`.
        plan: the site plan in force; None before the first.
        plan_trouble: why a newer plan was refused; None when the last poll was fine.
        units: every model version that is wanted, held as last good, or still in the engine.
        last_good: model -> the version routed to last.
        engine: incarnation of the running engine, None while it is down.
        engine_known: whether the engine has been looked at at all; before that, nothing is offered to the gateway.
        offered: generation and content of the last offer to the gateway.
        accepted: what the gateway has in force; None before the first acceptance in this agent's life.
        open_local: versions for which the gateway may hold a cluster beyond ``accepted``: those of offers since the
            last one that was confirmed.
        open_routes: versions that the gateway may route to beyond ``accepted``, likewise.
        gateway_up: the gateway runs.
        gateway_confirmed: the running gateway has confirmed an offer.
        gateway_failure: why the last offer was refused.
        collected: the releases that were kept at the last collection.
    """

    who: str
    limits: Limits = Limits()
    plan: SitePlan | None = None
    plan_trouble: Failure | None = None
    units: Mapping[Key, Unit] = field(default_factory=dict)
    last_good: Mapping[str, GoodVersion] = field(default_factory=dict)
    engine: int | None = None
    engine_known: bool = False
    generation: int = 0
    offered: Serving | None = None
    accepted: Serving | None = None
    open_local: frozenset[Key] = frozenset()
    open_routes: frozenset[Key] = frozenset()
    gateway_up: bool = False
    gateway_confirmed: bool = False
    gateway_failure: Failure | None = None
    collected: frozenset[str] | None = None

    @property
    def node(self) -> str:
        """The name of the node in its site."""
        return self.who.rpartition("/")[2]


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanReceived:
    """A verified plan of this site, from the repository or from disk."""

    plan: SitePlan


@dataclass(frozen=True, slots=True)
class PlanUnchanged:
    """The repository was asked and has nothing newer."""


@dataclass(frozen=True, slots=True)
class PlanRefused:
    """The repository offers something that must not be trusted, or did not answer."""

    blame: Blame
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FetchProgressed:
    """Some bytes of a release are on disk."""

    key: Key
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A release is complete and verified on disk."""

    key: Key
    release: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A release could not be had, or is not what was signed."""

    key: Key
    release: str
    blame: Blame
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class EngineUp:
    """An engine answers. ``loaded`` is what it serves already: version -> digest of the release, empty if unknown."""

    incarnation: int
    loaded: Mapping[Key, str]


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine died or does not start; everything in it is gone."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine serves this version."""

    incarnation: int
    key: Key


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine did not load this version; ``CRASHED`` when the connection broke while it was loading.

    ``files_gone`` says that its files are no longer there, so that they are fetched again.
    """

    incarnation: int
    key: Key
    blame: Blame
    reason: str
    message: str
    files_gone: bool = False


@dataclass(frozen=True, slots=True)
class Unloaded:
    """The engine no longer has this version."""

    incarnation: int
    key: Key


@dataclass(frozen=True, slots=True)
class UnloadFailed:
    """The engine could not be asked to let go of this version."""

    incarnation: int
    key: Key
    message: str


@dataclass(frozen=True, slots=True)
class GatewayUp:
    """An Envoy answers: adopted, or started on the files of the last acceptance."""


@dataclass(frozen=True, slots=True)
class GatewayLost:
    """Envoy died or does not start."""


@dataclass(frozen=True, slots=True)
class GatewayAccepted:
    """The gateway has confirmed an offer. It may be older than the last one."""

    generation: int
    serving: Serving


@dataclass(frozen=True, slots=True)
class GatewayRefused:
    """The gateway did not take an offer; its last good configuration is in force, perhaps with parts of this one."""

    generation: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened but time."""


Event: TypeAlias = (
    PlanReceived
    | PlanUnchanged
    | PlanRefused
    | FetchProgressed
    | Fetched
    | FetchFailed
    | EngineUp
    | EngineLost
    | Loaded
    | LoadFailed
    | Unloaded
    | UnloadFailed
    | GatewayUp
    | GatewayLost
    | GatewayAccepted
    | GatewayRefused
    | Tick
)
