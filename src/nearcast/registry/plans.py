"""Site plans: one tiny TUF repository per site, all its roles but the root held by the control plane's online key.

One repository per site keeps a change at one site from touching the others, and no site reads another's plan. All
share one root, so a mirror could hand site A what was signed for site B: therefore the site stands in the target's
path and in the plan, and versions rise fleet-wide (:mod:`client` checks all three).

Not decided here: what a plan says (`planning.plans`), and the number of the next version (the control plane).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import TargetFile, Targets

from nearcast.errors import Conflict, IntegrityError, InvalidInput
from nearcast.registry.objects import Objects, Tagged
from nearcast.registry.repository import LOST_NUMBERS, Published, SignedFolder, stale
from nearcast.registry.trust import (
    Clock,
    Judges,
    Lifetimes,
    new_root,
    signed_bytes,
    stored_target,
    target_sha256,
    verify_target,
)
from nearcast.resources.names import is_site_name
from nearcast.resources.plan import SitePlan, decode_plan, encode_plan, plan_target_path

log = logging.getLogger(__name__)

Argument = TypeVar("Argument")

PREFIX = "plans"


def new_plans_root(
    *, root_signers: Sequence[Signer], online_key: Key, now: datetime, lifetimes: Lifetimes | None = None
) -> bytes:
    """Version 1 of the root of trust of all site plans. Join tokens pin its sha256.

    Args:
        root_signers: hold the root keys; needed again only to replace the online key (:func:`trust.next_root`).
        online_key: signs plans, snapshots and timestamps.
        now: the time.
        lifetimes: how long it is valid.
    """
    return new_root(
        root_signers=root_signers,
        targets_keys=[online_key],
        online_key=online_key,
        now=now,
        lifetime=(lifetimes or Lifetimes()).root,
    )


def site_prefix(site: str) -> str:
    """Where a site's repository lies. Raises :class:`InvalidInput` for what is no name of a site."""
    if not is_site_name(site):
        raise InvalidInput(f"expected the name of a site, got {site!r}")
    return f"{PREFIX}/{site}"


