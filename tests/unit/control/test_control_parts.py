"""Small parts with one promise each: throttle, bell, settings, statuses that last, limits."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nearcast.control.__main__ import settings_of
from nearcast.control.api.limits import BLOB_BYTES, MANIFESTS_BYTES, OTHERS_BYTES, limit_of
from nearcast.control.authority import load_or_create_authority
from nearcast.control.bell import Bell
from nearcast.control.nodes import lasting
from nearcast.control.settings import Settings
from nearcast.control.throttle import BURST, MAX_ADDRESSES, PER_S, Throttle
from nearcast.errors import InvalidInput
from nearcast.resources.load import LoadReport
from nearcast.resources.status import (
    EngineStatus,
    GatewayStatus,
    ModelDemand,
    ModelProfile,
    ModelStatus,
    NodeCapacity,
    NodeStatus,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_failures_are_forgiven_with_time_and_per_address() -> None:
    throttle = Throttle()
    for _ in range(BURST):
        assert throttle.wait_s("a", 0.0) == 0.0
        throttle.failed("a", 0.0)
    wait_s = throttle.wait_s("a", 0.0)
    assert wait_s == pytest.approx(1 / PER_S)
    assert throttle.wait_s("b", 0.0) == 0.0
    assert throttle.wait_s("a", wait_s + 0.001) == 0.0
    assert throttle.wait_s("a", -100.0) > 0.0  # a clock that went back forgives nothing


def test_the_throttle_does_not_grow_without_bound() -> None:
    throttle = Throttle()
    for number in range(MAX_ADDRESSES + 10):
        throttle.failed(str(number), 0.0)
    assert len(throttle._buckets) == MAX_ADDRESSES


def test_a_bell_is_heard_once_even_when_it_rang_before() -> None:
    async def listen() -> list[bool]:
        bell = Bell()
        bell.ring()
        bell.ring()
        heard = [await bell.wait(5.0), await bell.wait(0.0)]
        task = asyncio.create_task(bell.wait(5.0))
        await asyncio.sleep(0)
        await asyncio.to_thread(bell.ring)
        return [*heard, await task]

    assert asyncio.run(listen()) == [True, False, True]


def test_what_lasts_of_a_status() -> None:
    model = ModelStatus(model="m", version="1", release="", state="fetching", done_bytes=5, total_bytes=9)
    gateway = GatewayStatus(url="http://x", peer_address="x:1", ready=True)
    status = NodeStatus(
        site="fra",
        node="n",
        software="",
        started_at="",
        plan_version=1,
        plan_revision="",
        routed_version=1,
        gateway=gateway,
        engine=EngineStatus(ready=True),
        models=(model,),
        load=LoadReport(rps_fractional=3.0),
        demand={"m": ModelDemand(rate_per_s=3.0)},
        profiles=(ModelProfile(model="m", version="1", service_s=0.01, work_s=0.01),),
        capacity=NodeCapacity(workers=1.0, memory_bytes=1),
    )
    kept = lasting(status)
    assert (kept.demand, kept.profiles, kept.capacity) == ({}, status.profiles, status.capacity)
    assert (kept.load, kept.models[0].done_bytes, kept.models[0].total_bytes) == (None, 0, 9)
    assert (kept.gateway, kept.routed_version) == (gateway, 1)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/apply", MANIFESTS_BYTES),
        ("/v1/resources/sites/fra", MANIFESTS_BYTES),
        ("/v1/blobs/sha256:00", BLOB_BYTES),
        ("/v1/releases", OTHERS_BYTES),
        ("/v1/join", OTHERS_BYTES),
    ],
)
def test_limits(path: str, limit: int) -> None:
    assert limit_of(path) == limit


def test_urls_and_names() -> None:
    settings = Settings(Path("/d"), host="0.0.0.0", advertise=("control.example", "10.0.0.1"))
    assert settings.url(7) == "https://control.example:7"
    assert settings.host_names() == ("control.example", "10.0.0.1", "localhost", "127.0.0.1", "::1")
    assert Settings(Path("/d"), host="0.0.0.0").url(7) == "https://localhost:7"
    assert Settings(Path("/d"), host="::1").url(7) == "https://[::1]:7"


def test_the_command_line_has_the_defaults_of_the_settings() -> None:
    assert settings_of(["--data-dir", "/d"]) == Settings(Path("/d"))
    given = settings_of(["--data-dir", "/d", "--port", "9", "--advertise", "a", "--advertise", "b"])
    assert (given.port, given.advertise) == (9, ("a", "b"))


def test_an_authority_is_made_once_and_refuses_to_be_another(tmp_path: Path) -> None:
    first = load_or_create_authority(tmp_path, "fleet.test", NOW)
    again = load_or_create_authority(tmp_path, "fleet.test", NOW)
    assert (again.pem, again.sha256) == (first.pem, first.sha256)
    with pytest.raises(InvalidInput, match="not that of the fleet"):
        load_or_create_authority(tmp_path, "other.test", NOW)
    (tmp_path / "ca.key").write_bytes((tmp_path / "ca.pem").read_bytes())
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_or_create_authority(tmp_path, "fleet.test", NOW)


def test_a_crash_between_key_and_certificate_strands_nobody(tmp_path: Path) -> None:
    load_or_create_authority(tmp_path, "fleet.test", NOW)
    (tmp_path / "ca.pem").unlink()
    made = load_or_create_authority(tmp_path, "fleet.test", NOW)
    key = load_pem_private_key((tmp_path / "ca.key").read_bytes(), password=None)
    assert key.public_key() == made.certificate.public_key()


def test_the_server_certificate_names_hosts_and_no_node(tmp_path: Path) -> None:
    authority = load_or_create_authority(tmp_path, "fleet.test", NOW)
    _, issued = authority.issue_server(("control.example", "127.0.0.1"), NOW)
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["control.example"]
    assert [str(item) for item in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
