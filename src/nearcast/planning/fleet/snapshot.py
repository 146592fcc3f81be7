"""A running fleet at one moment: all that planning rests on, as data that can be kept, sent, and planned on again.

The control plane takes it (`control.planner`), `gather` makes the problem of it, decision records hold it so that any
decision can be repeated offline, and the twin starts from it. It holds no secrets: no keys, tokens, addresses or
certificates, only names, resources and measurements.
"""

from typing import Any, Final

import msgspec

from nearcast.errors import InvalidInput
from nearcast.resources.manifest import resource_from_document
from nearcast.resources.problems import ManifestError
from nearcast.resources.state import DesiredState
from nearcast.resources.unreadable import UNREADABLE

SCHEMA: Final = "nearcast.dev/fleet-snapshot/v1alpha1"


class SeenModel(msgspec.Struct, frozen=True, array_like=True):
    """A model version on a node: its profile, zeros where there is none yet. ``full_s`` is 0 where nobody told it: then
    service is taken not to grow with batches."""

    model: str
    version: str
    is_ready: bool
    service_s: float = 0.0
    work_s: float = 0.0
    footprint_bytes: int = 0
    load_s: float = 0.0
    full_s: float = 0.0


class SeenNode(msgspec.Struct, frozen=True, array_like=True):
    """A node. ``workers`` and ``memory_bytes`` are 0 while it has not told its capacity."""

    site: str
    node: str
    connected: bool
    draining: bool
    workers: float = 0.0
    memory_bytes: int = 0
    device: str = ""
    models: tuple[SeenModel, ...] = ()


class SeenDemand(msgspec.Struct, frozen=True, array_like=True):
    """What clients ask of a model at a site: requests per second, smoothed, and mean bytes of each."""

    site: str
    model: str
    rate_per_s: float
    request_bytes: float = 0.0
    answer_bytes: float = 0.0


class SeenWay(msgspec.Struct, frozen=True, array_like=True):
    """A measured round trip from a site to a place. Not ``reachable``: the last attempts failed."""

    origin: str
    place: str
    round_trip_s: float
    age_s: float
    reachable: bool = True


class SeenRelease(msgspec.Struct, frozen=True, array_like=True):
    """A release and the bytes of its files."""

    model: str
    version: str
    size_bytes: int


class SeenFailure(msgspec.Struct, frozen=True, array_like=True):
    """A site that could not load a model version, and is not asked to again for a while."""

    site: str
    model: str
    version: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at one moment.

    Attributes:
        at: RFC 3339, UTC.
        resources: the desired state as manifests, without status, by kind and name.
        nodes: every node that is not revoked.
        ways: what agents measured between sites.
        learned: the measurements that the network map was learned from, those of scouts that moved on among them: of
            each site the newest `network.measurements.MAX_PER_SITE`. Their ages are of the moment of learning.
        learned_age_s: how long before ``at`` that was; learning takes its time.
        failures: what sites proved unable to do.
    """

    fleet: str
    at: str
    resources: tuple[dict[str, Any], ...]
    releases: tuple[SeenRelease, ...] = ()
    nodes: tuple[SeenNode, ...] = ()
    demand: tuple[SeenDemand, ...] = ()
    ways: tuple[SeenWay, ...] = ()
    learned: tuple[SeenWay, ...] = ()
    learned_age_s: float = 0.0
    failures: tuple[SeenFailure, ...] = ()
    schema: str = msgspec.field(default_factory=lambda: SCHEMA)

    def state(self) -> DesiredState:
        """The desired state that the resources are.

        Raises:
            InvalidInput: they are not resources of this release.
        """
        return DesiredState.of([resource_from_document(document, "snapshot") for document in self.resources])


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot in ``data``.

    Raises:
        InvalidInput: it is none of :data:`SCHEMA`, or holds what are no resources.
    """
    try:
        found = msgspec.json.decode(data, type=Snapshot)
        if found.schema != SCHEMA:
            raise InvalidInput(
                f"expected a snapshot of schema {SCHEMA!r}, got {found.schema!r}",
                hint="It is of another release: take a new one by nearcast twin snapshot -o FILE.",
            )
        found.state()
    except (*UNREADABLE, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"expected a snapshot of a fleet: {error}", hint="nearcast twin snapshot -o FILE writes one."
        ) from error
    except ManifestError as error:
        raise InvalidInput(
            f"the snapshot's resources cannot be read: {error.message}",
            hint="If it is of another release, take a new one by nearcast twin snapshot -o FILE.",
        ) from error
    return found
