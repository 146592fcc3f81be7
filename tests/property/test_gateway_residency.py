"""Whatever plan, policies and route table the renderer is given: a refused place is in nothing that it renders."""

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.gateway.render import GatewayFiles, GatewayInputs, Listen, LocalModel, render
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources.plan import (
    HoldingRule,
    Peer,
    PlannedModel,
    ResidencyRule,
    ServedModel,
    SiteFacts,
    SitePlan,
)
from nearcast.resources.status import Share

NAMES = ["s0", "s1", "s2", "s10"]
MODELS = ["a", "b"]
COUNTRIES = ["DE", "US", "SG"]

subsets = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple)
countries = st.lists(st.sampled_from(COUNTRIES), max_size=2, unique=True).map(tuple)
groups = st.sampled_from([(), ("EU",)])
sites = st.fixed_dictionaries(
    {
        name: st.builds(
            SiteFacts,
            name=st.just(name),
            tier=st.sampled_from(["edge", "cloud"]),
            country=st.sampled_from(COUNTRIES),
            jurisdictions=groups,
        )
        for name in NAMES
    }
)
rules = st.builds(
    ResidencyRule,
    policy=st.sampled_from(["p", "q"]),
    models=st.sampled_from([(), ("a",), ("b",), ("a", "b")]),
    origin_sites=subsets,
    origin_countries=countries,
    origin_jurisdictions=groups,
    allow_sites=subsets,
    allow_countries=countries,
    allow_jurisdictions=groups,
)
holding = st.dictionaries(
    st.sampled_from(MODELS),
    st.builds(HoldingRule, tenant=st.sampled_from(["", "acme"]), tiers=st.sampled_from([(), ("edge",), ("cloud",)])),
)
tenants = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([("acme",), ("umbra",), ("acme", "umbra")]), max_size=2
)
shares = st.lists(
    st.builds(
        Share, percent=st.integers(0, 100), order=st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=6).map(tuple)
    ),
    max_size=4,
).map(tuple)


@st.composite
def inputs(draw: st.DrawFn) -> GatewayInputs:
    known = draw(sites)
    served = st.lists(st.sampled_from(MODELS), unique=True)
    peers = tuple(
        Peer(
            site=known[name],
            addresses=draw(st.sampled_from([(), ("192.0.2.1:1",), ("192.0.2.1:1", "192.0.2.2:1")])),
            server_name=f"{name}.f",
            round_trip_s=0.1,
            models=tuple(ServedModel(model=model, version="1") for model in draw(served)),
        )
        for name in draw(subsets)
        if name != "s0"
    )
    local = draw(served)
    plan = SitePlan(
        fleet="f",
        site=known["s0"],
        version=1,
        revision="",
        models=tuple(PlannedModel(model=model, version="1", release="", deployment=model) for model in draw(served)),
        peers=peers,
        callers=tuple(known[name] for name in draw(subsets) if name != "s0"),
        residency=tuple(draw(st.lists(rules, max_size=3))),
        catalog=tuple(draw(served)),
        holding=draw(holding),
        tenants=draw(tenants),
        revoked_nodes=draw(st.sampled_from([(), ("spiffe://f/site/s1/node/x",)])),
    )
    return GatewayInputs(
        plan=plan,
        node="n",
        listen=Listen("127.0.0.1", 1, "127.0.0.1", 2),
        run_dir="/r",
        envoy_dir="/e",
        local=tuple(LocalModel(model, "1", f"/r/{model}") for model in local),
        active={model: draw(st.sampled_from(["1", "2"])) for model in local},
        routes=RouteTable(
            models=draw(st.dictionaries(st.sampled_from(MODELS), st.builds(ModelRoute, st.just("routed"), shares)))
        ),
    )


def may_hold(plan: SitePlan, model: str, place: SiteFacts) -> bool:
    rule = plan.holding.get(model)
    tiers, tenant = (rule.tiers, rule.tenant) if rule else ((), "")
    return (not tiers or place.tier in tiers) and (place.name not in plan.tenants or tenant in plan.tenants[place.name])


def allowed(given: GatewayInputs, model: str, origin: SiteFacts, place: SiteFacts) -> bool:
    """The rules said once more, in other words than `planning.residency` and `planning.holding`."""
    if not may_hold(given.plan, model, place):
        return False
    for rule in given.plan.residency:
        origins = [*rule.origin_sites, *rule.origin_countries, *rule.origin_jurisdictions]
        of_origin = {origin.name, origin.country, *origin.jurisdictions}
        binds = (not rule.models or model in rule.models) and (not origins or bool(of_origin & set(origins)))
        open_to = {*rule.allow_sites, *rule.allow_countries, *rule.allow_jurisdictions}
        if binds and not open_to & {place.name, place.country, *place.jurisdictions}:
            return False
    return True


