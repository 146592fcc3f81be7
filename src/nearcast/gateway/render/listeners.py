"""Listeners: public (clients), peer (other sites, mutual TLS), probe (the agent, a pipe). They hardly ever change.

What follows from the plan lies in routes: a listener that changes drains its connections, and requests that come in
that moment may be lost. Only the addresses, room for emulated round trips, and who is revoked are rendered into
listeners: a revoked node shall lose its connections.
"""

from typing import Final

from nearcast.gateway.render import answers
from nearcast.gateway.render.clusters import http2_options, http2_windows
from nearcast.gateway.render.document import LISTENER_TYPE, TYPE_URL, Document, Json, Message, routes_file
from nearcast.gateway.render.identity import authority_reference, identity_reference, public_reference
from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.gateway.render.lua import MODEL_OF_REQUEST
from nearcast.gateway.render.peer import delay_slots, nobody, revoked_at_the_door
from nearcast.gateway.render.public import model_headers_removed
from nearcast.gateway.render.telemetry import access_logs
from nearcast.gateway.render.tracing import tracing
from nearcast.resources import wire

_HCM: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_REQUEST_IDS: Final[Message] = {
    "@type": f"{TYPE_URL}envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    # An id that a caller chose stays as it is: by default Envoy writes its tracing decision into it.
    "pack_trace_reason": False,
    "use_request_id_for_trace_sampling": False,
}
_ALL_BUT_ATTEMPT: Final = "x-envoy-(?:[^a].*|a[^t].*|at[^t].*)"
"""Envoy's headers, less those that begin like ``x-envoy-attempt-count``; RE2 cannot say it otherwise."""
_NAMES: Final[Message] = {"headers_with_underscores_action": "DROP_HEADER"}
"""Some servers read ``x_nearcast_model`` as ``x-nearcast-model``; so no such header goes on."""
_FILTERS: Final = f"{TYPE_URL}envoy.extensions.filters.http"


def listeners(inputs: GatewayInputs) -> Document:
    """The three listeners."""
    return Document(LISTENER_TYPE, (_public(inputs), _peer(inputs), _probe(inputs)))


def _public(inputs: GatewayInputs) -> Message:
    filters: list[Json] = [
        _filter("body_size_limit", "BodySizeLimit", {"max_request_bytes": inputs.max_body_bytes}),
        _filter("lua", "Lua", {"default_source_code": {"inline_string": MODEL_OF_REQUEST}}),
        _no_trailers(),
        _router(),
    ]
    manager: Message = {
        **_manager(inputs, "public", filters),
        **_told(inputs, "public"),
        "local_reply_config": {"mappers": answers.mappers(answers.PUBLIC_ERRORS, inputs.max_body_bytes)},
        # Health checks of load balancers and proxies in front of us may still speak HTTP/1.0.
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "nearcast"},
        # A message that must be there as a whole, to find its model, fits a stream's window or is never complete.
        "http2_protocol_options": {"max_concurrent_streams": 100, **http2_windows(inputs.max_body_bytes)},
        "common_http_protocol_options": {"idle_timeout": "300s", **_NAMES},
    }
    chain: Message = {"filters": [_network_filter(manager)]}
    if inputs.listen.public_tls:
        chain["transport_socket"] = _public_tls(inputs)
    return {
        **_listener("public", inputs.listen.public_host, inputs.listen.public_port, inputs.max_body_bytes),
        "filter_chains": [chain],
    }


def _peer(inputs: GatewayInputs) -> Message:
    door: list[Json] = [*revoked_at_the_door(inputs.plan)]
    filters: list[Json] = [
        _filter("body_size_limit", "BodySizeLimit", {"max_request_bytes": inputs.max_body_bytes}),
        *delay_slots(inputs.plan),
        nobody(),
        _router(),
    ]
    manager: Message = {
        **_manager(inputs, "peer", filters),
        **_told(inputs, "peer"),
        # Envoy itself writes who calls into x-forwarded-client-cert, and removes what the caller wrote there.
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "local_reply_config": {"mappers": answers.mappers(answers.PEER_ERRORS, inputs.max_body_bytes)},
        "http2_protocol_options": {"max_concurrent_streams": 1024, **http2_options()},
        # Without an end a connection outlives the identity that it was made with.
        "common_http_protocol_options": {"idle_timeout": "300s", "max_connection_duration": "3600s", **_NAMES},
    }
    return {
        **_listener("peer", inputs.listen.peer_host, inputs.listen.peer_port, inputs.max_body_bytes),
        "filter_chains": [{"transport_socket": _peer_tls(inputs), "filters": [*door, _network_filter(manager)]}],
    }


