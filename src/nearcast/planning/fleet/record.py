"""Decision records: what was decided for a fleet, on which observations, so that it can be read and repeated.

A record holds the snapshot, the plan before it, the plan, and the guidance that was published; :func:`replayed` makes
the same plan of the same inputs on any machine with the same release. Plans are kept by names and as packed arrays: one
of thousands of sites stays a few megabytes.
"""

import zlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

from nearcast.errors import InvalidInput
from nearcast.planning.fleet.guidance import Guidance
from nearcast.planning.fleet.problem import FleetPlan, Problem
from nearcast.planning.fleet.snapshot import Snapshot
from nearcast.resources.unreadable import UNREADABLE

SCHEMA: Final = "nearcast.dev/decision/v1alpha1"
MAX_RECORD_BYTES: Final = 256 * 1024 * 1024
"""Of one record unpacked: what is larger was not written by us."""


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A :class:`FleetPlan` with its names. ``placed`` is packed bits; the others are little-endian arrays."""

    sites: tuple[str, ...]
    models: tuple[str, ...]
    placed: bytes
    origin: bytes
    model: bytes
    place: bytes
    share: bytes
    utilization: bytes
    wait_s: bytes
    price_s: bytes
    unserved_per_s: bytes
    cost_s: float
    routing_bound_s: float
    placement_bound_s: float


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly guidance follows plans.

    Attributes:
        hold_s: a site keeps a model for so long after the plan stopped asking for it.
        step: shares are multiples of this.
        least_change: shares that moved less are left as they are; to go to the soonest place alone again, ``step``.
    """

    hold_s: float = 300.0
    step: float = 0.05
    least_change: float = 0.1


class Unwanted(msgspec.Struct, frozen=True, array_like=True):
    """A site that holds a deployment although plans stopped asking for it ``for_s`` seconds ago."""

    deployment: str
    site: str
    for_s: float


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of the fleet was planned anew: everything, what a change of few sites touches, or nothing.

    Attributes:
        planned: ``whole``; ``part``: the ``changed`` sites and whom they touch (`replan`), the rest as it was before;
            ``none``: the plan is the one before.
        changed: of a part.
        why: for people.
    """

    planned: Literal["whole", "part", "none"] = "whole"
    changed: tuple[str, ...] = ()
    why: str = ""


EVERYTHING: Final = Scope()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One decision.

    Attributes:
        id: rises with every decision of a fleet.
        reason: what changed, for people; the first few changes.
        snapshot: the observations.
        before: the plan before, which this one keeps to where it is no worse; None for the first.
        guided: the guidance before.
        unwanted: sites that were held at that moment.
        scope: how much was planned anew, from ``before``.
        plan: what was decided.
        guidance: what of it was published.
    """

    id: int
    at: str
    reason: tuple[str, ...]
    snapshot: Snapshot
    before: PlanRecord | None
    guided: Guidance
    unwanted: tuple[Unwanted, ...]
    pace: Pace
    plan: PlanRecord
    guidance: Guidance
    scope: Scope = EVERYTHING
    software: str = ""
    schema: str = msgspec.field(default_factory=lambda: SCHEMA)


def packed(problem: Problem, plan: FleetPlan) -> PlanRecord:
    """``plan`` as it is kept."""
    return PlanRecord(
        sites=problem.sites,
        models=problem.models,
        placed=np.packbits(plan.placed).tobytes(),
        origin=plan.origin.astype("<i4").tobytes(),
        model=plan.model.astype("<i4").tobytes(),
        place=plan.place.astype("<i4").tobytes(),
        share=plan.share.astype("<f8").tobytes(),
        utilization=plan.utilization.astype("<f8").tobytes(),
        wait_s=plan.wait_s.astype("<f8").tobytes(),
        price_s=plan.price_s.astype("<f8").tobytes(),
        unserved_per_s=_sparse(plan.unserved_per_s),
        cost_s=plan.cost_s,
        routing_bound_s=plan.routing_bound_s,
        placement_bound_s=plan.placement_bound_s,
    )


def unpacked(record: PlanRecord) -> FleetPlan:
    """The plan that was kept.

    Raises:
        InvalidInput: the arrays do not fit the names.
    """
    shape = (len(record.sites), len(record.models))
    try:
        bits = np.unpackbits(np.frombuffer(record.placed, np.uint8), count=shape[0] * shape[1])
        plan = FleetPlan(
            placed=bits.reshape(shape).astype(np.bool_),
            origin=np.frombuffer(record.origin, "<i4").astype(np.int32),
            model=np.frombuffer(record.model, "<i4").astype(np.int32),
            place=np.frombuffer(record.place, "<i4").astype(np.int32),
            share=np.frombuffer(record.share, "<f8").astype(np.float64),
            utilization=np.frombuffer(record.utilization, "<f8").astype(np.float64),
            wait_s=np.frombuffer(record.wait_s, "<f8").astype(np.float64),
            price_s=np.frombuffer(record.price_s, "<f8").astype(np.float64),
            unserved_per_s=_dense(record.unserved_per_s, shape),
            cost_s=record.cost_s,
            routing_bound_s=record.routing_bound_s,
            placement_bound_s=record.placement_bound_s,
        )
        _require_fit(plan, shape)
    except (ValueError, IndexError) as error:
        raise InvalidInput(f"the record's plan is damaged: {error}") from error
    return plan


