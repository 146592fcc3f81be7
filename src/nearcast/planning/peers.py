"""Whom a site may ask: near sites that hold models, few enough for every node to measure and to keep connections to.

Decides the peers of each site: those that its shares name; for each model the :data:`SPARE` nearest that may answer
(where none may, the nearest, so that it can be said which policy refused); then more of the nearest, up to
:data:`MAX_PEERS` in all. Near is by distance, or as it is emulated; without either, as the network map says
(`nearness`), else whoever's turn it is. Does not decide scouts (`network.scouts`), nor shares.

Sites are arrays here, since a fleet of thousands has millions of pairs: O(sites x (models + sites)).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.problem import Floats, Indices, Truths
from nearcast.planning.grounds import Grounds
from nearcast.resources.plan import PlannedModel

MAX_PEERS: Final = 8
SPARE: Final = 2
"""Peers that a site gets for every model, however many peers that makes: one to ask, one to fail over to."""
PREFIX: Final = 256
"""Nearest sites that are looked at first; all others only where these hold too few replicas of a model."""
_NEVER: Final = 1 << 30


def chosen_peers(
    grounds: Grounds,
    models: Mapping[str, tuple[PlannedModel, ...]],
    round_trip_s: Floats,
    needed: Mapping[str, frozenset[str]],
) -> dict[str, tuple[str, ...]]:
    """The peers of every site, sorted by name.

    Args:
        grounds: the rules, over all sites.
        models: site -> what it shall serve.
        round_trip_s: float64[S, S], in the order of ``grounds.sites``; equal ones are taken in turn.
        needed: site -> other sites that its shares name.
    """
    names = tuple(grounds.sites)
    deployed = sorted({planned.model for held in models.values() for planned in held})
    column = {model: n for n, model in enumerate(deployed)}
    holds = np.zeros((len(names), len(deployed)), dtype=np.bool_)
    for n, name in enumerate(names):
        for planned in models[name]:
            holds[n, column[planned.model]] = True
    opened = [_open_to(grounds, deployed, number) & holds for number in range(len(grounds.classes.examples))]
    index = {name: n for n, name in enumerate(names)}
    found = {}
    for n, name in enumerate(names):
        order = _nearest_first(round_trip_s[n], n)
        need = _need(order, holds, opened[int(grounds.classes.site_class[n])])
        need[[index[other] for other in needed[name]]] = 0
        found[name] = _ranked(names, order, need)
    return found


def _nearest_first(round_trip_s: Floats, own: int) -> NDArray[np.intp]:
    """intp[S - 1]: the other sites by round trip; ties begin after the own site in the order of names. Where nothing is
    known, so, all sites are asked by as many others, and not the first of the alphabet by everybody."""
    turned = np.argsort(np.roll(round_trip_s, -own - 1), kind="stable")
    order = (turned + own + 1) % len(round_trip_s)
    others: NDArray[np.intp] = order[order != own]
    return others


def _open_to(grounds: Grounds, deployed: Sequence[str], number: int) -> Truths:
    """bool[S, M]: places that may answer requests that enter at a site of class ``number``."""
    classes = grounds.classes
    rows = [classes.may[classes.rule_set[model], number] for model in deployed]
    may = np.array(rows, dtype=np.bool_).reshape(len(deployed), len(classes.examples))
    found: Truths = may.T[classes.site_class]
    return found


def _need(order: NDArray[np.intp], holds: Truths, opened: Truths) -> NDArray[np.int64]:
    """int64[S]: for each place the best rank that it has for any model, by distance; :data:`_NEVER` for none."""
    need = np.full(len(holds), _NEVER, dtype=np.int64)
    if not holds.shape[1] or not len(order):
        return need
    near = order[:PREFIX]
    total = opened.sum(axis=0) - opened[_left_out(order, len(holds))].sum(axis=0)
    if (opened[near].sum(axis=0) < np.minimum(total, MAX_PEERS)).any() or (total == 0).any():
        near = order
    rank = np.cumsum(opened[near], axis=0) - 1
    counts = opened[near] & (rank < MAX_PEERS)
    need[near] = np.where(counts, rank, _NEVER).min(axis=1)
    for model in np.flatnonzero(total == 0):
        holders = near[holds[near, model]]
        if len(holders):
            need[holders[0]] = 0
    return need


def _left_out(order: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The sites that are not in ``order``: the own one."""
    mask = np.ones(count, dtype=np.bool_)
    mask[order] = False
    return np.flatnonzero(mask)


def _ranked(names: Sequence[str], order: NDArray[np.intp], need: NDArray[np.int64]) -> tuple[str, ...]:
    wanted = order[need[order] < _NEVER]
    ranked: Indices = wanted[np.argsort(need[wanted], kind="stable")].astype(np.int32)
    indispensable = int((need[wanted] < SPARE).sum())
    return tuple(sorted(names[n] for n in ranked[: max(MAX_PEERS, indispensable)]))
