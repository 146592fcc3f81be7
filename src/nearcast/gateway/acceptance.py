"""What Envoy's statistics say about its files: taken up, refused, still warming. Pure; `apply` does the asking.

Envoy writes the ``version_info`` of the file that it took up last into a text statistic per subscription, and counts
what it refused. A refused file leaves the version of the one before.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from nearcast.errors import Bug, InvalidInput, NearcastError
from nearcast.gateway.render.document import CLUSTERS_FILE, LISTENERS_FILE, ROUTE_NAMES, Document, routes_file

PATTERN: Final = (
    r"^(cluster_manager\.cds|listener_manager\.lds|http\.[a-z]+\.rds\.[a-z]+)\."
    r"(version_text|update_rejected|update_failure)$"
    r"|^(cluster_manager\.warming_clusters|listener_manager\.total_listeners_warming)$"
)
"""The statistics that these functions read, as a regular expression."""

_STAT_OF: Final = {
    CLUSTERS_FILE: "cluster_manager.cds",
    LISTENERS_FILE: "listener_manager.lds",
    **{routes_file(name): f"http.{name}.rds.{name}" for name in ROUTE_NAMES},
}
_ADDRESS_TROUBLE: Final = ("cannot bind", "Address already in use", "Cannot assign requested address")


def unconfirmed(documents: Mapping[str, Document], stats: Mapping[str, str]) -> list[str]:
    """Names of those ``documents`` (by file name) that Envoy does not run."""
    return [
        name for name, document in documents.items() if stats.get(f"{_STAT_OF[name]}.version_text") != document.version
    ]


def refused(names: Sequence[str], stats: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Names of those files that Envoy refused since ``before``."""
    return [name for name in names if _refusals(name, stats) > _refusals(name, before)]


def is_warm(stats: Mapping[str, str]) -> bool:
    """Whether every cluster and listener is in use, none in preparation."""
    warming = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
    return all(stats.get(name) == "0" for name in warming)


def refusal(what: str, log: Sequence[str]) -> NearcastError:
    """The error for what Envoy wrote into its log when it refused: an address of ours that is not free, or a bug."""
    message = f"{what}: {' '.join(log[-3:]) or 'its log says nothing'}"
    if any(word in line for line in log for word in _ADDRESS_TROUBLE):
        return InvalidInput(message, hint="choose another address or port for this gateway, or free it")
    return Bug(message)


def _refusals(name: str, stats: Mapping[str, str]) -> int:
    counters = (f"{_STAT_OF[name]}.{word}" for word in ("update_rejected", "update_failure"))
    return sum(int(stats.get(counter, "0")) for counter in counters)
