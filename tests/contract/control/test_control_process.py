"""The real process: HTTPS by its own authority, readiness, one per directory, and what `kill -9` may not take."""

import signal
import ssl
import threading
import time
from typing import Any

import httpx
import pytest

Make = Any


def test_it_serves_https_by_its_own_authority_and_ends_in_order(started: Any, make: Make) -> None:
    process = started("--advertise", "control.test").wait_until_ready()
    with process.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/apply", json={"manifests": [make.site("fra")]}).status_code == 200
    with process.client() as client:
        assert client.get("/healthz", extensions={"sni_hostname": "control.test"}).status_code == 200
    with process.client() as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get("/healthz", extensions={"sni_hostname": "other.test"})
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://localhost:{process.port}/healthz", verify=ssl.create_default_context())
    assert process.info["url"] == f"https://control.test:{process.port}"
    assert process.end(signal.SIGTERM) == 0
    assert not process.url_file.exists()
    again = started("--advertise", "control.test").wait_until_ready()
    assert again.info["url"] == process.info["url"]


def test_one_process_serves_a_directory(started: Any) -> None:
    first = started().wait_until_ready()
    second = started()
    assert second.process.wait(30) == 5
    assert "another control plane serves" in first.log.read_text()
    with first.client() as client:
        assert client.get("/healthz").status_code == 200


def test_a_taken_port_and_a_wrong_fleet_are_told(started: Any) -> None:
    first = started("--fleet", "one.test").wait_until_ready()
    second = started("--port", str(first.port), directory="d")
    assert second.process.wait(30) == 5
    assert "cannot listen on" in second.log.read_text()
    assert first.end(signal.SIGTERM) == 0
    third = started("--fleet", "two.test")
    assert third.process.wait(30) == 2
    assert "serves the fleet 'one.test'" in first.log.read_text()


def test_kill_9_under_load_loses_nothing_that_was_acknowledged(started: Any, make: Make) -> None:
    acknowledged: dict[str, str] = {}
    for round_number in range(3):
        process = started().wait_until_ready()
        done = threading.Event()
        writers = [
            threading.Thread(target=write, args=(process, make, f"r{round_number}w{number}", acknowledged, done))
            for number in range(3)
        ]
        for writer in writers:
            writer.start()
        before = len(acknowledged)
        deadline = time.monotonic() + 30
        while len(acknowledged) < before + 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.end(signal.SIGKILL)
        done.set()
        for writer in writers:
            writer.join(30)
        assert len(acknowledged) >= before + 20
    last = started().wait_until_ready()
    with last.client() as client:
        items = client.get("/v1/resources/sites").json()["items"]
        held = {item["metadata"]["name"]: item["status"]["details"]["revision"] for item in items}
        assert {name: held.get(name) for name in acknowledged} == acknowledged
        for name in list(acknowledged)[-5:]:
            events = client.get(f"/v1/resources/sites/{name}/revisions").json()["items"]
            assert [event["revision"] for event in events] == [acknowledged[name]]
        plans_are_published(client, set(held))


def write(process: Any, make: Make, prefix: str, acknowledged: dict[str, str], done: threading.Event) -> None:
    """Apply one site after another until the process is gone; note what was answered."""
    with process.client() as client:
        for number in range(10_000):
            name = f"{prefix}-{number}"
            try:
                answer = client.post("/v1/apply", json={"manifests": [make.site(name)]})
            except httpx.HTTPError:
                return
            if done.is_set() or answer.status_code != 200:
                return
            acknowledged[name] = answer.json()["results"][0]["revision"]


def plans_are_published(client: httpx.Client, sites: set[str]) -> None:
    """Every site that is there gets its plan, whatever publication the kill had cut short."""
    deadline = time.monotonic() + 60
    missing = sites
    while missing and time.monotonic() < deadline:
        missing = {
            site
            for site in missing
            if client.get(f"/repository/plans/{site}/metadata/timestamp.json").status_code != 200
        }
        time.sleep(0.1)
    assert not missing
