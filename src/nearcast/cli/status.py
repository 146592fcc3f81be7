"""``status``: the fleet at a glance, from the control plane, or from the nodes' own files while it is silent."""

from collections import Counter
from typing import Final

import msgspec
from rich.text import Text

from nearcast.agent.layout import layout_of
from nearcast.cli.conditions import trouble_in
from nearcast.cli.connect import connected
from nearcast.cli.fleet import FleetFile, LocalPaths
from nearcast.cli.listen import gateway_answers
from nearcast.cli.models import ready_models
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import Cell, coloured, milliseconds, note, show_document, show_lines, show_pairs, show_table
from nearcast.cli.session import Session
from nearcast.client import DeploymentView, Document, FleetStatus, SiteView, Unreachable
from nearcast.documents import refuse_newer
from nearcast.durable import read_if_exists
from nearcast.resources.status import NodeStatus
from nearcast.resources.unreadable import UNREADABLE

COMMANDS: Final = {"status": application()}


@command(COMMANDS["status"], "status", examples=("status", "status -o json", "status --data-dir /tmp/lab"))
def status(session: Session, output: Output = Format.TABLE) -> None:
    """Show the fleet: its sites, their gateways, and whether they are ready.

    While the control plane of a local fleet is silent, the nodes' own files and gateways are asked instead.
    """
    try:
        with connected(session) as client:
            document = client.status_document()
            nodes = client.nodes() if output is Format.TABLE else []
    except Unreachable as error:
        fleet = LocalPaths(session.data_dir).read_fleet() if session.control is None else None
        local = document_of_nodes(LocalPaths(session.data_dir), fleet) if fleet else None
        if local is None:
            raise
        note(Text.assemble(("warning: ", "bold yellow"), error.message, "; this is what the nodes say themselves"))
        document, nodes = local, [node | {"site": site["name"]} for site in local["sites"] for node in site["nodes"]]
    else:
        document = document | {"control": document["control"] | {"reachable": True}}
    if output is Format.TABLE:
        show_fleet(document, nodes)
    else:
        show_document(document, output)


def show_fleet(document: Document, nodes: list[Document]) -> None:
    """Print the control plane, one row per site, deployments with trouble, and the round trips between sites."""
    fleet = msgspec.convert(document, FleetStatus)
    silent = document["control"].get("reachable") is False
    about = "does not answer" if silent else f"version {fleet.control.version}" if fleet.control.version else "answers"
    show_pairs([("Fleet", fleet.fleet or "–"), ("Control plane", f"{fleet.control.url} ({about})")])
    show_lines("")
    show_table(("site", "country", "ready", "gateway", "models", "trouble"), (_row(site) for site in fleet.sites))
    if troubled := [(each.name, _said(each)) for each in fleet.deployments if trouble_in(each.conditions)]:
        show_lines("")
        show_table(("deployment", "trouble"), troubled)
    at = Counter(str(node["site"]) for node in nodes)
    trips = [row for node in nodes for row in _round_trips(node, alone=at[str(node["site"])] == 1)]
    if trips:
        show_lines("")
        show_table(("from", "to", ">round trip ms", "state"), trips)


def document_of_nodes(paths: LocalPaths, fleet: FleetFile) -> Document | None:
    """The status as the nodes of a local fleet know it; None where not one gateway answers."""
    sites = []
    for name, own in fleet.sites.items():
        reported = _node_status(paths, name)
        sites.append(
            {
                "name": name,
                "country": own.country,
                "tier": own.tier,
                "gateway_url": fleet.gateway_url(name),
                "ready": gateway_answers(fleet, name),
                "nodes": [{"name": reported.node, "status": msgspec.to_builtins(reported)}] if reported else [],
                "models": [msgspec.to_builtins(model) for model in reported.models] if reported else [],
                "conditions": [],
            }
        )
    if not any(site["ready"] for site in sites):
        return None
    return {"fleet": "", "control": {"url": fleet.control_url, "version": "", "reachable": False}, "sites": sites}


def _node_status(paths: LocalPaths, site: str) -> NodeStatus | None:
    file = layout_of(paths.site(site)).status
    refuse_newer(file)
    data = read_if_exists(file)
    try:
        return msgspec.json.decode(data, type=NodeStatus) if data else None
    except UNREADABLE:
        return None


def _row(site: SiteView) -> tuple[Cell, ...]:
    return (
        site.name,
        site.country,
        coloured("yes" if site.ready else "no"),
        site.gateway_url or "–",
        ", ".join(sorted(ready_models(site.models))) or "–",
        _trouble(site),
    )


def _trouble(site: SiteView) -> str:
    """Conditions that do not hold, and models that could not be served, in one line."""
    failed = [f"{model.model}@{model.version} failed" for model in site.models if model.state == "failed"]
    return "; ".join(filter(None, [trouble_in(site.conditions), *failed]))


def _said(deployment: DeploymentView) -> str:
    """What conditions that do not hold say, each message once."""
    found = {
        item.message or item.reason: item.type for item in reversed(deployment.conditions) if item.status != "True"
    }
    return "; ".join(f"{kind}: {message}" for message, kind in reversed(found.items()))


def _round_trips(node: Document, *, alone: bool) -> list[tuple[Cell, ...]]:
    return [
        (
            str(node["site"]) if alone else f"{node['site']}/{node.get('name') or node.get('node')}",
            str(peer["site"]),
            milliseconds(peer["round_trip_s"] * 1000.0 or None),  # 0: not measured yet
            coloured("reachable" if peer["reachable"] else "unreachable"),
        )
        for peer in (node["status"] or {}).get("peers", [])
    ]
