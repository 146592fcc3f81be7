"""The releases that a plan may name, as they were last read out of the repository."""

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nearcast.registry.release_list import ReleaseEntry
from nearcast.registry.releases import ReleasesRepository

RELEASES: Final = "releases"


class ReleaseIndex:
    """The releases, read once, after every push, and when another replica says that it took one. Safe for threads."""

    def __init__(self, repository: ReleasesRepository) -> None:
        self._repository = repository
        self._guard = threading.Lock()
        self._entries: Mapping[tuple[str, str], ReleaseEntry] = MappingProxyType({})
        self.refresh()

    def refresh(self) -> bool:
        """Read them again. Returns: whether there is anything new."""
        entries = {(entry.model, entry.version): entry for entry in self._repository.list()}
        with self._guard:
            before, self._entries = self._entries, MappingProxyType(entries)
        return dict(before) != entries

    def entries(self) -> Mapping[tuple[str, str], ReleaseEntry]:
        """(model, version) -> release."""
        with self._guard:
            return self._entries

    def models(self) -> frozenset[str]:
        """Models that have a release."""
        return frozenset(model for model, _ in self.entries())
