"""What the gateway counts and writes down about requests: statistics with names of ours, and the access log.

The figures come from Envoy's stats access logger, once per request, into one counter that carries all labels (each
further counter costs 6,000 instructions per request) in one tag (each further one costs 1,000; :func:`parted` takes
them apart again), and at most :data:`SERIES_MAX` of them, whatever comes. Scrapers see sums of it by model and by site,
never by both, so that nothing of theirs grows with models x sites.
The label ``model`` is the name of the route, which is a model of the plan, never what a client wrote. Sizes of bodies
are taken of a sample, :data:`SIZED_PERCENT` of the requests that were answered, since only their means are of interest.
What scrapers see is decided in `gateway.metrics`, what is demand in `gateway.demand`; traces in `render.tracing`.
"""

from collections.abc import Mapping
from typing import Final

from nearcast.gateway.render.document import TYPE_URL, Json, Message
from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.resources import wire

PREFIX: Final = "nearcast"
SERIES_MAX: Final = 16_384
"""Counters, and as many histograms, of one listener. Envoy drops what is over it, and counts that."""
BUCKETS_MS: Final = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
LOG_FROM_STATUS: Final = 400
SIZED_PERCENT: Final = 12

_MODEL: Final = ("model", "%ROUTE_NAME%")
_CODE: Final = ("code", "%RESPONSE_CODE%")
_CALL: Final = ("call", "%GRPC_STATUS(NUMBER)%")
"""How a gRPC call ended, whose code is 200 all the same; "-" for any other request."""
_REASON: Final = ("reason", f"%RESP({wire.REASON}):64%")
_SITE: Final = ("site", f"%RESP({wire.SITE}):64%")
_PUBLIC: Final = (_MODEL, _SITE, _CODE, _CALL, _REASON)
_OF_PEERS: Final = (_MODEL, _CODE, _CALL)
_LISTENERS: Final = {"public": _PUBLIC, "peer": _OF_PEERS}
_SEPARATOR: Final = "|"
"""No part but the last one, which a peer may have written, can hold it."""
_ORDERS: Final = r"^cluster\.order_"
_STATS: Final = f"{TYPE_URL}envoy.extensions.access_loggers.stats.v3.Config"
_FILE: Final = f"{TYPE_URL}envoy.extensions.access_loggers.file.v3.FileAccessLog"


def stats_config() -> Message:
    """What Envoy keeps of its own statistics: nothing of the orders of places, of which there are many."""
    return {
        "stats_matcher": {"exclusion_list": {"patterns": [{"safe_regex": {"regex": f"{_ORDERS}.*"}}]}},
        "histogram_bucket_settings": [
            {"match": {"safe_regex": {"regex": rf"{PREFIX}\..*"}}, "buckets": [*BUCKETS_MS]},
        ],
    }


def access_logs(inputs: GatewayInputs, listener: str) -> list[Json]:
    """The access loggers of a listener: the one that counts, and the one that writes lines, where it is wanted."""
    loggers: list[Json] = [_counting(listener)]
    if listener == "public":
        loggers.append(_sizing(listener))
    if inputs.telemetry.access_log != "off":
        loggers.append(_writing(inputs, listener))
    return loggers


def _counting(listener: str) -> Message:
    config: Message = {
        "@type": _STATS,
        "stats_scope": {"prefix": PREFIX, "max_counters": SERIES_MAX, "max_histograms": SERIES_MAX},
        "counters": _counters(listener),
        "histograms": [
            {
                "stat": _stat(f"{listener}_duration", _MODEL),
                "unit": "Milliseconds",
                "value_format": "%DURATION%",
            }
        ],
    }
    return {"name": "envoy.access_loggers.stats", "typed_config": config}


def _counters(listener: str) -> list[Json]:
    together = (listener, _SEPARATOR.join(value for _, value in _LISTENERS[listener]))
    return [{"stat": _stat(f"{listener}_requests", together), "value_fixed": 1}]


def parted(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels of a counter of requests, out of the one that Envoy keeps; those of other statistics as they are.

    What a request has none of is "", for which Envoy says "-".
    """
    for listener, parts in _LISTENERS.items():
        together = labels.get(listener)
        if together is not None:
            values = together.split(_SEPARATOR, len(parts) - 1)
            return {name: value if value != "-" else "" for (name, _), value in zip(parts, values, strict=True)}
    return labels


def _sizing(listener: str) -> Message:
    """Bytes of bodies, by model. Three counters for each request would cost it a twentieth of all that it costs."""
    config: Message = {
        "@type": _STATS,
        "stats_scope": {"prefix": PREFIX, "max_counters": SERIES_MAX},
        "counters": [
            {"stat": _stat(f"{listener}_sized", _MODEL), "value_fixed": 1},
            {"stat": _stat(f"{listener}_received_bytes", _MODEL), "value_format": "%BYTES_RECEIVED%"},
            {"stat": _stat(f"{listener}_sent_bytes", _MODEL), "value_format": "%BYTES_SENT%"},
        ],
    }
    # Access log filters want a runtime key; it is never set.
    sampled: Message = {
        "runtime_filter": {
            "runtime_key": "nearcast.unused",
            "percent_sampled": {"numerator": SIZED_PERCENT},
            "use_independent_randomness": True,
        }
    }
    value: Message = {"default_value": LOG_FROM_STATUS - 1, "runtime_key": "nearcast.unused"}
    answered: Message = {"status_code_filter": {"comparison": {"op": "LE", "value": value}}}
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": config,
        "filter": {"and_filter": {"filters": [sampled, answered]}},
    }


def _stat(name: str, *tags: tuple[str, str]) -> Message:
    return {"name": name, "tags": [{"name": tag, "value_format": value} for tag, value in tags]}


def _writing(inputs: GatewayInputs, listener: str) -> Message:
    """Lines of JSON: who asked for what and what became of it. No bodies, no queries, no credentials."""
    caller = "%DOWNSTREAM_PEER_URI_SAN%" if listener == "peer" else "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    fields: Message = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "listener": listener,
        "request_id": f"%REQ({wire.REQUEST_ID}):128%",
        "method": "%REQ(:METHOD):16%",
        "path": "%PATH(NQ):256%",
        "model": "%ROUTE_NAME%",
        "status": "%RESPONSE_CODE%",
        "error": f"%RESP({wire.ERROR}):64%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "site": "%UPSTREAM_METADATA(nearcast:site)%",
        "reason": f"%RESP({wire.REASON}):64%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "duration_ms": "%DURATION%",
        "received_bytes": "%BYTES_RECEIVED%",
        "sent_bytes": "%BYTES_SENT%",
        "caller": caller,
        "trace_id": "%TRACE_ID%",
    }
    logger: Message = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _FILE,
            "path": inputs.telemetry.access_log_file,
            "log_format": {"json_format": fields},
        },
    }
    if inputs.telemetry.access_log == "errors":
        # Access log filters want a runtime key; it is never set.
        value: Message = {"default_value": LOG_FROM_STATUS, "runtime_key": "nearcast.unused"}
        failed: Message = {"status_code_filter": {"comparison": {"op": "GE", "value": value}}}
        logger["filter"] = {"or_filter": {"filters": [failed, _failed_call()]}}
    return logger


def _failed_call() -> Message:
    """A gRPC call that did not end well: its HTTP status is 200 all the same."""
    prefix: Message = {"prefix": wire.GRPC_CONTENT_TYPES[0]}
    is_call: Message = {"header_filter": {"header": {"name": "content-type", "string_match": prefix}}}
    not_well: Message = {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}}
    return {"and_filter": {"filters": [is_call, not_well]}}
