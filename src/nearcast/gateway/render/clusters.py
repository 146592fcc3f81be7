"""Clusters: one per place, shared by all models, and one composite per (model, order of places). ADR 002.

Every number here is there because leaving it at Envoy's default failed a probe; the reason stands beside it.
"""

from typing import Final

from nearcast.gateway.render.document import CLUSTER_TYPE, TYPE_URL, Document, Json, Message
from nearcast.gateway.render.identity import authority_reference, identity_reference
from nearcast.gateway.render.inputs import GatewayInputs, LocalModel
from nearcast.gateway.render.places import (
    Decision,
    Routed,
    engine_cluster,
    place_cluster,
    site_cluster,
    turn_cluster,
    turns,
)
from nearcast.gateway.render.tracing import collector_clusters
from nearcast.resources import wire
from nearcast.resources.plan import Peer, node_id, site_id_prefix

STATUS_CLUSTER: Final = "engine.status"
VIA: Final = "x-nearcast-via"
"""Put by peer listeners on every answer: what is wrong with it is not the peer's gateway."""
REASON_LOCAL_FIRST: Final = "if_local_first"
REASON_LOCAL_LATER: Final = "if_local_later"
REASON_NOT_HERE: Final = "if_not_here"

WINDOW_BYTES: Final = 16 * 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 64 * 1024 * 1024

_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_ENGINE_PROTOCOL: Final[Message] = {"http_protocol_options": {"enable_trailers": True}}
"""HTTP/1.1. A gRPC call ends in trailers, which Envoy would drop by default (ADR 007)."""


def clusters(inputs: GatewayInputs, decided: dict[str, Decision]) -> Document:
    """All clusters of ``inputs``, in a stable order: places first, since composites name them."""
    engines = [_engine(inputs, item) for item in sorted(inputs.local, key=lambda item: (item.model, item.version))]
    peers = [_site(inputs, place, peer) for place, peer in inputs.others().items() if peer.addresses]
    composites = {
        turn_cluster(inputs, model, turn): _composite(inputs, model, turn)
        for model, decision in decided.items()
        if isinstance(decision, Routed)
        for turn in turns(inputs, decision)
        if len(set(turn)) > 1
    }
    ordered = [composites[name] for name in sorted(composites)]
    return Document(CLUSTER_TYPE, (*engines, *peers, _status(inputs), *collector_clusters(inputs), *ordered))


def http2_options() -> Message:
    """HTTP/2 between gateways: pings find a dead link or a stopped gateway within six seconds, so that its requests are
    reset and go elsewhere. Any frame that comes counts as an answer, so a long body does not look like silence."""
    return {**http2_windows(), "connection_keepalive": {"interval": "3s", "timeout": "3s"}}


def http2_windows(stream_bytes: int = WINDOW_BYTES) -> Message:
    """Windows for large bodies over long round trips."""
    return {
        "initial_stream_window_size": stream_bytes,
        "initial_connection_window_size": max(CONNECTION_WINDOW_BYTES, stream_bytes),
    }


def _engine(inputs: GatewayInputs, local: LocalModel) -> Message:
    endpoint = _endpoint(
        {"pipe": {"path": local.socket_path}},
        site=inputs.plan.site.name,
        reasons={REASON_LOCAL_FIRST: "local", REASON_LOCAL_LATER: "local", REASON_NOT_HERE: "local"},
        checked_at=_status_pipe(inputs),
    )
    cluster = _place(engine_cluster(local.model, local.version), "1s", [endpoint], _ENGINE_PROTOCOL)
    return {**cluster, **_liveness()}


def _liveness() -> Message:
    """An engine that is stopped or hung still accepts: it is asked twice a second, and after two silent seconds its
    requests are reset, which sends them to their next place. ADR 006.

    The process is asked, not the model's socket, so that a version that drains is not mistaken for a dead one. Any
    answer is one: an engine that answers badly is the business of outlier detection.
    """
    return {
        "health_checks": [
            {
                "interval": "0.5s",
                "timeout": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "unhealthy_interval": "0.25s",
                "no_traffic_interval": "2s",
                "no_traffic_healthy_interval": "2s",
                "http_health_check": {
                    "path": wire.LIVE_PATH,
                    "host": "engine",
                    "expected_statuses": [{"start": 100, "end": 600}],
                },
            }
        ],
        "close_connections_on_host_health_failure": True,
    }


def _site(inputs: GatewayInputs, place: str, peer: Peer) -> Message:
    reasons = {REASON_LOCAL_FIRST: "spill", REASON_LOCAL_LATER: "balance", REASON_NOT_HERE: "nearest"}
    if place != peer.site.name:
        reasons = dict.fromkeys(reasons, "sibling")
    endpoints = []
    for address in peer.addresses:
        host, _, port = address.rpartition(":")
        endpoint = _endpoint(
            {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}},
            site=peer.site.name,
            reasons=reasons,
            hostname=peer.server_name,  # the SNI
        )
        endpoints.append(endpoint)
    # Connecting takes two round trips (TCP, TLS), so the time-out has room for a site on the other side of the earth.
    cluster = _place(site_cluster(place), "3s", endpoints, {"http2_protocol_options": http2_options()})
    return {**cluster, "transport_socket": _peer_tls(inputs, peer)}


