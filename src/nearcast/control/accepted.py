"""Whether a deployment can be had as it is written: its release, the sites of its placement, and how many there are.

Decides the words of the conditions ``Accepted`` and ``MinSites``. What is accepted may still be on its way
(`conditions`). A deployment that cannot be had does not stop what serves its model: sites that held it before go on
until sites of the placement serve (`planning.plans`), and the message names them, so that nothing runs outside of a
placement silently.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from nearcast.control.finding import Finding, listed
from nearcast.planning.grounds import Grounds, Placed, wanted
from nearcast.resources.kinds import Deployment

TOO_FEW: Final = "TooFewSites"
"""Reason of ``MinSites`` where no plan can bring more: rules or the placement allow too few."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What is known of one deployment's sites.

    Attributes:
        where: where it goes.
        holders: sites whose plans hold its model, those that only go on until others serve among them.
    """

    where: Placed
    holders: Sequence[str]

    @property
    def outside(self) -> list[str]:
        """Sites that go on with the model although the placement or a rule leaves them out."""
        return [site for site in self.holders if site not in self.where.open]

    @property
    def staying(self) -> list[str]:
        """Sites that go on with the model until those serve where it is placed: those outside, and those that may hold
        it and were not chosen."""
        return [site for site in self.holders if site not in self.where.sites]


def accepted(
    deployment: Deployment, hold: Hold, grounds: Grounds, releases: Collection[tuple[str, str]]
) -> tuple[Finding, ...]:
    """``Accepted``, and ``MinSites`` where the placement asks for more than one."""
    found = _unreleased(deployment, hold, releases) or _homeless(deployment, hold) or _placed(deployment, hold, grounds)
    return (found, *_min_sites(deployment, hold, is_accepted=found.status == "True"))


def _unreleased(deployment: Deployment, hold: Hold, releases: Collection[tuple[str, str]]) -> Finding | None:
    spec = deployment.spec
    if (spec.model, spec.version) in releases:
        return None
    others = sorted(version for name, version in releases if name == spec.model)
    known = f"released are {listed(others)}" if others else "no version is released"
    hint = f"nearcast model push {spec.model} --version {spec.version} PATH"
    going_on = f"; {_say(hold.holders, 'goes', 'go')} on with another version" if hold.holders else ""
    message = f"{spec.model}@{spec.version} is not released; {known}; {hint}{going_on}"
    return Finding("Accepted", "False", "ReleaseNotFound", message)


def _homeless(deployment: Deployment, hold: Hold) -> Finding | None:
    """That there is no site for it, and why; None where there is one."""
    where = hold.where
    if where.sites:
        return None
    if where.open:
        why = "has found no site with room so far" if where.is_planned else "has not chosen sites yet"
        reason, message = "NotPlanned", f"the planner {why}; {listed(where.open)} may run it"
    elif where.refused:
        reason, message = "ResidencyRefused", f"policies close every site of the placement: {_closed(where)}"
    elif where.barred:
        reason, message = "NotAllowed", f"no site of the placement may run it: {_barred(where)}"
    else:
        reason, message = "NoSite", f"no site matches the placement: {wanted(deployment.spec.placement)}"
    if may := [site for site in hold.holders if site in where.open]:
        message += f"; {_say(may, 'serves', 'serve')} it meanwhile"
    if outside := hold.outside:
        message += f"; until one serves, {_say(outside, 'goes', 'go')} on outside of the placement"
    return Finding("Accepted", "False", reason, message)


def _placed(deployment: Deployment, hold: Hold, grounds: Grounds) -> Finding:
    where = hold.where
    unserved = _origins_without_a_place(deployment, where, grounds)
    is_auto = deployment.spec.placement.auto is not None  # which does not ask for every site that it may have
    notes = [f"left out by policy: {_closed(where)}"] if where.refused and not is_auto else []
    notes += [f"left out: {_barred(where)}"] if where.barred and not is_auto else []
    notes += [f"requests that enter at {listed(unserved)} are refused by residency"] if unserved else []
    notes += [f"{_say(hold.staying, 'goes', 'go')} on until these serve"] if hold.staying else []
    return Finding("Accepted", "True", "Placed", "; ".join([f"on {listed(where.sites)}", *notes]))


def _min_sites(deployment: Deployment, hold: Hold, *, is_accepted: bool) -> tuple[Finding, ...]:
    """Whether it has the sites that it asks for, demand or not."""
    auto, where = deployment.spec.placement.auto, hold.where
    if auto is None or auto.min_sites <= 1:
        return ()
    least = auto.min_sites
    if len(where.open) < least:
        can = f"{len(where.open)} of {least} sites may run it: {listed(where.open) or 'none'}"
        return (Finding("MinSites", "False", TOO_FEW, f"{can}; asked for: {wanted(deployment.spec.placement)}"),)
    if not is_accepted:
        return ()
    if len(where.sites) < least:
        has = f"{len(where.sites)} of {least} sites so far: {listed(where.sites)}"
        hint = f"nearcast plan explain {deployment.name} tells of each other site why not"
        return (Finding("MinSites", "False", "NotPlanned", f"{has}; {hint}"),)
    return (Finding("MinSites", "True", "Placed", f"{len(where.sites)} of at least {least} sites"),)


def _say(names: Sequence[str], one: str, many: str) -> str:
    return f"{listed(names)} {one if len(names) == 1 else many}"


def _closed(where: Placed) -> str:
    return "; ".join(f"{site}: refused by {listed(names)}" for site, names in sorted(where.refused.items()))


def _barred(where: Placed) -> str:
    return "; ".join(f"{site}: {why}" for site, why in sorted(where.barred.items()))


def _origins_without_a_place(deployment: Deployment, where: Placed, grounds: Grounds) -> list[str]:
    if not grounds.rules:
        return []
    classes, names = grounds.classes, list(grounds.sites)
    number = dict(zip(names, classes.site_class, strict=True))
    places = sorted({int(number[site]) for site in where.sites})
    served = classes.may[classes.rule_set[deployment.spec.model]][:, places].any(axis=1)
    return sorted(name for name in names if not served[number[name]])
