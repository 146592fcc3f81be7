"""The public side: routes for clients, one entry per model in an exact-match map, however many models there are."""

from typing import Final

from nearcast.gateway.render import answers
from nearcast.gateway.render.clusters import (
    REASON_LOCAL_FIRST,
    REASON_LOCAL_LATER,
    REASON_NOT_HERE,
    STATUS_CLUSTER,
    VIA,
)
from nearcast.gateway.render.document import ROUTES_TYPE, TYPE_URL, Document, Json, Message
from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.gateway.render.places import Decision, Refused, Routed, attempts, patience_s, turn_cluster, turns
from nearcast.resources import wire
from nearcast.resources.status import Share

_PREVIOUS: Final = "envoy.retry_host_predicates.previous_hosts"
_PREVIOUS_TYPE: Final = f"{TYPE_URL}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_LOAD_METRICS: Final = "endpoint-load-metrics"
_TIMING: Final = (
    "gateway;dur=%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%, upstream;dur=%COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)%"
)


def public_routes(inputs: GatewayInputs, decided: dict[str, Decision]) -> Document:
    """Routes of the public listener."""
    served = [model for model, decision in decided.items() if not isinstance(decision, Refused)]
    # Envoy's bound for direct responses is 4 KiB by default; the list of models is the longest one.
    longest = 4096 + 256 * len(decided)
    configuration: Message = {
        "name": "public",
        "max_direct_response_body_size_bytes": longest,
        "virtual_hosts": [
            {
                "name": "public",
                "domains": ["*"],
                "include_request_attempt_count": True,
                "matcher": by_model(
                    {model: _model(inputs, model, decision) for model, decision in decided.items()},
                    _unnamed(served),
                ),
            }
        ],
    }
    return Document(ROUTES_TYPE, (configuration,))


def by_model(routes: dict[str, list[Message]], otherwise: Message) -> Message:
    """A matcher that finds the routes of a model at once, whatever the number of models."""
    return _by_header(wire.MODEL, {model: action(found) for model, found in routes.items()}, otherwise)


def _by_header(name: str, entries: Message, otherwise: Message) -> Message:
    matcher: Message = {"on_no_match": otherwise}
    if entries:  # an empty map is not valid
        source: Message = {
            "name": name.removeprefix(":"),
            "typed_config": {
                "@type": f"{TYPE_URL}envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                "header_name": name,
            },
        }
        matcher["matcher_tree"] = {"input": source, "exact_match_map": {"map": entries}}
    return matcher


def _unnamed(served: list[str]) -> Message:
    """What becomes of a request without a model. Nearly all requests come by here: the route is looked for before the
    model is known, too. So what only GET and HEAD may ask is not tried for POST."""
    refused = [
        answers.refusal(404, f"no deployment has a model named %REQ({wire.MODEL})%", with_header=wire.MODEL),
        answers.refusal(404, "no such path: %PATH(NQ)%"),
    ]
    return {
        "matcher": _by_header(
            ":method", {"POST": action([_server_calls(), *refused])}, action([*answers.discovery(served), *refused])
        )
    }


def action(routes: list[Message]) -> Message:
    """What a matcher does: the first of ``routes`` that matches."""
    if len(routes) == 1:
        config: Message = {"@type": answers.ROUTE, **routes[0]}
        return {"action": {"name": "route", "typed_config": config}}
    config = {"@type": f"{TYPE_URL}envoy.config.route.v3.RouteList", "routes": [*routes]}
    return {"action": {"name": "routes", "typed_config": config}}


def _server_calls() -> Message:
    """gRPC calls that name no model. They want a message for an answer, which Envoy cannot give; the engine can."""
    return {
        "match": {"prefix": f"{wire.GRPC_SERVICE_PATH}Server"},
        "route": {"cluster": STATUS_CLUSTER, "timeout": "2s", "retry_policy": reconnects()},
    }


def _model(inputs: GatewayInputs, model: str, decision: Decision) -> list[Message]:
    """Routes of one model: its description, then where its requests go, or why nowhere."""
    site = inputs.plan.site.name
    if isinstance(decision, Refused):
        policies = ", ".join(decision.policies)
        text = f"no place may answer requests for model {model} that enter at site {site}: refused by policy {policies}"
        return [answers.refusal(403, answers.literal(text))]
    described = answers.found((f"/v1/models/{model}",), answers.model_document(model))
    if isinstance(decision, Routed):
        return [described, _forward(inputs, model, decision)]
    nowhere = answers.refusal(503, answers.literal(f"no place can answer for model {model} now; retry"))
    return [described, {"name": model, **nowhere}]  # named: whoever asks in vain is demand all the same


