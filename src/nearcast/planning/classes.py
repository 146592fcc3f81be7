"""Residency for thousands of sites: sites that no rule can tell apart are one class, and rules bind classes.

Decides nothing that `residency` does not: :func:`compiled` asks its two predicates once per rule and site, and a
property test holds the tables against :func:`residency.refusals` for every pair. A fleet of any size has few classes,
since policies speak of countries, groups, and a few names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nearcast.planning.fleet.problem import Indices, Truths
from nearcast.planning.residency import allows, matches, refusals
from nearcast.resources.plan import ResidencyRule, SiteFacts

_NO_MODEL = ""


@dataclass(frozen=True, eq=False)
class Classes:
    """Rules over classes of sites.

    Attributes:
        site_class: int32[S], of each site in the order given.
        examples: one site of each class, which stands for all of them.
        rule_set: model -> which row of ``may`` binds it.
        may: bool[R, C, C]: whether requests from a class (row) may be computed at a class (column), by rule set.
    """

    site_class: Indices
    examples: tuple[SiteFacts, ...]
    rule_set: Mapping[str, int]
    may: Truths

    def is_closed(self, model: str) -> Truths:
        """bool[C]: classes at which no request for ``model`` may be computed, wherever it enters."""
        closed: Truths = ~self.may[self.rule_set[model]].any(axis=0)
        return closed


def compiled(sites: Sequence[SiteFacts], models: Sequence[str], rules: Sequence[ResidencyRule]) -> Classes:
    """The classes of ``sites`` under ``rules``, and what binds each of ``models``. Cost: O(sites x rules)."""
    seen: dict[tuple[tuple[bool, bool], ...], int] = {}
    examples: list[SiteFacts] = []
    numbers = []
    for site in sites:
        key = tuple((_matches_origin(rule, site), allows(rule, site)) for rule in rules)
        if key not in seen:
            seen[key] = len(examples)
            examples.append(site)
        numbers.append(seen[key])
    keys = [np.array(key, dtype=np.bool_).reshape(len(rules), 2) for key in seen]
    origin = np.array([key[:, 0] for key in keys], dtype=np.bool_).reshape(len(keys), len(rules))
    allowed = np.array([key[:, 1] for key in keys], dtype=np.bool_).reshape(len(keys), len(rules))
    sets: dict[tuple[int, ...], int] = {}
    rule_set = {}
    for model in models:
        binding = tuple(n for n, rule in enumerate(rules) if not rule.models or model in rule.models)
        rule_set[model] = sets.setdefault(binding, len(sets))
    may = np.ones((max(1, len(sets)), len(keys), len(keys)), dtype=np.bool_)
    for binding, row in sets.items():
        for rule in binding:
            may[row] &= ~origin[:, rule, None] | allowed[None, :, rule]
    return Classes(np.array(numbers, dtype=np.int32), tuple(examples), rule_set, may)


def _matches_origin(rule: ResidencyRule, site: SiteFacts) -> bool:
    """Whether ``rule`` is about requests that enter at ``site``, for the models that it is about."""
    return matches(rule, rule.models[0] if rule.models else _NO_MODEL, site)


def closing(classes: Classes, rules: Sequence[ResidencyRule], model: str, place: SiteFacts) -> tuple[str, ...]:
    """The policies that together refuse ``place`` to requests for ``model`` from every site; empty if one may ask."""
    if any(not refusals(rules, model, origin, place) for origin in classes.examples):
        return ()
    binding = (rule for rule in rules if not rule.models or model in rule.models)
    return tuple(sorted({rule.policy for rule in binding if not allows(rule, place)}))
