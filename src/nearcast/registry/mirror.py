"""One TUF repository as a site sees it: a pinned root, a verified copy of the metadata, and how to refresh that.

Each refresh runs python-tuf's client on a scratch copy; what it returns has been verified down to the target that was
asked for, and nothing is kept until the caller has looked at that, too. Keeping replaces one file, with fsync: a
refresh that dies, or that an attacker begins and cannot finish, changes nothing, and a power cut leaves the old copy
or the new one. (python-tuf's own files are renamed, never fsynced.)

Not decided here: what the targets mean, and when to ask (:mod:`client`).
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
from tuf.api.metadata import TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import IntegrityError, NearcastError, Unavailable
from nearcast.registry.fetch import Fetch, Response, refusal
from nearcast.registry.refused import Attack, TrustRefused, role_of
from nearcast.registry.trust import Chain, first_root, refused, stored_target, target_sha256, verify_chain
from nearcast.resources.unreadable import UNREADABLE

log = logging.getLogger(__name__)

TIMESTAMP_LIMIT_BYTES = 16_384
TIMEOUT_S = 20.0


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Our own copy of what was verified: one file, so that it is whole or absent."""

    roots: tuple[bytes, ...]
    timestamp: bytes
    snapshot: bytes
    targets: bytes
    verified_at: datetime
    etag: str | None = None
    plan: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a refresh found: metadata to keep, and the target that was asked for, where there is one."""

    kept: Kept
    target: bytes | None


class _FetchFailed(DownloadError):
    """Carries our own error through python-tuf."""

    def __init__(self, error: NearcastError) -> None:
        super().__init__(error.message)
        self.error = error


class _Fetcher(FetcherInterface):
    """python-tuf's view of our port. Remembers the etag of the last timestamp, and which file was asked for last.

    python-tuf judges each file before it asks for the next, so the last one is the one that a refusal is about.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch_port = fetch
        self.etag: str | None = None
        self.asked = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url
        try:
            response = self._fetch_port.get(url, timeout_s=TIMEOUT_S)
        except NearcastError as error:
            raise _FetchFailed(error) from error
        if response.status != 200:
            response.close()
            if response.status == 404 or (response.status == 403 and url.endswith(".root.json")):
                raise DownloadHTTPError(f"no {url}", response.status)  # buckets say 403 for what is not there
            raise _FetchFailed(refusal(response, url))
        if url.endswith("/timestamp.json"):
            self.etag = response.etag
        return self._body(response)

    @staticmethod
    def _body(response: Response) -> Iterator[bytes]:
        with response:
            try:
                yield from response.body
            except NearcastError as error:
                raise _FetchFailed(error) from error