def _probe(inputs: GatewayInputs) -> Message:
    manager = _manager(inputs, "probe", [_router()])
    return {
        "name": "probe",
        "address": {"pipe": {"path": f"{inputs.run_dir}/{wire.ENVOY_PROBE}", "mode": 0o600}},
        # The agent's questions cost nothing. Refused, they would say that no peer can be reached.
        "bypass_overload_manager": True,
        "filter_chains": [{"filters": [_network_filter(manager)]}],
    }


def _listener(name: str, host: str, port: int, buffer_bytes: int) -> Message:
    return {
        "name": name,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "per_connection_buffer_limit_bytes": buffer_bytes,
        # With SO_REUSEPORT a second Envoy on the same port would silently take half of the requests.
        "enable_reuse_port": False,
    }


def _manager(inputs: GatewayInputs, name: str, filters: list[Json]) -> Message:
    """An HTTP connection manager with what all listeners share."""
    path: Message = {"path": f"{inputs.envoy_dir}/{routes_file(name)}"}
    removed: Message = {
        "@type": f"{TYPE_URL}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": _mutations(name),
    }
    return {
        "stat_prefix": name,
        "rds": {
            "route_config_name": name,
            "config_source": {"resource_api_version": "V3", "path_config_source": path},
        },
        "http_filters": filters,
        "early_header_mutation_extensions": [
            {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": removed}
        ],
        "use_remote_address": True,
        "generate_request_id": name == "public",
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": name == "public",
        "request_id_extension": {"typed_config": _REQUEST_IDS},
        "server_name": "nearcast",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "10s",
    }


def _told(inputs: GatewayInputs, name: str) -> Message:
    """What is told of the requests of a listener."""
    return {"access_log": access_logs(inputs, name), **tracing(inputs)}


def _mutations(name: str) -> list[Json]:
    """Clients may set neither our headers nor Envoy's; peers may say the model, and which attempt it is."""
    if name == "public":
        return model_headers_removed()
    return [{"remove_on_match": {"key_matcher": {"safe_regex": {"regex": _ALL_BUT_ATTEMPT}}}}]


def _public_tls(inputs: GatewayInputs) -> Message:
    """TLS as clients of today speak it. The certificate is a secret of its own: a new one changes no listener."""
    context: Message = {
        "@type": f"{TYPE_URL}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [public_reference(inputs.envoy_dir)],
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _peer_tls(inputs: GatewayInputs) -> Message:
    validation: Message = {
        "default_validation_context": {
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": f"spiffe://{inputs.plan.fleet}/site/"}}
            ]
        },
        "validation_context_sds_secret_config": authority_reference(inputs.envoy_dir),
    }
    context: Message = {
        "@type": f"{TYPE_URL}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [identity_reference(inputs.envoy_dir)],
            "combined_validation_context": validation,
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _filter(name: str, message: str, config: Message) -> Message:
    typed: Message = {"@type": f"{_FILTERS}.{name}.v3.{message}", **config}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}


def _no_trailers() -> Message:
    """No request needs trailers, gRPC's neither, and what was never looked at goes to no engine."""
    everything: Message = {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": ".*"}}}}
    return _filter("header_mutation", "HeaderMutation", {"mutations": {"request_trailers_mutations": [everything]}})


def _router() -> Message:
    # Otherwise every answer tells what the upstream took, and how it was found. And what Envoy counts by cluster and
    # status code nobody asks for (`render.telemetry` counts), at 9,000 instructions per request.
    return _filter("router", "Router", {"suppress_envoy_headers": True, "dynamic_stats": False})


def _network_filter(manager: Message) -> Message:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {"@type": f"{TYPE_URL}{_HCM}", **manager},
    }
