"""SKELETON of the port; being filled in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A context manager: leaving it closes the connection.

    Attributes:
        status: 200 (whole), 206 (from ``start``), 304 (etag still matches), or 4xx.
        etag: of the object, or None.
        start: offset of the first byte of ``body``; 0 unless the status is 206.
        size_bytes: of the whole object, where the server says so.
        body: the bytes; iterating raises Unavailable when they stop coming.
    """

    status: int
    body: Iterator[bytes]
    etag: str | None = None
    start: int = 0
    size_bytes: int | None = None
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> "Response":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Fetch(Protocol):
    """Gets objects of a repository by path. Blocking; safe for several threads."""

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """Ask for ``path`` from byte ``start`` on, unless it still has ``etag``. Raises Unavailable."""


class HttpFetch:
    """Over HTTP(S): ``HttpFetch("https://control:8443/repository/", ca_file=…, credential="…")``."""

    def __init__(
        self, base_url: str, *, ca_file: Path | None = None, credential: str | None = None, attempts: int = 3
    ) -> None:
        raise NotImplementedError

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """See :class:`Fetch`."""
        raise NotImplementedError

    def close(self) -> None:
        """Close connections."""
        raise NotImplementedError


class FolderFetch:
    """Out of a local folder: a mirror on a disk that was carried to the site; also for tests."""

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def get(self, path: str, *, etag: str | None = None, start: int = 0, timeout_s: float = 30.0) -> Response:
        """See :class:`Fetch`."""
        raise NotImplementedError
