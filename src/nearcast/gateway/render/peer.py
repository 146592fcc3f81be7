"""The peer side: what other sites of the fleet may ask of this node's own engines, and the agent's way to the peers.

Peer routes name local clusters only, so a request takes one hop between sites at most. Who may call which model is
decided per route (RBAC by the SPIFFE id in the client's certificate), so that a new plan changes routes and no
listener; the listener's own rule refuses everybody.
"""

import re
from collections.abc import Iterable
from typing import Final

from nearcast.gateway.render import answers
from nearcast.gateway.render.clusters import STATUS_CLUSTER, VIA
from nearcast.gateway.render.document import ROUTES_TYPE, TYPE_URL, Document, Message
from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.gateway.render.places import callers_of, engine_cluster, site_cluster
from nearcast.gateway.render.public import action, by_model, reconnects, retries
from nearcast.resources import wire
from nearcast.resources.plan import SiteFacts, SitePlan, site_id_prefix

RBAC: Final = "envoy.filters.http.rbac"
_RBAC_TYPE: Final = f"{TYPE_URL}envoy.extensions.filters.http.rbac.v3"
_FAULT_TYPE: Final = f"{TYPE_URL}envoy.extensions.filters.http.fault.v3.HTTPFault"
_PROBE_TIMEOUT: Final = "2s"
_OTHER_NODE: Final[Message] = {**retries(1, elsewhere=True), "per_try_timeout": "0.9s"}
"""A site of several nodes is reachable while one of them is."""
_SLOTS: Final = 8
"""Delays are made room for by so many."""


def peer_routes(inputs: GatewayInputs) -> Document:
    """Routes of the peer listener."""
    plan = inputs.plan
    models = [] if inputs.leaving else sorted({item.model for item in inputs.local if inputs.serving(item.model)})
    named = {model: [_local(inputs, model, callers_of(inputs, model))] for model in models}
    absent: Message = {
        **answers.refusal(503, f"model %REQ({wire.MODEL})% is not served at this site"),
        "response_headers_to_add": [answers.header(wire.FULL, wire.FULL_NO_MODEL)],
    }
    load: Message = {"match": {"path": wire.LOAD_PATH}, "route": {"cluster": STATUS_CLUSTER, "timeout": _PROBE_TIMEOUT}}
    # One that leaves tells no load either: who asks for it soon sends nothing any more.
    answered = [_leaving()] if inputs.leaving else [load, absent]
    unnamed = [_permitted(plan, plan.callers, route) for route in answered]
    configuration: Message = {
        "name": "peer",
        "virtual_hosts": [{"name": "peer", "domains": ["*"], "matcher": by_model(named, action(unnamed))}],
        "response_headers_to_add": [answers.header(VIA, plan.site.name)],
        "typed_per_filter_config": _delays(plan),
    }
    return Document(ROUTES_TYPE, (configuration,))


def _leaving() -> Message:
    return {
        **answers.refusal(503, "this node is being stopped"),
        "response_headers_to_add": [answers.header(wire.FULL, wire.FULL_LEAVING)],
    }


def probe_routes(inputs: GatewayInputs) -> Document:
    """Routes of the probe listener: load reports of the local engine and, over the links of requests, of peers."""
    peers: list[Message] = [
        {
            "match": {"path": f"/-/peers/{place}/load"},
            "route": {
                "cluster": site_cluster(place),
                "prefix_rewrite": wire.LOAD_PATH,
                "timeout": _PROBE_TIMEOUT,
                **({"retry_policy": _OTHER_NODE} if len(peer.addresses) > 1 else {}),
            },
        }
        for place, peer in inputs.others().items()
        if peer.addresses
    ]
    local: Message = {
        "match": {"path": wire.LOAD_PATH},
        "route": {"cluster": STATUS_CLUSTER, "timeout": _PROBE_TIMEOUT},
    }
    host: Message = {
        "name": "probe",
        "domains": ["*"],
        "routes": [local, *peers, answers.refusal(404, "no such peer")],
    }
    return Document(ROUTES_TYPE, ({"name": "probe", "virtual_hosts": [host]},))


