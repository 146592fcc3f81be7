"""The renderer's one function, and the static part of the configuration."""

from dataclasses import replace
from typing import Final

from msgspec import structs

from nearcast.gateway.render.clusters import clusters
from nearcast.gateway.render.document import CLUSTERS_FILE, LISTENERS_FILE, TYPE_URL, GatewayFiles, Json, Message
from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.gateway.render.listeners import listeners
from nearcast.gateway.render.peer import peer_routes, probe_routes
from nearcast.gateway.render.places import decisions
from nearcast.gateway.render.public import public_routes
from nearcast.gateway.render.telemetry import stats_config
from nearcast.resources import wire
from nearcast.resources.names import is_address

ADMIN_MODE: Final = 0o600
MAX_CONNECTIONS: Final = 16_384
"""Connections of clients and peers together; more are closed at once, instead of taking the node's files away."""
HEAP_ACTIONS: Final = {
    "shrink_heap": 0.8,
    "disable_http_keepalive": 0.9,
    "stop_accepting_requests": 0.95,
    "reject_incoming_connections": 0.98,
}
"""What Envoy does once so much of its heap is in use. New connections are closed, not left in the listen queue
(``stop_accepting_connections``): there a client that got through to the kernel would wait for room without an end."""

_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_HEAP_TYPE: Final = f"{TYPE_URL}envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_LIMIT: Final = "envoy.resource_monitors.global_downstream_max_connections"
_LIMIT_TYPE: Final = (
    f"{TYPE_URL}envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)


def render(inputs: GatewayInputs) -> GatewayFiles:
    """The configuration of the gateway that ``inputs`` describes.

    Args:
        inputs: plan, local sockets, route table, addresses and directories.

    Returns:
        The files. Cost: O(models x shares + peers); equal inputs give equal bytes.
    """
    inputs = _reachable(inputs)
    decided = decisions(inputs)
    return GatewayFiles(
        bootstrap=_bootstrap(inputs),
        clusters=clusters(inputs, decided),
        listeners=listeners(inputs),
        routes={
            "public": public_routes(inputs, decided),
            "peer": peer_routes(inputs),
            "probe": probe_routes(inputs),
        },
    )


def _reachable(inputs: GatewayInputs) -> GatewayInputs:
    """``inputs`` without addresses that are none: Envoy would refuse all of the configuration for one of them."""
    peers = tuple(
        structs.replace(peer, addresses=tuple(address for address in peer.addresses if is_address(address)))
        for peer in inputs.plan.peers
    )
    return replace(inputs, plan=structs.replace(inputs.plan, peers=peers))


def _bootstrap(inputs: GatewayInputs) -> Message:
    """What an Envoy is started with: its name, its admin pipe (mode 0600), and where its files are."""
    return {
        "stats_config": stats_config(),
        "overload_manager": _overload_manager(inputs.heap_bytes),
        "node": {"id": inputs.node, "cluster": inputs.plan.site.name},
        "admin": {"address": {"pipe": {"path": f"{inputs.run_dir}/{wire.ENVOY_ADMIN}", "mode": ADMIN_MODE}}},
        "dynamic_resources": {
            "cds_config": _file(inputs, CLUSTERS_FILE),
            "lds_config": _file(inputs, LISTENERS_FILE),
        },
    }


def _overload_manager(heap_bytes: int) -> Message:
    """Bounds of the whole process: what it does as its heap fills, from harmless to harsh, and how many may connect.

    Requests that are refused so are told 503 like any other that finds no room, and may be tried elsewhere. So may
    those whose new connection is closed; nobody is kept waiting for memory.
    """
    limit: Message = {"@type": _LIMIT_TYPE, "max_active_downstream_connections": MAX_CONNECTIONS}
    heap: Message = {"@type": _HEAP_TYPE, "max_heap_size_bytes": heap_bytes}
    actions: list[Json] = [
        {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, "threshold": {"value": value}}]}
        for name, value in HEAP_ACTIONS.items()
    ]
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {"name": _LIMIT, "typed_config": limit},
            {"name": _HEAP, "typed_config": heap},
        ],
        "actions": actions,
    }


def _file(inputs: GatewayInputs, name: str) -> Message:
    return {"resource_api_version": "V3", "path_config_source": {"path": f"{inputs.envoy_dir}/{name}"}}
