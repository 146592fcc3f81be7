"""The public listener with TLS: both HTTP versions, the versions of TLS, and a certificate that changes under way."""

import http.client
import ssl
from dataclasses import replace

import httpx
import pytest

from nearcast.gateway.render import PublicCertificate, render

LOCAL = {"m1": [(100, "fra")]}


def certificate(fleet):
    """Names do not matter here: clients of these tests look at who signed it, and which one it is."""
    identity = fleet.authority.identity("fra")
    return PublicCertificate(identity.certificate_pem, identity.key_pem)


@pytest.fixture(scope="module")
def site(fleet):
    site = fleet.site("fra")
    site.add("m1")
    site.gateway.install_public(certificate(fleet))
    inputs = site.inputs(LOCAL)
    site.run(replace(inputs, listen=replace(inputs.listen, public_tls=True)))
    return site


def trusting(fleet) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=fleet.authority.identity("fra").authority_pem)
    context.check_hostname = False
    return context


def shown(connection: http.client.HTTPSConnection) -> bytes:
    der = connection.sock.getpeercert(binary_form=True)
    assert der is not None
    return der


def connected(fleet, site) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection("127.0.0.1", site.public, timeout=20, context=trusting(fleet))
    connection.connect()
    return connection


def test_requests_and_answers_are_the_same_over_tls(fleet, site):
    answer = fleet.exchange(connected(fleet, site), "/v1/embeddings", {"model": "m1"})
    assert (answer.status, answer.headers["x-nearcast-site"]) == (200, "fra")
    assert fleet.exchange(connected(fleet, site), "/v1/embeddings", {"model": "x"}).status == 404


def test_http_2_and_http_1_are_offered(fleet, site):
    for protocols, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
        context = trusting(fleet)
        context.set_alpn_protocols(protocols)
        connection = http.client.HTTPSConnection("127.0.0.1", site.public, timeout=20, context=context)
        connection.connect()
        assert connection.sock.selected_alpn_protocol() == chosen
        connection.close()
    pytest.importorskip("h2", reason="needs the package h2 to speak HTTP/2")
    with httpx.Client(http2=True, verify=trusting(fleet), timeout=20) as client:
        answer = client.post(f"https://127.0.0.1:{site.public}/v1/embeddings", json={"model": "m1"})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


@pytest.mark.parametrize(
    ("version", "taken"),
    [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_2_and_1_3_are_taken_and_nothing_older(fleet, site, version, taken):
    context = trusting(fleet)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    connection = http.client.HTTPSConnection("127.0.0.1", site.public, timeout=20, context=context)
    if taken:
        connection.connect()
        connection.close()
    else:
        with pytest.raises(ssl.SSLError):
            connection.connect()


def test_a_new_certificate_is_shown_to_new_connections_and_drops_none(fleet, site):
    pid, standing = site.gateway.pid(), connected(fleet, site)
    before = shown(standing)
    renewed = certificate(fleet)
    assert site.gateway.install_public(renewed) is True
    assert site.gateway.install_public(renewed) is False
    expected = ssl.PEM_cert_to_DER_cert(renewed.certificate_pem)

    def is_shown() -> bool:
        connection = connected(fleet, site)
        der = shown(connection)
        connection.close()
        return der == expected

    fleet.until(is_shown, "the new certificate is shown")
    answer = fleet.exchange(standing, "/v1/embeddings", {"model": "m1"}, close=False)
    assert (answer.status, shown(standing)) == (200, before), "the connection of before goes on"
    standing.close()
    assert site.gateway.pid() == pid
    key = site.root / "envoy" / "sds_public.json"
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_client_without_tls_gets_no_answer(fleet, site):
    with pytest.raises((http.client.HTTPException, OSError)):
        fleet.ask(site.public, "/healthz")


def test_the_listener_changes_between_plain_and_tls_without_another_process(own_fleet):
    site = own_fleet.site("fra")
    site.add("m1")
    inputs = site.inputs(LOCAL)
    site.run(inputs)
    pid = site.gateway.pid()
    assert own_fleet.ask(site.public, "/v1/embeddings", {"model": "m1"}).status == 200
    site.gateway.install_public(certificate(own_fleet))
    site.gateway.apply(render(replace(inputs, listen=replace(inputs.listen, public_tls=True))))
    assert own_fleet.exchange(connected(own_fleet, site), "/v1/embeddings", {"model": "m1"}).status == 200
    assert site.gateway.pid() == pid
