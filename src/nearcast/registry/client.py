"""What a site may believe: plans and releases, verified before use, and kept so that it can boot without an uplink.

*Installing* goes through python-tuf's client with fresh metadata (:meth:`TrustedRepository.poll_plan`, ``release``).
*Serving* does not: what was verified once is read back from our own copies and verified again against the pinned root,
expiry ignored (``verified_plan``, ``verified_release``), so a node that is cut off keeps serving and boots.

The clock never runs backwards for trust: the time is the later of the system's and that of the last verification, so
setting a clock back does not revive expired metadata.

Not decided here: what is done about a refused plan (the agent reports it and keeps what runs).
"""

import hashlib
import threading
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import TargetFile, Targets

from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import IntegrityError, NotFound, Unavailable
from nearcast.registry.fetch import Fetch, refusal
from nearcast.registry.mirror import TIMEOUT_S, Kept, Mirror, limited
from nearcast.registry.refused import MANIFEST, PLAN, Attack, TrustRefused
from nearcast.registry.trust import Chain, Clock, refused, stored_target, target_sha256, verify_target
from nearcast.resources.plan import SitePlan, decode_plan, plan_target_path
from nearcast.resources.release import ReleaseManifest, decode_release, target_path
from nearcast.resources.unreadable import UNREADABLE

MANIFEST_LIMIT_BYTES = 5_000_000


