"""How a local fleet listens: what ``up`` makes of certificate, key and metrics, and what it keeps."""

import datetime
import shlex
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from nearcast.agent.arguments import parse
from nearcast.agent.settings import Address
from nearcast.cli.children import agent_child
from nearcast.cli.fleet import FleetFile, LocalPaths, LocalSite
from nearcast.cli.listen import Listening, listening, metrics_url, trust_in
from nearcast.cli.up import planned_fleet
from nearcast.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from unit.cli.conftest import Run

YEAR = datetime.timedelta(days=365)


def fleet_of(*sites: str) -> FleetFile:
    made = {site: LocalSite(public_port=10 + n, peer_port=20 + n, country="DE") for n, site in enumerate(sites)}
    return FleetFile(control_port=1, sites=made)


def ports(fleet: FleetFile) -> dict[str, int]:
    return {name: site.metrics_port for name, site in fleet.sites.items()}


def pair(folder: Path, *, until: datetime.timedelta = YEAR) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.test")])
    now = datetime.datetime.now(datetime.UTC)
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder(name, name, key.public_key(), number, now - 2 * YEAR, now + until)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "tls.pem", folder / "tls.key"
    files[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def told(**given: object) -> Listening:
    words = {"certificate": None, "key": None, "metrics": None, "no_public_tls": False, "no_metrics": False} | given
    return listening(
        words["certificate"],  # type: ignore[arg-type]
        words["key"],  # type: ignore[arg-type]
        words["metrics"],  # type: ignore[arg-type]
        no_public_tls=bool(words["no_public_tls"]),
        no_metrics=bool(words["no_metrics"]),
    )


# --- what is kept


def test_without_a_word_a_fleet_stays_as_it_is(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    fleet = told(certificate=certificate, key=key, metrics="127.0.0.1:0").over(fleet_of("a", "b"))
    assert fleet.gateway_url("a") == "https://127.0.0.1:10"
    assert Listening().over(fleet) == fleet
    assert planned_fleet(fleet, []) == fleet
    assert planned_fleet(fleet, [], told(metrics="127.0.0.1:0")) == fleet


def test_what_is_taken_back_is_gone(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    fleet = told(certificate=certificate, key=key, metrics="127.0.0.1:0").over(fleet_of("a"))
    assert told(no_public_tls=True, no_metrics=True).over(fleet) == fleet_of("a")


# --- metrics


def test_each_site_serves_its_metrics_on_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearcast.cli.listen.is_free", lambda _port, _host: True)
    fleet = told(metrics="127.0.0.1:9464").over(fleet_of("a"))
    assert ports(fleet) == {"a": 9464}
    grown = msgspec.structs.replace(fleet, sites={"b": fleet_of("b").sites["b"], **fleet.sites})
    assert ports(Listening().over(grown)) == {"a": 9464, "b": 9465}, "who has one keeps it"
    site = LocalSite(public_port=9464, peer_port=9465, country="DE")
    other = FleetFile(control_port=1, sites={"a": site})
    assert ports(told(metrics="127.0.0.1:9464").over(other)) == {"a": 9466}, "none that the fleet has otherwise"


def test_a_port_that_another_program_has_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(Conflict, match=rf"127\.0\.0\.1:{port}, where a should serve"):
            told(metrics=f"127.0.0.1:{port}").over(fleet_of("a"))


def test_free_ports_are_chosen_once() -> None:
    fleet = told(metrics="127.0.0.1:0").over(fleet_of("a", "b"))
    assert len({*ports(fleet).values(), 0}) == 3
    assert told(metrics="127.0.0.1:0").over(fleet) == fleet


def test_the_last_ports_may_be_too_few() -> None:
    with pytest.raises(InvalidInput, match="leaves one for each site"):
        told(metrics="127.0.0.1:65535").over(fleet_of("a", "b"))


@pytest.mark.parametrize(
    ("given", "url"),
    [("0.0.0.0:0", "http://127.0.0.1:{}/metrics"), ("[::1]:0", "http://[::1]:{}/metrics"), (None, None)],
)
def test_where_somebody_on_this_machine_finds_them(given: str | None, url: str | None) -> None:
    fleet = told(metrics=given).over(fleet_of("a"))
    assert metrics_url(fleet, "a") == (url and url.format(ports(fleet)["a"]))


# --- what the agents are told


def test_the_agent_understands_what_it_is_told(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path / "with space")
    fleet = told(certificate=certificate, key=key, metrics="127.0.0.1:0").over(fleet_of("a"))
    paths = LocalPaths(tmp_path)
    paths.site("a").mkdir(parents=True)
    paths.join_token("a").write_text("t")
    child = agent_child(paths, fleet, "a")
    settings = parse(child.command[3:])
    assert settings.public_tls == (certificate, key)
    assert settings.metrics == Address("127.0.0.1", ports(fleet)["a"])
    assert shlex.split(child.settings) == list(child.command[-6:])
    assert agent_child(paths, fleet_of("a"), "a").settings == ""


# --- how this machine knows its gateways


def test_a_gateway_is_known_by_its_own_certificate_and_by_no_other(tmp_path: Path) -> None:
    """Whatever its names and its dates are; what is shown to clients is theirs to judge."""
    own, other = pair(tmp_path / "own", until=-YEAR), pair(tmp_path / "other")
    fleet = msgspec.structs.replace(fleet_of("a"), public_tls_cert=str(own[0]), public_tls_key=str(own[1]))
    assert trust_in(fleet_of("a")) is None
    assert shake(trust_in(fleet), own)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(trust_in(fleet), other)
    own[0].unlink()
    with pytest.raises(InvalidInput, match="cannot read"):
        trust_in(fleet)


def shake(client: ssl.SSLContext | None, files: tuple[Path, Path]) -> bool:
    """A handshake in memory with a server that shows ``files``."""
    assert client is not None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*files)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname="127.0.0.1"), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version() is not None


# --- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--public-tls-cert", "x.pem"), "together, got one of them"),
        (("--public-tls-cert", "x.pem", "--public-tls-key", "x.key"), "cannot read"),
        (("--public-tls-cert", "x.pem", "--public-tls-key", "x.key", "--no-public-tls"), "got both"),
        (("--metrics", "9464"), "expected HOST:PORT"),
        (("--metrics", "127.0.0.1:9464", "--no-metrics"), "got both"),
    ],
)
def test_up_refuses_what_it_cannot_do_before_it_does_anything(
    words: tuple[str, ...], said: str, run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NEARCAST_CONTROL")
    done = run("up", "--detach", *words)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "data" / "fleet.json").exists()
