"""Today's code on a data directory that the previous version made: everything is there and serves, nothing is lost."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.local_fleet import LocalFleet, eventually
from e2e.tiny_models import adder
from e2e.traffic import BODY
from nearcast.cli.fleet import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ARCHIVES = sorted((Path(__file__).parents[1] / "data" / "previous").glob("*.tar.gz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalFleet]:
    data_dir = tmp_path / "fleet"
    with tarfile.open(request.param) as archive:
        archive.extractall(data_dir, filter="tar")
    _on_free_ports(data_dir / "fleet.json")
    found = LocalFleet(data_dir)
    try:
        found.run("up", "--detach")
        yield found
    finally:
        found.run("down", check=False)


def _on_free_ports(file: Path) -> None:
    """Other ports than those of the machine where it was made: some may be taken here."""
    document = json.loads(file.read_text())
    ports = iter(free_ports(2 * len(document["sites"]) + 1))
    document["control_port"] = next(ports)
    for site in document["sites"].values():
        site["public_port"], site["peer_port"] = next(ports), next(ports)
    file.write_text(json.dumps(document))


def test_everything_is_there_and_serves(fleet: LocalFleet) -> None:
    assert {site["name"] for site in fleet.status()["sites"]} == {"frankfurt", "ashburn"}
    assert fleet.json("get", "deployment", "adder")["spec"]["version"] == "2"
    assert fleet.json("get", "policy", "home-only")["spec"]["residency"] == {"countries": ["DE"]}
    fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
    gateways = {site["name"]: site["gateway_url"] for site in fleet.status()["sites"]}
    for site, url in gateways.items():
        eventually(lambda url=url: _asked(url) == ("frankfurt", "adder@2", 3.0), f"an answer at {site}")

    fleet.deploy("adder", "1", "ashburn", "frankfurt")  # a release that the previous version signed, not fetched yet
    eventually(lambda: _asked(gateways["ashburn"]) == ("ashburn", "adder@1", 2.0), "the older release at another site")
    fleet.push("adder", "3", adder(fleet.data_dir / "new", 3.0))  # with the releaser's key of the previous version
    fleet.deploy("adder", "3", "frankfurt")
    eventually(lambda: _asked(gateways["ashburn"]) == ("frankfurt", "adder@3", 4.0), "a new release")


def _asked(url: str) -> tuple[str, str, float] | str:
    try:
        answer = httpx.post(f"{url}/v2/models/adder/infer", json=BODY, timeout=20)
    except httpx.HTTPError as error:
        return repr(error)
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text}"
    return (
        answer.headers["x-nearcast-site"],
        answer.headers["x-nearcast-model"],
        answer.json()["outputs"][0]["data"][0],
    )