@dataclass
class Rendered:
    """What Envoy would do with the files, read back from them."""

    files: GatewayFiles

    def entries(self, name: str) -> dict[str, list[dict[str, Any]]]:
        (configuration,) = msgspec.to_builtins(self.files.routes[name].resources)
        matcher = configuration["virtual_hosts"][0]["matcher"]
        found = {}
        for model, entry in matcher.get("matcher_tree", {}).get("exact_match_map", {}).get("map", {}).items():
            config = entry["action"]["typed_config"]
            found[model] = config.get("routes", [config])
        return found

    def orders(self, model: str) -> list[tuple[list[str], int]]:
        """(sites, weight) of each cluster that requests for ``model`` may go to."""
        clusters = {cluster["name"]: cluster for cluster in msgspec.to_builtins(self.files.clusters.resources)}

        def sites(name: str) -> list[str]:
            cluster = clusters[name]  # a route to a cluster that is not there would be a KeyError
            if "cluster_type" in cluster:
                return [
                    site
                    for inner in cluster["cluster_type"]["typed_config"]["clusters"]
                    for site in sites(inner["name"])
                ]
            hosts = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            (site,) = {host["metadata"]["filter_metadata"]["nearcast"]["site"] for host in hosts}
            return [site]

        forwards = [route["route"] for route in self.entries("public")[model] if "route" in route]
        split = [
            forward.get("weighted_clusters", {"clusters": [{"name": forward.get("cluster"), "weight": 100}]})
            for forward in forwards
        ]
        return [(sites(item["name"]), item["weight"]) for each in split for item in each["clusters"]]

    def refusal(self, model: str) -> int | None:
        statuses = [
            route["direct_response"]["status"] for route in self.entries("public")[model] if "direct_response" in route
        ]
        return next((status for status in statuses if status != 200), None)


@settings(max_examples=250, deadline=None)
@given(inputs())
def test_a_refused_place_is_in_no_route(given_inputs: GatewayInputs) -> None:
    plan = given_inputs.plan
    known = {plan.site.name: plan.site, **{peer.site.name: peer.site for peer in plan.peers}}
    rendered = Rendered(render(given_inputs))
    for model in rendered.entries("public"):
        orders = rendered.orders(model)
        for order, weight in orders:
            assert weight > 0
            assert order
            nodes = {peer.site.name: len(peer.addresses) for peer in plan.peers}
            places = list(dict.fromkeys(order))
            if len(places) == 1:
                assert len(order) == 1
            else:
                # A site of two nodes is asked twice in a row, any other once.
                once = [site for site in places for _ in range(nodes.get(site, 1))]
                assert order[: len(once)] == once
                # Then the first once more, and at last this site, if it is another one, however often.
                last = plan.site.name if plan.site.name in places else places[0]
                first, *others = order[len(once) :]
                assert first == places[0]
                assert set(others) <= {last}
                assert order[-1] == last
            for site in order:
                assert allowed(given_inputs, model, plan.site, known[site])
        if orders:
            assert rendered.refusal(model) is None
            continue
        holders = [peer.site for peer in plan.peers if any(served.model == model for served in peer.models)]
        if given_inputs.serving(model) or any(planned.model == model for planned in plan.models):
            holders.append(plan.site)
        holders = [site for site in holders if may_hold(plan, model, site)]
        refused = bool(holders) and not any(allowed(given_inputs, model, plan.site, site) for site in holders)
        assert rendered.refusal(model) == (403 if refused else 503)


@settings(max_examples=250, deadline=None)
@given(inputs())
def test_a_refused_caller_is_in_no_permission(given_inputs: GatewayInputs) -> None:
    plan = given_inputs.plan
    rendered = Rendered(render(given_inputs))
    entries = rendered.entries("peer")
    active = {local.model for local in given_inputs.local if given_inputs.active[local.model] == "1"}
    assert set(entries) == {model for model in active if may_hold(plan, model, plan.site)}
    for model, (route,) in entries.items():
        assert route["route"]["cluster"] == f"engine:{model}@1"  # never on to a third site
        rules = route["typed_per_filter_config"]["envoy.filters.http.rbac"]["rbac"]["rules"]
        assert rules["action"] == "ALLOW"
        text = str(rules["policies"].get("callers", {}).get("principals", ""))
        for caller in plan.callers:
            permitted = f"spiffe://f/site/{caller.name}/node/'" in text
            assert permitted == allowed(given_inputs, model, caller, plan.site)
        if rules["policies"]:
            for node in plan.revoked_nodes:
                assert (
                    f"'not_id': {{'or_ids': {{'ids': [{{'authenticated': {{'principal_name': {{'exact': '{node}'"
                    in text
                )


@settings(max_examples=100, deadline=None)
@given(inputs())
def test_rendering_is_a_function_and_versions_tell_contents_apart(given_inputs: GatewayInputs) -> None:
    first, second = render(given_inputs), render(given_inputs)
    assert first.version == second.version
    assert [d.encode() for d in (first.clusters, first.listeners)] == [
        d.encode() for d in (second.clusters, second.listeners)
    ]
    names = [cluster["name"] for cluster in first.clusters.resources]
    assert len(names) == len(set(names))
