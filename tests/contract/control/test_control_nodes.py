"""Joining, certificates, reports and revocation: who may become what, and who may see what."""

import base64
import hashlib
import ssl
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nearcast.control.authority import Authority
from nearcast.resources.join import decode_token, encode_token

Fleet = Any
pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)

Make = Any


@pytest.fixture
def sites(fleet: Fleet, make: Make) -> Fleet:
    """A fleet of two sites whose releases were begun."""
    fleet.applied(make.site("fra"), make.site("iad", "US"))
    fleet.start_releases()
    return fleet


def refused(answer: Any, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_a_token_pins_everything_that_joining_delivers(sites: Fleet) -> None:
    node = type(sites.join("fra"))(sites, "fra", "n2")
    text = sites.token("fra")
    token = decode_token(text)
    answer = node.ask(text).json()
    der = ssl.PEM_cert_to_DER_cert(answer["ca_pem"])
    assert hashlib.sha256(der).hexdigest() == token.ca_sha256
    assert hashlib.sha256(base64.b64decode(answer["releases_root"])).hexdigest() == token.releases_root_sha256
    assert hashlib.sha256(base64.b64decode(answer["plans_root"])).hexdigest() == token.plans_root_sha256
    assert (answer["fleet"], answer["site"], answer["node"]) == ("fleet.test", "fra", "n2")
    assert answer["repository_url"] == "https://control.test/repository/"
    trust = sites.call("GET", "/v1/trust", token="").json()
    assert {name: trust[name] for name in ("ca_pem", "releases_root", "plans_root")} == {
        name: answer[name] for name in ("ca_pem", "releases_root", "plans_root")
    }


def test_a_certificate_names_the_node_and_its_site(sites: Fleet) -> None:
    joined = sites.join("fra")
    answer = sites.call(
        "POST", "/v1/nodes/self/certificate", token=joined.credential, json={"csr_pem": joined.csr()}
    ).json()
    certificate = x509.load_pem_x509_certificate(answer["certificate_pem"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://fleet.test/site/fra/node/n1"]
    assert names.get_values_for_type(x509.DNSName) == ["fra.fleet.test"]
    assert certificate.not_valid_after_utc == sites.now + timedelta(days=30)
    assert certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == (
        joined.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(answer["ca_pem"].encode()))


def test_no_token_before_there_is_a_root_to_pin(fleet: Fleet, make: Make) -> None:
    fleet.applied(make.site("fra"))
    refused(fleet.call("POST", "/v1/sites/fra/join-tokens", json={}), 409, "no root of trust yet")
    fleet.start_releases()
    refused(fleet.call("POST", "/v1/sites/nowhere/join-tokens", json={}), 404, "Site/nowhere")
    refused(fleet.call("POST", "/v1/sites/fra/join-tokens", json={"ttl_s": 0}), 400, "ttl_s")
    assert fleet.token("fra", ttl_s=60)


def test_a_token_admits_one_node_and_the_same_again_after_a_lost_answer(sites: Fleet) -> None:
    first = sites.join("fra")
    text = sites.token("fra")
    second = type(first)(sites, "fra", "n2")
    before = second.ask(text).json()["credential"]
    after = second.ask(text).json()["credential"]
    assert before != after
    second.credential = before
    assert second.report().status_code == 401  # only the last answer counts
    second.credential = after
    assert second.report().status_code == 200
    refused(type(first)(sites, "fra", "n3").ask(text), 401, "used already")
    refused(type(first)(sites, "fra", "n2").ask(text), 401, "used already")  # another key under the same name


def test_tokens_end_and_can_be_taken_back(sites: Fleet) -> None:
    first = sites.join("fra")
    other = type(first)(sites, "fra", "n2")
    ended = sites.token("fra", ttl_s=60)
    sites.pass_time(61)
    refused(other.ask(ended), 401, "ended")
    taken = sites.token("fra")
    path = f"/v1/sites/fra/join-tokens/{decode_token(taken).id}"
    refused(sites.call("DELETE", path.replace("fra", "iad")), 404, "no join token")
    assert sites.call("DELETE", path).status_code == 204
    refused(other.ask(taken), 401, "not known here")


def test_a_changed_token_opens_nothing(sites: Fleet) -> None:
    first = sites.join("fra")
    other = type(first)(sites, "iad", "n2")
    token = decode_token(sites.token("fra"))
    for changes, words in (
        ({"site": "iad"}, "changed"),
        ({"secret": "x" * 43}, "not known here"),
        ({"id": "0" * 16}, "not known here"),
        ({"fleet": "other.test"}, "another fleet"),
        ({"ca_sha256": "0" * 64}, "another fleet"),
    ):
        refused(other.ask(encode_token(msgspec.structs.replace(token, **changes))), 401, words)
    refused(other.ask("ncj_x"), 400, "damaged")
    assert ("iad", "n2") not in {(member.site, member.node) for member in sites.plane.members.all()}


def test_only_sound_requests_of_the_right_kind_are_signed(sites: Fleet) -> None:
    joined = sites.join("fra")

    def ask(csr: str) -> Any:
        return sites.call("POST", "/v1/nodes/self/certificate", token=joined.credential, json={"csr_pem": csr})

    other = ec.generate_private_key(ec.SECP384R1())
    wrong = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, hashes.SHA256())
    refused(ask(wrong.public_bytes(Encoding.PEM).decode()), 400, "P-256")
    refused(ask("-----BEGIN CERTIFICATE REQUEST-----"), 400, "PKCS #10")
    der = x509.load_pem_x509_csr(joined.csr().encode()).public_bytes(Encoding.DER)
    forged = base64.encodebytes(der[:-6] + bytes(6)).decode()
    refused(ask(f"-----BEGIN CERTIFICATE REQUEST-----\n{forged}-----END CERTIFICATE REQUEST-----\n"), 400, "sign")
    refused(sites.call("POST", "/v1/nodes/self/certificate", json={"csr_pem": joined.csr()}), 403, "for nodes")


def test_a_name_is_taken_by_its_first_key(sites: Fleet) -> None:
    joined = sites.join("fra")
    other = type(joined)(sites, "fra", "n1")
    refused(other.ask(sites.token("fra")), 409, "joined already, with another key")
    assert joined.ask(sites.token("fra")).status_code == 200  # its own key may join anew
    refused(type(joined)(sites, "fra", "N_1").ask(sites.token("fra")), 400, "expected the name of a node")


def test_a_revoked_node_is_out_and_its_name_stays_closed_until_its_certificate_ends(sites: Fleet) -> None:
    joined = sites.join("fra")
    joined.report()
    assert sites.call("DELETE", "/v1/nodes/fra/n1").status_code == 204
    assert joined.report().status_code == 401
    assert joined.get("/repository/plans/fra/metadata/timestamp.json").status_code == 401
    assert sites.call("GET", "/v1/nodes").json()["items"] == []
    sites.controllers.step()
    assert sites.plane.plans.latest("iad").revoked_nodes == ("spiffe://fleet.test/site/fra/node/n1",)
    refused(joined.ask(sites.token("fra")), 409, "stays closed until")
    sites.restart()
    assert joined.report().status_code == 401
    sites.pass_time(30 * 24 * 3600 + 1)  # its certificate has ended; connections that were made with it may stand
    refused(joined.ask(sites.token("fra")), 409, "stays closed until")
    sites.pass_time(3600)
    again = sites.join("fra")
    sites.controllers.step()
    assert sites.plane.plans.latest("iad").revoked_nodes == ()
    assert again.report().status_code == 200
    refused(sites.call("DELETE", "/v1/nodes/fra/nobody"), 404, "no node")


def test_a_node_reports_for_itself_only(sites: Fleet) -> None:
    joined = sites.join("fra")
    assert joined.report().json() == {"plan_version": 0}
    sites.controllers.step()
    assert joined.report().json() == {"plan_version": sites.plane.plans.latest("fra").version}
    refused(joined.report(site="iad"), 403, "cannot report for iad/n1")
    refused(joined.report(node="n2"), 403, "cannot report for fra/n2")
    refused(joined.report(extra=1), 400, "unknown field `extra`")
    refused(joined.report(plan_version="1"), 400, "plan_version")


def test_what_a_node_says_of_itself_cannot_spoil_the_plans_of_others(sites: Fleet) -> None:
    joined = sites.join("fra")
    gateway = joined.status()["gateway"]
    for odd in ("edge.example:7443", "a:b", "192.0.2.1:99999", "evil host:1"):
        refused(joined.report(gateway={**gateway, "peer_address": odd}), 400, "expected gateway.peer_address")
    assert joined.report(gateway={**gateway, "peer_address": ""}).status_code == 200
    assert joined.report(gateway={**gateway, "peer_address": "[2001:db8::1]:7443"}).status_code == 200


def test_a_node_may_do_nothing_that_is_the_admins(sites: Fleet) -> None:
    joined = sites.join("fra")
    for method, path in (
        ("GET", "/v1/resources/sites"),
        ("PUT", "/v1/resources/sites/fra"),
        ("DELETE", "/v1/resources/sites/iad"),
        ("POST", "/v1/apply"),
        ("GET", "/v1/status"),
        ("GET", "/v1/nodes"),
        ("DELETE", "/v1/nodes/fra/n1"),
        ("POST", "/v1/sites/fra/join-tokens"),
        ("GET", "/v1/releases"),
        ("POST", "/v1/releases"),
        ("PUT", "/v1/blobs/sha256:" + "0" * 64),
        ("GET", "/v1/route/explain?model=m&site=fra"),
    ):
        answer = sites.call(method, path, token=joined.credential, json={} if method in {"PUT", "POST"} else None)
        refused(answer, 403, "needs the admin token")


@pytest.mark.parametrize("token", ["", "x", "nca_wrong", "ncn_wrong", "ncj_wrong"])
def test_every_route_but_the_open_ones_needs_a_credential(fleet: Fleet, token: str) -> None:
    open_routes = {"/healthz", "/readyz", "/version", "/v1/trust", "/v1/join"}
    checked = 0
    for path, operations in fleet.app.openapi()["paths"].items():
        for method in set(operations) & {"get", "put", "post", "delete", "head"}:
            if path in open_routes:
                continue
            url = path.replace("{plural}", "sites").replace("{digest}", "sha256:" + "0" * 64)
            for part in ("name", "site", "node", "token_id", "path"):
                url = url.replace(f"{{{part}}}", "x")
            answer = fleet.call(method.upper(), url, token=token)
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            checked += 1
    assert checked >= 18


def test_guessing_at_the_door_is_slowed_down(sites: Fleet) -> None:
    first = sites.join("fra")
    token = decode_token(sites.token("fra"))
    guess = encode_token(msgspec.structs.replace(token, secret="guess"))
    other = type(first)(sites, "fra", "n2")
    answers = [other.ask(guess).status_code for _ in range(25)]
    assert answers[:20] == [401] * 20
    assert set(answers[20:]) == {503}
    assert int(other.ask(encode_token(token)).headers["retry-after"]) >= 1


def test_reports_make_a_fleet_ready_and_silence_disconnects_it(sites: Fleet) -> None:
    joined = sites.join("fra")
    assert sites.condition("sites", "fra", "Connected") == ("False", "NodesSilent")
    joined.report()
    assert sites.condition("sites", "fra", "Connected") == ("True", "Reporting")
    assert sites.condition("sites", "fra", "GatewayReady") == ("True", "Accepted")
    view = {site["name"]: site for site in sites.call("GET", "/v1/status").json()["sites"]}
    assert (view["fra"]["ready"], view["fra"]["gateway_url"]) == (True, "http://fra.test")
    assert (view["iad"]["ready"], view["iad"]["gateway_url"], view["iad"]["nodes"]) == (False, None, [])
    sites.pass_time(61)
    assert sites.condition("sites", "fra", "Connected") == ("False", "NodesSilent")
    joined.get("/repository/releases/metadata/timestamp.json")  # polling shows life, too
    assert sites.condition("sites", "fra", "Connected") == ("True", "Reporting")
    sites.restart()
    joined.get("/repository/releases/metadata/timestamp.json")
    assert sites.condition("sites", "fra", "GatewayReady") == ("True", "Accepted")  # the last word was written down


def test_what_nodes_say_of_themselves_is_a_condition_of_their_site(sites: Fleet) -> None:
    joined = sites.join("fra")
    trouble = {"type": "Trusted", "status": False, "reason": "BadSignature", "message": "plan 7 is not signed"}
    joined.report(conditions=[trouble])
    assert sites.condition("sites", "fra", "Trusted") == ("False", "BadSignature")


def test_the_time_of_a_condition_is_that_of_its_change(sites: Fleet) -> None:
    def since() -> str:
        document = sites.call("GET", "/v1/resources/sites/fra").json()
        return str(document["status"]["conditions"][0]["lastTransitionTime"])

    joined = sites.join("fra")
    joined.report()
    first = since()
    sites.pass_time(5)
    joined.report()
    sites.restart()
    joined.report()
    assert since() == first
    sites.pass_time(61)
    assert since() > first


def test_a_drain_is_desired_state_and_ends_with_the_node(sites: Fleet) -> None:
    joined = sites.join("fra")
    joined.report()
    path = "/v1/nodes/fra/n1/drain"
    drained = {"type": "Drained", "status": True, "reason": "Empty", "message": ""}

    def phase() -> str:
        (node,) = sites.call("GET", "/v1/nodes").json()["items"]
        return str(node["phase"])

    assert sites.call("PUT", path, json={}).json()["phase"] == "Draining"
    assert sites.call("PUT", path, json={}).status_code == 200, "twice is fine"
    refused(sites.call("DELETE", "/v1/nodes/fra/n1?drained=true"), 409, "still serves")
    joined.report(conditions=[drained])
    assert phase() == "Drained"
    sites.restart()
    assert phase() == "Drained", "it outlives the control plane"
    assert sites.call("DELETE", path).json()["phase"] != "Drained"
    refused(sites.call("PUT", "/v1/nodes/fra/n9/drain", json={}), 404, "there is no node fra/n9")
    assert sites.call("PUT", path, json={}).status_code == 200
    assert sites.call("DELETE", "/v1/nodes/fra/n1?drained=true").status_code == 204
    refused(sites.call("PUT", path, json={}), 404, "there is no node fra/n1")


def test_the_only_place_of_a_model_is_drained_by_force_alone(sites: Fleet, make: Make) -> None:
    only, other = sites.join("fra"), sites.join("iad")
    only.report(models=[make.ready("magika", "1")])
    other.report()
    refused(sites.call("PUT", "/v1/nodes/fra/n1/drain", json={}), 409, "the only place that serves magika")
    other.report(models=[make.ready("magika", "1")])
    assert sites.call("PUT", "/v1/nodes/fra/n1/drain", json={}).status_code == 200
    refused(sites.call("PUT", "/v1/nodes/iad/n1/drain", json={}), 409, "the only place that serves magika")
    assert sites.call("PUT", "/v1/nodes/iad/n1/drain", json={"force": True}).status_code == 200


def test_nothing_is_signed_for_a_wrong_token(sites: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    node = type(sites.join("fra"))(sites, "fra", "n2")
    token = decode_token(sites.token("fra"))
    signed: list[str] = []
    issue = Authority.issue_node
    monkeypatch.setattr(Authority, "issue_node", lambda self, *given: (signed.append(given[2]), issue(self, *given))[1])
    wrong = msgspec.structs.replace(token, secret="x" * 43)
    refused(node.ask(encode_token(wrong)), 401, "not known")
    assert signed == []
    assert node.ask(encode_token(token)).status_code == 200
    assert signed == ["n2"]
