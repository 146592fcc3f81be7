"""Getting objects of a repository to a site: a port, HTTP(S), and a folder.

Nothing that comes through here is believed because of where it came from: :mod:`client` and :mod:`artifacts` verify
it. Decided here: timeouts, a least rate (a server that trickles is as bad as one that is down), and bounded retries
with jitter until the first byte. After the first byte the caller resumes, where that makes sense.
"""

import contextlib
import hashlib
import random
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import quote, urlsplit

import httpx

from nearcast.errors import Forbidden, InvalidInput, NearcastError, NotFound, Unauthenticated, Unavailable
from nearcast.registry.objects import CHUNK_BYTES, plain_path

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
LEAST_RATE_BYTES_PER_S = 1024
GRACE_S = 20.0
"""An answer that is slower than the least rate is given up after this time, not before."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A context manager: leaving it ends the exchange.

    Attributes:
        status: 200 (whole), 206 (from ``start`` on), 304 (``etag`` still matches), 404, or another 4xx.
        body: the bytes; iterating raises :class:`Unavailable` when they stop coming.
        etag: of the object, or None.
        start: offset of the first byte of ``body``: 0 unless the status is 206.
        close: ends the exchange.
    """

    status: int
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))
    etag: str | None = None
    start: int = 0
    close: Callable[[], None] = _nothing

    def __enter__(self) -> "Response":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Fetch(Protocol):
    """Gets objects of a repository by path. Blocking; safe for several threads."""

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """Ask for ``path``, from byte ``start`` on, unless it still has ``etag``.

        The answer to a ``start`` may be the whole object (status 200): look at ``Response.start``.

        Raises:
            Unavailable: no answer within ``timeout_s``, or an answer that means "later".
        """


def refusal(response: Response, path: str) -> NearcastError:
    """What a 4xx answer means to whoever asked for ``path``."""
    if response.status == 401:
        return Unauthenticated(f"the repository does not know our credential (asked for {path})", hint="join again")
    if response.status == 403:
        return Forbidden(f"the repository refuses {path} to this node")
    if response.status in {404, 410}:
        return NotFound(f"the repository has no {path}")
    return Unavailable(f"the repository answered {response.status} for {path}", retry_after_s=5.0)


class HttpFetch:
    """Over HTTP(S) below a base URL.

    Args:
        base_url: such as ``https://control.example:8443/repository/``; several that hold the same have commas between
            them, and each further attempt asks the next one.
        ca_file: the only authority believed for the server's certificate; None for those of the system.
        credential: sent as a bearer token; over plain HTTP only to this machine itself.
        attempts: how often a request is made before :class:`Unavailable`.
        pause: waits that many seconds between attempts.

    Raises:
        InvalidInput: no such URL or CA file, or a credential that would travel in the clear.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: Path | None = None,
        credential: str | None = None,
        attempts: int = 3,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        bases = [each.strip() for each in base_url.split(",") if each.strip()] or [base_url]
        here = all(_is_here(each, credential) for each in bases)
        self._bases = [each.rstrip("/") + "/" for each in bases]
        self._at = 0
        self._attempts = max(attempts, len(bases))
        self._pause = pause
        self._client = httpx.Client(
            verify=_tls(ca_file),
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {credential}"} if credential else {}),
            follow_redirects=False,
            trust_env=not here,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=2),
        )

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """See :class:`Fetch`."""
        headers = {"if-none-match": etag} if etag else {}
        if start:
            headers["range"] = f"bytes={start}-"
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            at = self._at  # of whoever asks at the same time, one moves on
            request = self._client.build_request(
                "GET",
                self._bases[at] + quote(plain_path(path), safe="/"),
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            )
            try:
                answer = self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                if last:
                    raise Unavailable(
                        f"cannot reach {self._bases[at]}: {str(error) or type(error).__name__}", retry_after_s=5.0
                    ) from error
            else:
                if answer.status_code not in RETRIED:
                    return _response(answer, path)
                answer.close()
                if last:
                    raise Unavailable(f"{self._bases[at]} answered {answer.status_code} for {path}", retry_after_s=5.0)
            self._at = (at + 1) % len(self._bases)
            self._pause(random.uniform(0.1, 0.4) * 2**attempt)  # noqa: S311 — jitter, not a secret
        raise Unavailable(f"cannot reach {self._bases[self._at]}")

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


class FolderFetch:
    """Out of a local folder: a mirror that was carried to the site on a disk. Also for tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """See :class:`Fetch`. ``timeout_s`` has no meaning here."""
        try:
            file = (self._folder / plain_path(path)).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return Response(status=404)
        except OSError as error:
            raise Unavailable(f"cannot read {path!r} in {self._folder}: {error.strerror}") from error
        with contextlib.ExitStack() as opened:
            opened.enter_context(file)
            size_bytes = file.seek(0, 2)
            file.seek(0)
            found = f'"{hashlib.file_digest(file, "sha256").hexdigest()}"' if size_bytes < CHUNK_BYTES else None
            if etag is not None and etag == found:
                return Response(status=304, etag=found)
            start = start if start < size_bytes else 0
            file.seek(start)
            opened.pop_all()
            return Response(
                status=206 if start else 200,
                body=iter(lambda: file.read(CHUNK_BYTES), b""),
                etag=found,
                start=start,
                close=file.close,
            )


def _is_here(base_url: str, credential: str | None) -> bool:
    """Whether the URL leads to this machine. Raises :class:`InvalidInput` for none or a credential in clear."""
    parts = urlsplit(base_url)
    here = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(f"expected an http(s) URL, got {base_url!r}")
    if parts.scheme == "http" and credential is not None and not here:
        raise InvalidInput(f"a credential is never sent in the clear: expected https, got {base_url!r}")
    return here


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"expected certificates of an authority in {ca_file}: {error}") from error


def _response(answer: httpx.Response, path: str) -> Response:
    if answer.status_code not in {200, 206, 304} and answer.status_code < 400:
        answer.close()
        raise Unavailable(f"expected {path}, got status {answer.status_code}: a redirect or proxy page?")
    start = 0
    if answer.status_code == 206:
        known = _number(answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0])
        if known is None:
            answer.close()
            raise Unavailable(f"the answer for {path} is a part of a file, and does not say which")
        start = known
    return Response(
        status=answer.status_code,
        body=_timely(answer, path),
        etag=answer.headers.get("etag"),
        start=start,
        close=answer.close,
    )


def _timely(answer: httpx.Response, path: str) -> Iterator[bytes]:
    began, done = time.monotonic(), 0
    try:
        for chunk in answer.iter_raw():
            done += len(chunk)
            elapsed = time.monotonic() - began
            if elapsed > GRACE_S and done < elapsed * LEAST_RATE_BYTES_PER_S:
                raise Unavailable(f"{path} comes too slowly: {done} bytes in {elapsed:.0f} s", retry_after_s=5.0)
            yield chunk
    except httpx.HTTPError as error:
        raise Unavailable(f"{path} broke off after {done} bytes: {str(error) or type(error).__name__}") from error


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
