"""SKELETON; being filled in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nearcast.resources.release import ReleaseManifest, Runtime


@dataclass(frozen=True, slots=True)
class Described:
    """A manifest, and where each of its files lies on this machine (manifest path -> file)."""

    manifest: ReleaseManifest
    files: dict[str, Path]


def describe(
    path: Path,
    *,
    model: str,
    version: str,
    now: datetime,
    runtime: Runtime = "onnx",
    task: str | None = None,
    entrypoint: str | None = None,
    max_tokens: int | None = None,
    labels: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Described:
    """Describe a model file or folder. Raises InvalidInput with a hint. Costs a read of all bytes and a model load."""
    raise NotImplementedError


def same_content(one: ReleaseManifest, other: ReleaseManifest) -> bool:
    """Whether two manifests differ in nothing but ``created_at``: pushing again is then a no-op."""
    raise NotImplementedError