class Mirror:
    """One repository as a site sees it: its pinned root, our verified copy of it, and how to refresh that."""

    def __init__(self, prefix: str, file: Path, root: bytes, sha256: str, fetch: Fetch) -> None:
        first_root(root, prefix, sha256)
        self.prefix = prefix
        self._file = file
        self._root = root
        self._sha256 = sha256
        self._fetch = fetch

    def kept(self) -> Kept | None:
        """Our copy, unverified, or None. Raises :class:`IntegrityError` when it is not even readable."""
        data = read_if_exists(self._file)
        if data is None:
            return None
        try:
            return _decoder.decode(data)
        except UNREADABLE as error:
            details = f"the copy that was verified is not readable any more ({error})"
            raise TrustRefused(Attack.ON_DISK, Timestamp.type, str(self._file), details) from error

    def chain(self, kept: Kept, at: datetime | None = None) -> Chain:
        """The metadata of our copy, verified from the pinned root on."""
        name = f"{self.prefix} (kept copy)" if at is None else self.prefix
        return verify_chain(
            kept.roots, kept.timestamp, kept.snapshot, kept.targets, name=name, sha256=self._sha256, at=at
        )

    def keep(self, kept: Kept) -> None:
        """Replace our copy, durably. Raises :class:`Unavailable` when the disk is full."""
        try:
            write_whole(self._file, _encoder.encode(kept), mode=0o600)
        except OSError as error:
            raise Unavailable(f"cannot write {self._file}: {error.strerror}", retry_after_s=30.0) from error

    def sound(self) -> Kept | None:
        """Our copy, verified; None where there is none, or where it was damaged (we then begin at the pinned root)."""
        try:
            kept = self.kept()
            if kept is not None:
                self.chain(kept)
        except IntegrityError as error:
            log.warning("begin again at the pinned root: %s", error.message)
            return None
        return kept

    def unchanged(self, kept: Kept, at: datetime) -> bool:
        """Whether the repository still has the timestamp that we have: one conditional GET.

        Raises:
            IntegrityError: it has, and it is expired: somebody holds newer metadata back, or nobody signs any more.
        """
        path = f"{self.prefix}/metadata/timestamp.json"
        with self._fetch.get(path, etag=kept.etag, timeout_s=TIMEOUT_S) as response:
            if response.status == 200:
                same = limited(response, TIMESTAMP_LIMIT_BYTES, path) == kept.timestamp
            elif response.status == 304:
                same = True
            elif response.status == 404:
                raise Unavailable(f"{self.prefix}: nothing is published any more", retry_after_s=30.0)
            else:
                raise refusal(response, path)
        if same:
            self.chain(kept, at)
        return same

    def refresh(self, kept: Kept | None, at: datetime, target: str | None = None) -> Fresh:
        """Newer metadata and, of it, the bytes of ``target``: all verified, nothing kept yet."""
        fetcher = _Fetcher(self._fetch)
        try:
            with tempfile.TemporaryDirectory(prefix=".refresh-", dir=self._file.parent) as scratch:
                return self._refresh_in(Path(scratch), fetcher, kept, at, target)
        except _FetchFailed as error:
            raise error.error from error
        except (RepositoryError, DownloadLengthMismatchError) as error:
            raise refused(error, fetcher.asked or self.prefix) from error
        except DownloadHTTPError as error:
            raise Unavailable(f"{self.prefix}: nothing published yet, or not all of it ({error})") from error
        except DownloadError as error:
            raise Unavailable(f"{self.prefix}: {error}") from error
        except OSError as error:
            raise Unavailable(f"cannot write below {self._file.parent}: {error.strerror}") from error

    def _refresh_in(
        self, scratch: Path, fetcher: _Fetcher, kept: Kept | None, at: datetime, target: str | None
    ) -> Fresh:
        history = scratch / "root_history"
        history.mkdir()
        if kept is not None:
            for version, data in enumerate(kept.roots, start=1):
                (history / f"{version}.root.json").write_bytes(data)
            for role, data in (("timestamp", kept.timestamp), ("snapshot", kept.snapshot), ("targets", kept.targets)):
                (scratch / f"{role}.json").write_bytes(data)
        updater = Updater(
            str(scratch),
            f"{self.prefix}/metadata/",
            fetcher=fetcher,
            config=UpdaterConfig(app_user_agent="nearcast"),
            bootstrap=self._root,
        )
        set_reference_time(updater, at)
        updater.refresh()
        info = updater.get_targetinfo(target) if target is not None else None
        count = len(list(history.iterdir()))
        roots = tuple((history / f"{version}.root.json").read_bytes() for version in range(1, count + 1))
        fresh = Kept(
            roots=roots,
            timestamp=(scratch / "timestamp.json").read_bytes(),
            snapshot=(scratch / "snapshot.json").read_bytes(),
            targets=(scratch / "targets.json").read_bytes(),
            verified_at=at,
            etag=fetcher.etag,
        )
        self.chain(fresh, at)
        return Fresh(fresh, None if info is None else self._target(info, fetcher, kept))

    def _target(self, info: TargetFile, fetcher: _Fetcher, kept: Kept | None) -> bytes:
        digits = target_sha256(info, self.prefix)
        if kept is not None and kept.plan is not None and hashlib.sha256(kept.plan).hexdigest() == digits:
            return kept.plan
        data: bytes = fetcher.download_bytes(f"{self.prefix}/targets/{stored_target(info.path, digits)}", info.length)
        info.verify_length_and_hashes(data)
        return data


def set_reference_time(updater: Updater, at: datetime) -> None:
    """Make ``updater`` judge expiry at ``at``. There is no public way (tuf is pinned; a contract test watches)."""
    updater._trusted_set.reference_time = at


def limited(response: Response, limit_bytes: int, path: str) -> bytes:
    """The whole body. Raises :class:`IntegrityError` when it is longer than ``limit_bytes``."""
    data = bytearray()
    for chunk in response.body:
        data += chunk
        if len(data) > limit_bytes:
            raise TrustRefused(Attack.ENDLESS, role_of(path), path, f"expected at most {limit_bytes} bytes")
    return bytes(data)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Kept)
