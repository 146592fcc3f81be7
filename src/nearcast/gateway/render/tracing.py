"""Traces of requests: Envoy's own OpenTelemetry tracer, with the W3C context of the caller taken up and handed on.

Decides who samples: a request that brings a ``traceparent`` is sampled as that says, another one by the ratio. A hop to
a peer carries the decision, so that a trace is whole or not there at all. Nothing is rendered without a collector, and
then nothing is paid. Spans of attempts are children of the request's span, and parents of what the next hop adds.
"""

from typing import Final

from nearcast.gateway.render.document import TYPE_URL, Json, Message
from nearcast.gateway.render.inputs import Collector, GatewayInputs

COLLECTOR_CLUSTER: Final = "otlp"
SERVICE: Final = "nearcast-gateway"

_OTEL: Final = "envoy.tracers.opentelemetry"
_SAMPLERS: Final = f"{TYPE_URL}envoy.extensions.tracers.opentelemetry.samplers.v3"
_DETECTORS: Final = f"{TYPE_URL}envoy.extensions.tracers.opentelemetry.resource_detectors.v3"
_MILLION: Final = 1_000_000


def tracing(inputs: GatewayInputs) -> Message:
    """What the connection managers of the public and the peer listener add; nothing without a collector."""
    collector = inputs.telemetry.collector
    if collector is None:
        return {}
    return {
        "tracing": {
            "random_sampling": {"value": 100.0},  # the sampler below decides
            "spawn_upstream_span": True,
            "custom_tags": [
                _tag("nearcast.site", inputs.plan.site.name),
                _tag_of_request("nearcast.model", "x-nearcast-model"),
            ],
            "provider": {"name": _OTEL, "typed_config": _provider(inputs, collector)},
        }
    }


def collector_clusters(inputs: GatewayInputs) -> list[Message]:
    """The way to the collector, where there is one."""
    collector = inputs.telemetry.collector
    if collector is None:
        return []
    address: Message = {"socket_address": {"address": collector.host, "port_value": collector.port}}
    cluster: Message = {
        "name": COLLECTOR_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": COLLECTOR_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if collector.tls:
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE_URL}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": collector.host,
                "common_tls_context": {"validation_context": {"system_root_certs": {}}},
            },
        }
    return [cluster]


def _provider(inputs: GatewayInputs, collector: Collector) -> Message:
    attributes: Message = {"service.instance.id": inputs.node, "nearcast.site": inputs.plan.site.name}
    return {
        "@type": f"{TYPE_URL}envoy.config.trace.v3.OpenTelemetryConfig",
        "http_service": {"http_uri": {"uri": collector.url, "cluster": COLLECTOR_CLUSTER, "timeout": "5s"}},
        "service_name": SERVICE,
        "resource_detectors": [
            {
                "name": f"{_OTEL}.resource_detectors.static_config",
                "typed_config": {
                    "@type": f"{_DETECTORS}.StaticConfigResourceDetectorConfig",
                    "attributes": attributes,
                },
            }
        ],
        "sampler": {
            "name": f"{_OTEL}.samplers.parent_based",
            "typed_config": {
                "@type": f"{_SAMPLERS}.ParentBasedSamplerConfig",
                "wrapped_sampler": {
                    "name": f"{_OTEL}.samplers.trace_id_ratio_based",
                    "typed_config": {
                        "@type": f"{_SAMPLERS}.TraceIdRatioBasedSamplerConfig",
                        "sampling_percentage": {
                            "numerator": round(collector.ratio * _MILLION),
                            "denominator": "MILLION",
                        },
                    },
                },
            },
        },
    }


def _tag(name: str, value: str) -> Json:
    return {"tag": name, "literal": {"value": value}}


def _tag_of_request(name: str, header: str) -> Json:
    return {"tag": name, "request_header": {"name": header}}