class PlansRepository:
    """What is published under ``plans/<site>/``. Thread-safe; a call cut short is made good by the next one.

    Args:
        objects: where it is published.
        root: made by :func:`new_plans_root`.
        online_signer: whose key the newest root names.
        now: the time.
        lifetimes: of what is signed.
        later_roots: versions 2, 3, … of the root, in order; each site gets them at its next publication or renewal.
    """

    def __init__(
        self,
        objects: Objects,
        root: bytes,
        online_signer: Signer,
        now: Clock,
        lifetimes: Lifetimes | None = None,
        *,
        later_roots: Sequence[bytes] = (),
    ) -> None:
        self._objects = objects
        self._roots = (root, *later_roots)
        self._signer = online_signer
        self._now = now
        self._lifetimes = lifetimes or Lifetimes()
        self._lock = threading.RLock()
        self._judges = Judges()
        self._damaged: set[str] = set()
        judge = self._judges.latest(self._roots, PREFIX)
        for role in ("targets", "snapshot", "timestamp"):
            if online_signer.public_key.keyid not in judge.roles[role].keyids:
                raise IntegrityError(f"the root of plans does not let our online key sign {role}")

    def publish(self, plan: SitePlan) -> None:
        """Make ``plan`` what its site sees. The same plan again is a no-op.

        Where the store holds something damaged, or something that our key never signed, all of it is signed anew,
        under higher numbers than a client can have seen.

        Raises:
            Conflict: a newer plan was published, or another one with this version.
        """
        site, data = plan.site.name, encode_plan(plan)
        folder = self._folder(site)
        with self._lock:
            folder.add_roots(self._roots)
            try:
                published = self._published(folder)
                held = None if published is None else self._plan_bytes(site, published)
            except IntegrityError as error:
                log.warning("the published plan of %s is replaced: %s", site, error.message)
                lowest = max(plan.version, folder.highest_number() + LOST_NUMBERS)
                self._sign_plan(folder, site, data, None, lowest, folder.damaged_head())
                return
            if held == data:
                return
            version = 0 if held is None else decode_plan(held).version
            if version >= plan.version:
                raise Conflict(f"expected a plan for {site} newer than version {version}, got {plan.version}")
            self._sign_plan(folder, site, data, published, plan.version)

    def latest(self, site: str) -> SitePlan | None:
        """The plan that ``site`` sees, or None. Raises :class:`IntegrityError` for one that our key never signed."""
        published = self._published(self._folder(site))
        return None if published is None else decode_plan(self._plan_bytes(site, published))

    def sites(self) -> tuple[str, ...]:
        """All sites that a plan was ever published for."""
        return tuple(sorted({path.split("/")[1] for path in self._objects.paths(PREFIX)}))

    def highest_version(self) -> int:
        """The highest version of a plan published to any site; 0 before the first. Reads every site's plan."""
        return max((self._highest_version_of(site) for site in self.sites()), default=0)

    def renew(self, now: datetime) -> tuple[str, ...]:
        """Sign anew whatever is past half of its life, plans too; the sites for which anything was signed.

        A damaged site costs the others nothing: see :meth:`take_damaged`.
        """
        return tuple(site for site in self.sites() if self._tried(self._renew_site, site, now))

    def prune(self, keep: int = 16) -> int:
        """Remove all but the newest ``keep`` publications of each site; how many objects went.

        Not fewer than a few: a site that is in the middle of a refresh reads those that it has begun with.
        """
        return sum(self._tried(self._prune_site, site, max(keep, 2)) for site in self.sites())

    def _tried(self, work: Callable[[str, Argument], int], site: str, argument: Argument) -> int:
        with self._lock:
            try:
                return work(site, argument)
            except IntegrityError as error:
                log.warning("the published plan of %s is damaged: %s", site, error.message)
                self._damaged.add(site)
                return 0

    def take_damaged(self) -> frozenset[str]:
        """Sites found damaged since this was asked last: :meth:`publish` makes their plans anew."""
        with self._lock:
            found, self._damaged = frozenset(self._damaged), set()
            return found

    def _highest_version_of(self, site: str) -> int:
        """The version of the plan that ``site`` sees, or a higher one: files carry no lower number than their plan."""
        try:
            plan = self.latest(site)
        except IntegrityError:
            return self._folder(site).highest_number()
        return 0 if plan is None else plan.version

    def _renew_site(self, site: str, now: datetime) -> bool:
        folder = self._folder(site)
        published = folder.current()
        if published is None:
            return False
        rooted = folder.add_roots(self._roots)
        if rooted or stale(published.targets, self._lifetimes.targets, now):
            self._sign_plan(folder, site, self._plan_bytes(site, published), published, 1)
            return True
        return folder.renew(now)

    def _prune_site(self, site: str, keep: int) -> int:
        return self._folder(site).prune(keep)

    def _sign_plan(
        self,
        folder: SignedFolder,
        site: str,
        data: bytes,
        before: Published | None,
        plan_version: int,
        head: Tagged | None = None,
    ) -> None:
        path = plan_target_path(site)
        target = TargetFile.from_data(path, data, ["sha256"])
        self._objects.replace(
            f"{folder.prefix}/targets/{stored_target(path, target_sha256(target, folder.prefix))}", data
        )
        version = folder.free_targets_version(max(plan_version, 1 if before is None else before.targets.version + 1))
        targets = Targets(version=version, expires=self._now() + self._lifetimes.targets, targets={path: target})
        folder.publish(signed_bytes(targets, [self._signer]), version, before, minimum=plan_version, head=head)

    @staticmethod
    def _published(folder: SignedFolder) -> Published | None:
        """What a site sees, or None before its first plan. A timestamp that is gone is damage: sites have seen it."""
        published = folder.current()
        if published is None and folder.newest_list():
            raise IntegrityError(f"{folder.prefix}/metadata/timestamp.json is missing, and there are plans")
        return published

    def _plan_bytes(self, site: str, published: Published) -> bytes:
        path = plan_target_path(site)
        name = f"plans of {site}"
        target = published.targets.targets.get(path)
        if target is None:
            raise IntegrityError(f"{name}: the published targets hold no {path}")
        data = self._objects.read(f"{site_prefix(site)}/targets/{stored_target(path, target_sha256(target, name))}")
        if data is None:
            raise IntegrityError(f"{name}: the plan is signed for, and missing in the store")
        verify_target(published.targets, path, data, name)
        return data

    def _folder(self, site: str) -> SignedFolder:
        return SignedFolder(self._objects, site_prefix(site), self._signer, self._now, self._lifetimes, self._judges)