class TrustedRepository:
    """What a site may believe. Blocking; one call at a time (a lock sees to it).

    Args:
        directory: the node's ``trust/``; made, 0700.
        fleet: the fleet whose plans are meant.
        site: the site whose plans are meant.
        fetch: how to get at the repository.
        now: the time.
        plans_root, plans_root_sha256: version 1 of the root of plans, and its hash out of the join token.
        releases_root, releases_root_sha256: the same for releases.

    Raises:
        IntegrityError: a root is not the one that the join token pinned.
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
        releases_root: bytes,
        releases_root_sha256: str,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._manifests = directory / "manifests"
        self._fleet = fleet
        self._site = site
        self._fetch = fetch
        self._now = now
        self._lock = threading.RLock()
        self._plans = Mirror(f"plans/{site}", directory / "plan.json", plans_root, plans_root_sha256, fetch)
        self._releases = Mirror("releases", directory / "releases.json", releases_root, releases_root_sha256, fetch)

    # --- installing: fresh metadata, network ---

    def poll_plan(self) -> SitePlan | None:
        """The new plan, verified and kept durably; None when the plan is the one kept already.

        When nothing was signed since, this is one conditional GET.

        Raises:
            Unavailable: the repository cannot be reached, or has no plan for this site yet.
            Unauthenticated, Forbidden: it does not let this node read.
            IntegrityError: what came is not what the fleet signed for this site; the message says which check failed.
        """
        with self._lock:
            mirror = self._plans
            held = mirror.sound()
            before = self._held_plan(held)
            at = self._trusted_now()
            if held is not None and before is not None and mirror.unchanged(held, at):
                return None
            path = plan_target_path(self._site)
            fresh = mirror.refresh(held, at, path)
            if fresh.target is None:
                details = f"signed, but it holds no {path}: it is another site's"
                raise TrustRefused(Attack.WRONG_SITE, Targets.type, mirror.prefix, details)
            plan = self._checked_plan(fresh.target, before)
            mirror.keep(msgspec.structs.replace(fresh.kept, plan=fresh.target))
            return None if held is not None and held.plan == fresh.target else plan

    def release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """For installing: the release that a plan names by ``digest``, vouched for by fresh metadata.

        Raises:
            Unavailable: the repository cannot be reached.
            IntegrityError: no releaser signed such a release, or one with another digest.
        """
        with self._lock:
            mirror = self._releases
            held = mirror.sound()
            at = self._trusted_now()
            if held is None or not self._vouches(mirror, held, at, model, version, digest):
                held = mirror.refresh(held, at).kept
                mirror.keep(held)
            target = self._entry(mirror, mirror.chain(held, at), model, version, digest)
            data = read_if_exists(self._manifest_file(digest))
            if data is None or hashlib.sha256(data).hexdigest() != digest.removeprefix("sha256:"):
                data = self._download_manifest(target, digest)
            return self._decoded(data, model, version)

    def refresh_releases(self) -> bool:
        """Look for newer metadata of the releases (once a day is plenty); whether there was any.

        Raises:
            Unavailable, IntegrityError: as :meth:`release`.
        """
        with self._lock:
            mirror = self._releases
            held = mirror.sound()
            fresh = mirror.refresh(held, self._trusted_now()).kept
            mirror.keep(fresh)
            return held is None or held.timestamp != fresh.timestamp

    # --- serving: our own copies, no network, expiry ignored ---

    def verified_plan(self) -> SitePlan | None:
        """The plan kept last, verified again; None before the first.

        Raises:
            IntegrityError: the copy on disk was changed.
        """
        with self._lock:
            kept = self._plans.kept()
            if kept is None:
                return None
            chain = self._plans.chain(kept)
            verify_target(chain.targets, plan_target_path(self._site), kept.plan or b"", self._plans.prefix)
            return self._checked_plan(kept.plan or b"", None)

    def verified_release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """A release that was verified before, verified again.

        Raises:
            NotFound: it never was.
            IntegrityError: the copies on disk were changed, or vouch for another digest.
        """
        with self._lock:
            mirror = self._releases
            kept = mirror.kept()
            data = read_if_exists(self._manifest_file(digest))
            if kept is None or data is None:
                raise NotFound(f"release {model}@{version} ({digest}) was never fetched by this node")
            chain = mirror.chain(kept)
            self._entry(mirror, chain, model, version, digest)
            verify_target(chain.targets, target_path(model, version), data, f"{mirror.prefix} (kept copy)")
            return self._decoded(data, model, version)

    # --- parts ---

    def _trusted_now(self) -> datetime:
        kept = (mirror.sound() for mirror in (self._plans, self._releases))
        return max([self._now(), *(copy.verified_at for copy in kept if copy is not None)])

    def _held_plan(self, held: Kept | None) -> SitePlan | None:
        """The plan of our copy, to compare a newer one with; None where its bytes were changed on our disk.

        Then the versions of the metadata alone keep older plans out: a damaged copy must keep no good plan out.
        """
        if held is None or held.plan is None:
            return None
        try:
            verify_target(self._plans.chain(held).targets, plan_target_path(self._site), held.plan, self._plans.prefix)
            return decode_plan(held.plan)
        except (IntegrityError, *UNREADABLE):
            return None

    def _checked_plan(self, data: bytes, before: SitePlan | None) -> SitePlan:
        try:
            plan = decode_plan(data)
        except UNREADABLE as error:
            details = f"signed, but not a plan that we understand: {error}"
            raise TrustRefused(Attack.ARBITRARY, PLAN, self._plans.prefix, details) from error
        if plan.site.name != self._site or plan.fleet != self._fleet:
            expected, got = f"{self._site} of fleet {self._fleet}", f"{plan.site.name} of {plan.fleet}"
            details = f"expected a plan for {expected}, got one for {got}"
            raise TrustRefused(Attack.WRONG_SITE, PLAN, self._plans.prefix, details)
        if before is not None and (
            plan.version < before.version or (plan.version == before.version and plan != before)
        ):
            details = f"expected a plan newer than version {before.version}, got version {plan.version}"
            raise TrustRefused(Attack.ROLLBACK, PLAN, self._plans.prefix, details)
        return plan

    def _vouches(self, mirror: Mirror, held: Kept, at: datetime, model: str, version: str, digest: str) -> bool:
        """Whether the metadata that we hold is fresh, and names the release already: no need to ask."""
        try:
            self._entry(mirror, mirror.chain(held, at), model, version, digest)
        except IntegrityError:
            return False
        return True

    @staticmethod
    def _entry(mirror: Mirror, chain: Chain, model: str, version: str, digest: str) -> TargetFile:
        target = chain.targets.targets.get(target_path(model, version))
        if target is None:
            details = f"no releaser signed {model}@{version}"
            raise TrustRefused(Attack.UNSIGNED, Targets.type, mirror.prefix, details)
        found = f"sha256:{target_sha256(target, mirror.prefix)}"
        if found != digest:
            details = f"the plan names {model}@{version} with digest {digest}, the releasers signed {found}"
            raise TrustRefused(Attack.WRONG_RELEASE, Targets.type, mirror.prefix, details)
        return target

    def _manifest_file(self, digest: str) -> Path:
        return self._manifests / f"{digest.removeprefix('sha256:')}.json"

    def _download_manifest(self, target: TargetFile, digest: str) -> bytes:
        path = f"releases/targets/{stored_target(target.path, digest.removeprefix('sha256:'))}"
        with self._fetch.get(path, timeout_s=TIMEOUT_S) as response:
            if response.status == 404:
                raise Unavailable(f"the manifest of {target.path} is signed for, and not there yet")
            if response.status != 200:
                raise refusal(response, path)
            data = limited(response, min(target.length, MANIFEST_LIMIT_BYTES), path)
        try:
            target.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise refused(error, path) from error
        try:
            write_whole(self._manifest_file(digest), data)
        except OSError as error:
            raise Unavailable(f"cannot keep the manifest of {target.path}: {error.strerror}") from error
        return data

    @staticmethod
    def _decoded(data: bytes, model: str, version: str) -> ReleaseManifest:
        try:
            manifest = decode_release(data)
        except UNREADABLE as error:
            details = f"signed, but not a manifest that we understand: {error}"
            raise TrustRefused(Attack.ARBITRARY, MANIFEST, target_path(model, version), details) from error
        if (manifest.model, manifest.version) != (model, version):
            details = f"expected that of {model}@{version}, the signed one is {manifest.model}@{manifest.version}"
            raise TrustRefused(Attack.WRONG_RELEASE, MANIFEST, target_path(model, version), details)
        return manifest