def _status(inputs: GatewayInputs) -> Message:
    """The engine process's load report. Not a place: no ejection, so that the report is there when trouble is."""
    return {
        "name": STATUS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {"@type": f"{TYPE_URL}{_HTTP_OPTIONS}", "explicit_http_config": _ENGINE_PROTOCOL}
        },
        "load_assignment": _assignment(
            STATUS_CLUSTER,
            [{"endpoint": {"address": _status_pipe(inputs)}}],
        ),
    }


def _status_pipe(inputs: GatewayInputs) -> Message:
    return {"pipe": {"path": f"{inputs.run_dir}/{wire.ENGINE_STATUS}"}}


def _composite(inputs: GatewayInputs, model: str, turn: tuple[str, ...]) -> Message:
    """Places in the order in which attempts go to them. It has no hosts of its own, but the router asks *its* breakers
    and error matcher, so they are those of the places."""
    return {
        "name": turn_cluster(inputs, model, turn),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": f"{TYPE_URL}envoy.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": [{"name": place_cluster(inputs, model, place)} for place in turn],
            },
        },
        "typed_extension_protocol_options": _protocol(
            {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
        ),
        "circuit_breakers": _breakers(),
    }


def _place(name: str, connect_timeout: str, endpoints: list[Message], protocol: Message) -> Message:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": connect_timeout,
        "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": _protocol({"explicit_http_config": protocol}),
        "circuit_breakers": _breakers(),
        "ignore_health_on_host_removal": True,
        # By default a place whose hosts are all ejected gets traffic again ("panic"): never to the dead ones.
        # And an ejection reaches the workers up to a second late ("merge window") when another change went before it.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "interval": "0.5s",
            "base_ejection_time": "2s",
            # An engine is back in seconds; Envoy's default lets ejections grow to five minutes.
            "max_ejection_time": "5s",
            "max_ejection_percent": 100,
            "always_eject_one_host": True,
            # The process is well; what ejected it were its answers.
            "successful_active_health_check_uneject_host": False,
        },
        "load_assignment": _assignment(name, endpoints),
    }


def _assignment(name: str, endpoints: list[Message]) -> Message:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [*endpoints]}]}


def _endpoint(
    address: Message,
    *,
    site: str,
    reasons: dict[str, str],
    hostname: str | None = None,
    checked_at: Message | None = None,
) -> Message:
    """One host. Its metadata become the answer headers site and reason, right after retries and inside composites."""
    endpoint: Message = {"address": address}
    if hostname is not None:
        endpoint["hostname"] = hostname
    if checked_at is not None:
        endpoint["health_check_config"] = {"address": checked_at}
    return {"endpoint": endpoint, "metadata": {"filter_metadata": {"nearcast": {"site": site, **reasons}}}}


def _protocol(options: Message) -> Message:
    return {
        _HTTP_OPTIONS: {
            "@type": f"{TYPE_URL}{_HTTP_OPTIONS}",
            **options,
            # A burst opens connections that both ends would hold for an hour by default. A peer is asked for its load
            # more often than this, so its connection stays.
            "common_http_protocol_options": {"idle_timeout": "30s"},
            "outlier_detection": {"error_matcher": _broken()},
        }
    }


def _broken() -> Message:
    """What counts towards ejection: a 5xx that is neither "full" nor told by a peer's gateway about its own engine.

    A full engine is not a broken one; and one broken engine at a peer must not cost us the peer's other models (the
    peer ejects that engine itself).
    """
    headers: list[Json] = [
        {"name": ":status", "string_match": {"prefix": "5"}},  # answers that are well are done with here
        {"name": ":status", "string_match": {"safe_regex": {"regex": "50[0234]"}}},
        {"name": wire.FULL, "present_match": True, "invert_match": True},
        {"name": VIA, "present_match": True, "invert_match": True},
    ]
    return {"http_response_headers_match": {"headers": headers}}


def _breakers() -> Message:
    """High safety bounds, not capacities: an overflow is never retried.

    Retries, too: by default three at once, and a budget in percent would be one of the requests in flight, of which a
    composite counts none. A request makes no more attempts than it has places, so there is no storm to be held back.
    """
    return {
        "thresholds": [
            {
                "max_connections": 4096,
                "max_pending_requests": 4096,
                "max_requests": 4096,
                "max_retries": 4096,
            }
        ]
    }


def _peer_tls(inputs: GatewayInputs, peer: Peer) -> Message:
    """Mutual TLS to a node of ``peer`` that the plan names: whoever holds another key of the fleet, or that of a
    revoked node, cannot stand in for it."""
    fleet, site = inputs.plan.fleet, peer.site.name
    known: list[Message] = [{"exact": node_id(fleet, site, node)} for node in peer.nodes]
    honoured = known or [{"prefix": site_id_prefix(fleet, site)}]
    names: list[Json] = [{"san_type": "URI", "matcher": matcher} for matcher in honoured]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE_URL}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            # Envoy's own check of the SNI (auto_sni_san_validation) would put itself in the place of these names.
            "auto_host_sni": True,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                # The maximum for upstreams defaults to 1.2: a minimum of 1.3 alone means no connection.
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificate_sds_secret_configs": [identity_reference(inputs.envoy_dir)],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": names},
                    "validation_context_sds_secret_config": authority_reference(inputs.envoy_dir),
                },
            },
        },
    }
