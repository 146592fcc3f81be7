"""Three sites of a control plane under test, a node each, and one deployment: what its planner places and publishes."""

from typing import Any

SITES = {"ashburn": "US", "frankfurt": "DE", "singapore": "SG"}
"""Country by site."""
ROUND_TRIPS = {"frankfurt": {"ashburn": 88, "singapore": 160}, "ashburn": {"singapore": 220}}
"""Milliseconds."""
PROFILE = {"service_s": 0.02, "work_s": 0.02, "footprint_bytes": 1 << 20, "load_s": 1.0}


class World:
    """The sites, joined to `fleet` (of `tests/contract/control/conftest.py`, as `make` is), and what they report."""

    def __init__(self, fleet: Any, make: Any, placement: dict[str, Any], **more: Any) -> None:
        self.fleet, self.make = fleet, make
        fleet.start_releases()
        fleet.push("m", "1")
        sites = [
            make.site(name, country, emulate={"roundTripMs": ROUND_TRIPS.get(name, {})})
            for name, country in SITES.items()
        ]
        fleet.applied(*sites, make.manifest("Deployment", "m", model="m", version="1", placement=placement, **more))
        self.nodes = {name: fleet.join(name) for name in SITES}
        self.report()

    def report(self, *serving: str, **rates: float) -> None:
        """Every node reports; those of ``serving`` have the model, clients ask ``rates`` per second."""
        for n, (name, node) in enumerate(self.nodes.items()):
            held = name in serving
            answer = node.report(
                gateway={"url": f"http://{name}.test", "peer_address": f"192.0.2.{n + 1}:7443", "ready": True},
                capacity={"workers": 1.0, "memory_bytes": 1 << 30},
                models=[self.make.ready("m", "1")] if held else [],
                profiles=[{"model": "m", "version": "1", **PROFILE}] if held else [],
                demand={"m": {"rate_per_s": rates[name]}} if name in rates else {},
            )
            assert answer.status_code in {200, 204}, answer.text

    def pass_on(self, seconds: float = 5.0) -> bool:
        """Time goes by, then the planner and the publisher make a pass each; whether guidance changed."""
        self.fleet.pass_time(seconds)
        changed: bool = self.fleet.planner.step()
        self.fleet.controllers.step()
        return changed

    def planned(self) -> set[str]:
        """Sites whose published plan has the model."""
        found = {name: self.fleet.plane.publisher.of(name) for name in SITES}
        return {name for name, entry in found.items() if entry is not None and entry.plan.models}

    def routes(self, site: str) -> dict[str, float]:
        entry = self.fleet.plane.publisher.of(site)
        return {share.site: share.share for share in entry.plan.routes.get("m", ())}