def _require_fit(plan: FleetPlan, shape: tuple[int, int]) -> None:
    if not len(plan.origin) == len(plan.model) == len(plan.place) == len(plan.share):
        raise ValueError("its routes are of different lengths")
    for name, values, most in (
        ("origin", plan.origin, shape[0]),
        ("place", plan.place, shape[0]),
        ("model", plan.model, shape[1]),
    ):
        if len(values) and not 0 <= values.min() <= values.max() < most:
            raise ValueError(f"a route names {name} {values.max()} of {most}")
    if not len(plan.utilization) == len(plan.wait_s) == len(plan.price_s) == shape[0]:
        raise ValueError("its places are not as many as its sites")


def _sparse(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> bytes:
    flat = values.ravel()
    at = np.flatnonzero(flat)
    return at.astype("<i8").tobytes() + flat[at].astype("<f8").tobytes()


def _dense(data: bytes, shape: tuple[int, int]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    half = len(data) // 2
    found = np.zeros(shape[0] * shape[1])
    found[np.frombuffer(data[:half], "<i8")] = np.frombuffer(data[half:], "<f8")
    return found.reshape(shape)


@dataclass(frozen=True, slots=True)
class _Renaming:
    """Old index -> new index of each axis; -1 for what is gone."""

    site: "np.ndarray[tuple[int], np.dtype[np.int32]]"
    model: "np.ndarray[tuple[int], np.dtype[np.int32]]"


def carried(record: PlanRecord | None, problem: Problem) -> FleetPlan | None:
    """The plan before, in the indices of ``problem``: what is gone is left out, what is new is not placed."""
    if record is None:
        return None
    old = unpacked(record)
    if record.sites == problem.sites and record.models == problem.models:
        return old
    rename = _Renaming(_positions(record.sites, problem.sites), _positions(record.models, problem.models))
    shape = (len(problem.sites), len(problem.models))
    kept_sites, kept_models = np.flatnonzero(rename.site >= 0), np.flatnonzero(rename.model >= 0)
    to = np.ix_(rename.site[kept_sites], rename.model[kept_models])
    placed = np.zeros(shape, dtype=np.bool_)
    placed[to] = old.placed[np.ix_(kept_sites, kept_models)]
    unserved = np.zeros(shape)
    unserved[to] = old.unserved_per_s[np.ix_(kept_sites, kept_models)]
    origin, model, place = rename.site[old.origin], rename.model[old.model], rename.site[old.place]
    kept = (origin >= 0) & (model >= 0) & (place >= 0)
    order = np.lexsort((-old.share[kept], model[kept], origin[kept]))
    by_site = [np.zeros(shape[0]) for _ in range(3)]
    for values, before in zip(by_site, (old.utilization, old.wait_s, old.price_s), strict=True):
        values[rename.site[kept_sites]] = before[kept_sites]
    return FleetPlan(
        placed=placed,
        origin=origin[kept][order],
        model=model[kept][order],
        place=place[kept][order],
        share=old.share[kept][order],
        utilization=by_site[0],
        wait_s=by_site[1],
        price_s=by_site[2],
        unserved_per_s=unserved,
        cost_s=old.cost_s,
        routing_bound_s=old.routing_bound_s,
        placement_bound_s=old.placement_bound_s,
    )


def _positions(old: tuple[str, ...], new: tuple[str, ...]) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    index = {name: n for n, name in enumerate(new)}
    return np.array([index.get(name, -1) for name in old], dtype=np.int32)


def encode_record(record: Record) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_record(data: bytes) -> Record:
    """The record in JSON ``data``.

    Raises:
        InvalidInput: it is none of :data:`SCHEMA`.
    """
    try:
        found = msgspec.json.decode(data, type=Record)
    except (*UNREADABLE, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"expected a decision record: {error}", hint="nearcast plan replay ID --save FILE writes one."
        ) from error
    if found.schema != SCHEMA:
        raise InvalidInput(
            f"expected a record of schema {SCHEMA!r}, got {found.schema!r}",
            hint="It is of another release: replay it with that one.",
        )
    return found


def compress(record: Record) -> bytes:
    """The record as it is stored."""
    return zlib.compress(encode_record(record), 6)


def decompress(data: bytes) -> Record:
    """A stored record.

    Raises:
        InvalidInput: it is damaged, or larger than a record can be.
    """
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, MAX_RECORD_BYTES)
    except zlib.error as error:
        raise InvalidInput(f"the stored record is damaged: {error}") from error
    if unpacker.unconsumed_tail:
        raise InvalidInput(f"expected a record of at most {MAX_RECORD_BYTES} bytes")
    return decode_record(text)
