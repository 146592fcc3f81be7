"""``nearcast up`` with TLS for clients and with metrics, on a fleet that runs: taken up, kept, and taken back."""

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from e2e.local_fleet import LocalFleet, resource
from e2e.tiny_models import adder
from nearcast.cli.fleet import LocalPaths

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    """One site, on plain HTTP."""
    sites = tmp_path / "sites.json"
    sites.write_text(json.dumps(resource("Site", "frankfurt", {"country": "DE"})))
    made = LocalFleet(tmp_path / "data")
    try:
        made.run("up", "--detach", "--file", str(sites))
        yield made
    finally:
        made.run("down", check=False)


def certificate(folder: Path) -> tuple[Path, Path]:
    """One that signs itself and names the loopback address, so that any client can check it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(
        built.add_extension(here, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def url(fleet: LocalFleet) -> str:
    return str(fleet.status()["sites"][0]["gateway_url"])


def metrics(fleet: LocalFleet) -> int:
    known = LocalPaths(fleet.data_dir).read_fleet()
    assert known is not None
    return known.sites["frankfurt"].metrics_port


def test_tls_and_metrics_are_taken_up_kept_and_taken_back(
    fleet: LocalFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.push("adder", "1", adder(tmp_path / "adder", 1.0))
    fleet.deploy("adder", "1", "frankfurt")
    plain = url(fleet)
    pem, key = certificate(tmp_path)
    tls = ("--public-tls-cert", str(pem), "--public-tls-key", str(key))
    done = fleet.run("up", "--detach", *tls, "--metrics", "127.0.0.1:0")
    secure, port = plain.replace("http:", "https:"), metrics(fleet)
    assert secure in done.stdout
    assert f"http://127.0.0.1:{port}/metrics" in done.stdout
    for again in (False, True):
        if again:  # all of it anew, without a word
            fleet.run("down")
            fleet.run("up", "--detach")
        assert url(fleet) == secure
        context = httpx.create_ssl_context()
        context.load_verify_locations(pem)
        assert httpx.get(f"{secure}/v1/models", verify=context, timeout=10, trust_env=False).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{plain}/v1/models", timeout=10, trust_env=False)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10, trust_env=False).text
        assert "nearcast_gateway_up" in text
        found = fleet.json("infer", "adder", "--site", "frankfurt", "--input", "x=[[1, 2, 3, 4]]")
        assert found["answer"]["outputs"][0]["data"] == [[2.0, 3.0, 4.0, 5.0]]
    stranger = LocalFleet(tmp_path / "elsewhere")
    asked = ("infer", "adder", "--gateway", secure, "--input", "x=[[1, 2, 3, 4]]")
    assert "SSL_CERT_FILE" in stranger.run(*asked, check=False).stderr
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert "2, 3, 4, 5" in stranger.run(*asked).stdout
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "is running already" in fleet.run("up", "--detach").stderr
    done = fleet.run("up", "--detach", "--no-public-tls", "--no-metrics")
    assert url(fleet) == plain
    assert httpx.get(f"{plain}/v1/models", timeout=10, trust_env=False).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10, trust_env=False)
    said = (fleet.data_dir / "supervisor.log").read_text()
    assert said.count("is told to stop: its settings have changed") == 2