def _local(inputs: GatewayInputs, model: str, callers: Iterable[SiteFacts]) -> Message:
    serving = inputs.serving(model)
    assert serving is not None  # noqa: S101  (the caller lists served models only)
    route: Message = {
        "name": model,
        "match": {"prefix": "/"},
        "request_body_buffer_limit": inputs.max_body_bytes,
        "route": {
            "cluster": engine_cluster(model, serving.version),
            "timeout": "0s",
            "retry_policy": reconnects(),
        },
    }
    return _permitted(inputs.plan, callers, route)


def _permitted(plan: SitePlan, callers: Iterable[SiteFacts], route: Message) -> Message:
    """``route`` for nodes of ``callers`` that are not revoked; nobody where there is no caller."""
    prefixes: list[Message] = [{"prefix": site_id_prefix(plan.fleet, caller.name)} for caller in callers]
    principal: Message = {"or_ids": {"ids": [_authenticated(prefix) for prefix in prefixes]}}
    if plan.revoked_nodes:
        revoked: Message = {"or_ids": {"ids": [_authenticated({"exact": node}) for node in plan.revoked_nodes]}}
        principal = {"and_ids": {"ids": [principal, {"not_id": revoked}]}}
    policy: Message = {"permissions": [{"any": True}], "principals": [principal]}
    return {
        **route,
        "typed_per_filter_config": {
            RBAC: {
                "@type": f"{_RBAC_TYPE}.RBACPerRoute",
                "rbac": {"rules": {"action": "ALLOW", "policies": {"callers": policy} if prefixes else {}}},
            }
        },
    }


def _authenticated(name: Message) -> Message:
    return {"authenticated": {"principal_name": name}}


def delay_slots(plan: SitePlan) -> list[Message]:
    """Filters of the peer listener that delay nothing by themselves: the routes say whom and how long.

    There are none where nothing is emulated, else some more than needed, so that one more site changes no listener.
    """
    needed = len(plan.emulated_round_trip_s)
    slots = -(-needed // _SLOTS) * _SLOTS
    return [{"name": f"delay:{slot}", "typed_config": {"@type": _FAULT_TYPE}} for slot in range(slots)]


def _delays(plan: SitePlan) -> Message:
    """The emulated round trip of each caller, recognised by its certificate, for every request of it, probes too."""
    return {
        f"delay:{slot}": {
            "@type": _FAULT_TYPE,
            "headers": [
                {"name": "x-forwarded-client-cert", "string_match": {"safe_regex": {"regex": _nodes_of(plan, site)}}}
            ],
            "delay": {"fixed_delay": f"{seconds:.6f}s", "percentage": {"numerator": 100}},
        }
        for slot, (site, seconds) in enumerate(sorted(plan.emulated_round_trip_s.items()))
        if seconds > 0
    }


def _nodes_of(plan: SitePlan, site: str) -> str:
    """What Envoy writes about a client's certificate when it is one of ``site``."""
    return f".*;URI={re.escape(site_id_prefix(plan.fleet, site))}[^;,/]+"


def revoked_at_the_door(plan: SitePlan) -> list[Message]:
    """The listener's first rule: a connection of a revoked node is closed before it may ask anything.

    It changes with the deny list alone. The filter chain is then a new one, so every connection that stood is made
    anew within Envoy's drain time, and that of the revoked is not; routes refuse its requests at once.
    """
    if not plan.revoked_nodes:
        return []
    principals = [_authenticated({"exact": node}) for node in sorted(plan.revoked_nodes)]
    policy: Message = {"permissions": [{"any": True}], "principals": [*principals]}
    config: Message = {
        "@type": f"{TYPE_URL}envoy.extensions.filters.network.rbac.v3.RBAC",
        "stat_prefix": "revoked",
        "rules": {"action": "DENY", "policies": {"revoked": policy}},
    }
    return [{"name": "envoy.filters.network.rbac", "typed_config": config}]


def nobody() -> Message:
    """The listener's own rule: refuse. Each route says whom it is for."""
    return {
        "name": RBAC,
        "typed_config": {"@type": f"{_RBAC_TYPE}.RBAC", "rules": {"action": "ALLOW", "policies": {}}},
    }
