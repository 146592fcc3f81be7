"""SKELETON; being filled in."""

from pathlib import Path

from nearcast.registry.fetch import Fetch
from nearcast.registry.trust import Clock
from nearcast.resources.plan import SitePlan
from nearcast.resources.release import ReleaseManifest


class TrustedRepository:
    """What a site may believe. Blocking; one thread at a time per instance (a lock sees to it).

    ``directory`` is the node's ``trust/``. Roots are pinned: bytes that do not match the join token's hashes are refused.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fleet: str,
        site: str,
        fetch: Fetch,
        now: Clock,
        plans_root: bytes,
        plans_root_sha256: str,
        releases_root: bytes | None = None,
        releases_root_sha256: str | None = None,
    ) -> None:
        raise NotImplementedError

    def poll_plan(self) -> SitePlan | None:
        """The new plan, verified and kept durably, or None when nothing changed (then: one conditional GET).

        Raises:
            Unavailable: the repository cannot be reached, or has no plan for this site yet.
            IntegrityError: metadata or plan is not what the fleet signed; which attack it looks like is in the message.
        """
        raise NotImplementedError

    def release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """For installing: the release, verified by fresh metadata. Raises Unavailable, IntegrityError."""
        raise NotImplementedError

    def refresh_releases(self) -> bool:
        """Fetch newer metadata of the releases, if any (daily); whether it changed. Raises as :meth:`release`."""
        raise NotImplementedError

    def verified_plan(self) -> SitePlan | None:
        """For serving, without network: the plan kept last, verified again; None before the first. Expiry is ignored.

        Raises:
            IntegrityError: the copy on disk was changed.
        """
        raise NotImplementedError

    def verified_release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """For serving, without network: a release that was verified before. Raises NotFound, IntegrityError."""
        raise NotImplementedError
