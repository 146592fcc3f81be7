"""The control plane's metrics: what this process recorded, and how the fleet stands.

Several replicas each count their own; how the fleet stands is the same in all of them.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric as Family

from nearcast import __version__
from nearcast.control.conditions import findings
from nearcast.control.observer import View
from nearcast.control.recorder import COUNTED, Recorder
from nearcast.metrics import Metric, alone, family, process_families, process_metrics
from nearcast.resources.kinds import Deployment

INFO: Final = Metric("nearcast_control_info", "gauge", "Always 1; tells what runs", ("version",))
SITES: Final = Metric("nearcast_control_sites", "gauge", "Sites, by whether a node of theirs is connected", ("state",))
NODES: Final = Metric("nearcast_control_nodes", "gauge", "Nodes that joined, by what is heard of them", ("state",))
DEPLOYMENTS: Final = Metric("nearcast_control_deployments", "gauge", "Deployments, by whether they work", ("state",))
RELEASES: Final = Metric("nearcast_control_releases", "gauge", "Releases that may be deployed")

METRICS: Final = (INFO, *COUNTED, SITES, NODES, DEPLOYMENTS, RELEASES, *process_metrics("control"))


def families(recorder: Recorder, view: View) -> Iterator[Family]:
    """All of :data:`METRICS`: what was recorded, and how the fleet of ``view`` stands."""
    observed = view.observed
    yield family(INFO, [((__version__,), 1)])
    yield from map(recorder.family, COUNTED)
    sites = Counter("connected" if observed.connected(site.name) else "silent" for site in observed.state.sites)
    yield family(SITES, [((state,), sites[state]) for state in ("connected", "silent")])
    nodes = Counter(
        "connected" if node.connected else "stale" if node.seen_at else "never"
        for found in observed.nodes.values()
        for node in found
    )
    yield family(NODES, [((state,), nodes[state]) for state in ("connected", "stale", "never")])
    held = [each.resource for each in view.snapshot.held.values() if isinstance(each.resource, Deployment)]
    ready = Counter(
        "ready" if all(item.status == "True" for item in findings(each, observed) if item.type == "Ready") else "not"
        for each in held
    )
    yield family(DEPLOYMENTS, [(("ready",), ready["ready"]), (("not_ready",), ready["not"])])
    yield family(RELEASES, alone(len(observed.releases)))
    yield from process_families("control")
