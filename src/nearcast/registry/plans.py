"""SKELETON; being filled in."""

from collections.abc import Sequence
from datetime import datetime

from securesystemslib.signer import Key, Signer

from nearcast.registry.objects import Objects
from nearcast.registry.trust import Clock, Lifetimes
from nearcast.resources.plan import SitePlan


def new_plans_root(
    *, root_signers: Sequence[Signer], online_key: Key, now: datetime, lifetimes: Lifetimes | None = None
) -> bytes:
    """Version 1 of the root of trust of all site plans. Pinned by its sha256 in join tokens."""
    raise NotImplementedError


class PlansRepository:
    """Control plane's side of ``plans/<site>/``. Thread-safe."""

    def __init__(
        self, objects: Objects, root: bytes, online_signer: Signer, now: Clock, lifetimes: Lifetimes | None = None
    ) -> None:
        raise NotImplementedError

    def publish(self, plan: SitePlan) -> None:
        """Publish; idempotent for the same plan; Conflict for an older version or another plan of the same version."""
        raise NotImplementedError

    def latest(self, site: str) -> SitePlan | None:
        """The published plan of a site, or None."""
        raise NotImplementedError

    def highest_version(self) -> int:
        """The highest plan version published to any site; 0 before the first."""
        raise NotImplementedError

    def renew(self, now: datetime) -> tuple[str, ...]:
        """Sign anew what is past half of its life; the sites for which anything was signed."""
        raise NotImplementedError

    def prune(self, keep: int = 16) -> int:
        """Remove all but the newest ``keep`` publications of each site; how many objects went."""
        raise NotImplementedError
