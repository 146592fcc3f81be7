"""`nearcast up` and the identities of its nodes: revoked, damaged, of a site that was deleted."""

import json
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet, eventually, resource

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_up_brings_back_what_lost_its_identity_and_forgets_what_was_deleted(tmp_path: Path) -> None:
    fleet = LocalFleet(tmp_path / "fleet")
    sites = tmp_path / "sites.yaml"
    sites.write_text(
        "\n---\n".join(json.dumps(resource("Site", name, {"country": "PT"})) for name in ("faro", "porto"))
    )

    def nodes() -> set[str]:
        return {f"{node['site']}/{node['name']}" for node in fleet.json("get", "nodes")["items"]}

    try:
        fleet.run("up", "--detach", "--file", str(sites))
        assert nodes() == {"faro/faro-1", "porto/porto-1"}
        fleet.run("revoke", "faro/faro-1")
        fleet.run("up", "--detach", "--timeout", "60s")
        assert nodes() == {"faro/faro-2", "porto/porto-1"}, "another node, while the fleet runs"

        fleet.run("down")
        (fleet.data_dir / "sites" / "porto" / "identity" / "cert.pem").write_bytes(b"\xff\x00 no certificate")
        fleet.run("up", "--detach", "--timeout", "60s")
        assert nodes() == {"faro/faro-2", "porto/porto-1"}, "the same node, with another certificate"

        fleet.run("revoke", "porto/porto-1")
        fleet.run("delete", "site/porto")
        fleet.run("up", "--detach", "--timeout", "60s")
        assert [site["name"] for site in fleet.status()["sites"]] == ["faro"]
        eventually(lambda: "agent" not in fleet.pids("porto"), "the end of its agent")
    finally:
        fleet.run("down", check=False)