def _forward(inputs: GatewayInputs, model: str, decision: Routed) -> Message:
    shares, asked = decision.shares, turns(inputs, decision)
    tries = max(map(len, asked))
    # Nearly all models have one share: drawing lots among one costs 4,000 instructions per request.
    only = shares[0] if len(shares) == 1 else None
    where = {"cluster": turn_cluster(inputs, model, asked[0])} if only else _drawn(inputs, model, decision, asked)
    return {
        "name": model,
        "match": {"prefix": "/"},
        # Without it a body larger than the default buffer is never sent to a second place.
        "request_body_buffer_limit": inputs.max_body_bytes,
        "route": {
            "timeout": "0s",  # the default of 15 s kills long answers
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},  # as long as the caller of a gRPC call says
            **where,
            **(_asked_in_turn(inputs, tries, patience_s(inputs, model, shares)) if tries > 1 else _asked_once()),
        },
        **(_longest(inputs, only.order, decision.longest_ms[0]) if only else {}),
        "response_headers_to_remove": [_LOAD_METRICS, VIA],
        "response_headers_to_add": [
            answers.header(wire.SITE, "%UPSTREAM_METADATA(nearcast:site)%"),
            *([_reason(inputs, only)] if only else []),
            answers.header(wire.SERVER_TIMING, _TIMING, append=True),
            _grpc_status_at_last(),
        ],
    }


def _drawn(inputs: GatewayInputs, model: str, decision: Routed, asked: tuple[tuple[str, ...], ...]) -> Message:
    """Lots among the shares, each with the places that are ``asked``, its reason and its longest waits."""
    return {
        "weighted_clusters": {
            "clusters": [
                {
                    "name": turn_cluster(inputs, model, turn),
                    "weight": share.percent,
                    "response_headers_to_add": [_reason(inputs, share)],
                    **_longest(inputs, share.order, waits_ms),
                }
                for share, turn, waits_ms in zip(decision.shares, asked, decision.longest_ms, strict=True)
            ]
        }
    }


def _asked_in_turn(inputs: GatewayInputs, tries: int, patience: int | None) -> Message:
    """Place after place. One that is silent for longer than ``patience`` seconds is not given up: the next one is asked
    as well, and the first good answer counts. So a place that lives and never answers holds nobody for minutes, and a
    slow one, where all are slow, loses no answer."""
    policy = retries(tries - 1, elsewhere=_has_choice(inputs))
    if patience is None:
        return {"retry_policy": policy}
    policy["per_try_timeout"] = f"{patience}s"
    return {"retry_policy": policy, "hedge_policy": {"hedge_on_per_try_timeout": True}}


def _asked_once() -> Message:
    return {"retry_policy": reconnects()}


def _grpc_status_at_last() -> Message:
    """Places say RESOURCE_EXHAUSTED of whatever the next one may answer, lest they be ejected (ADR 007). Where that was
    the last one, the client hears what it was; nothing becomes of an answer without our header."""
    status: Message = {"key": "grpc-status", "value": f"%RESP({wire.GRPC_STATUS_AT_LAST})%"}
    return {"header": status, "append_action": "OVERWRITE_IF_EXISTS"}


def _longest(inputs: GatewayInputs, order: tuple[str, ...], waits_ms: tuple[tuple[str, int], ...]) -> Message:
    """What tells places how long the requests of a share may wait there; nothing where any wait will do. Whoever has
    asked all waits for as long as it takes when asking once more, unless the last place would not have that either."""
    if not waits_ms:
        return {}
    tries = None if waits_ms[-1][0] == order[-1] else sum(attempts(inputs, order).values())
    return {"request_headers_to_add": [answers.header(wire.LONGEST_WAIT, wire.longest_waits(waits_ms, tries))]}


def _reason(inputs: GatewayInputs, share: Share) -> Message:
    own = inputs.plan.site.name
    key = REASON_NOT_HERE
    if own in share.order:
        key = REASON_LOCAL_FIRST if share.order[0] == own else REASON_LOCAL_LATER
    reason = f"%UPSTREAM_METADATA(nearcast:{key})%;attempt=%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
    return answers.header(wire.REASON, reason)


def _has_choice(inputs: GatewayInputs) -> bool:
    """Whether a peer site has several nodes."""
    return any(len(peer.addresses) > 1 for peer in inputs.plan.peers)


def retries(count: int, *, elsewhere: bool = False) -> Message:
    """Try the next place, before the first byte of an answer: inference is pure, so a reset may be retried too.

    Args:
        count: attempts after the first one.
        elsewhere: inside a site, a node that has not been tried.
    """
    policy: Message = {
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes,retriable-headers",
        "retriable_status_codes": [503],
        "retriable_headers": [{"name": wire.FULL, "present_match": True}],
        "num_retries": count,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},  # the default adds 25 ms per spill
    }
    if elsewhere:
        policy["retry_host_predicate"] = [{"name": _PREVIOUS, "typed_config": {"@type": _PREVIOUS_TYPE}}]
        # Least request likes the node that fails fast, so the choice is made again often.
        policy["host_selection_retry_max_attempts"] = "32"
    return policy


def reconnects() -> Message:
    """For the only place: once more when the connection broke; a "full" is its answer."""
    return {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 1,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
    }


def model_headers_removed() -> list[Json]:
    """Mutations that take away what clients must not set."""
    return [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in (wire.PREFIX, "x-envoy-")]
