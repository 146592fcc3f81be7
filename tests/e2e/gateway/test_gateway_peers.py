"""Three real gateways with mutual TLS: spilling, failing over, who may call whom, emulated distance."""

import concurrent.futures
import http.client
import json
import socket
import ssl
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from nearcast.gateway.render import render
from nearcast.resources import wire
from nearcast.resources.plan import ResidencyRule

DELAY_S = 0.08
FELT_S = 0.8 * DELAY_S  # timers count from the clock that the event loop read last, so they may fire early


@pytest.fixture(scope="module")
def sites(fleet):
    """fra asks iad, then sin; iad delays what comes from fra."""
    fra, iad, sin = fleet.site("fra"), fleet.site("iad"), fleet.site("sin")
    for site in (fra, iad, sin):
        site.add("m1")
        site.add("m3")
    iad.add("m2")
    sin.add("closed")
    rules = (ResidencyRule(policy="at-home", models=("closed",), origin_sites=("fra",), allow_sites=("fra",)),)
    iad.run(iad.inputs({"m1": [(100, "iad")]}, callers=("fra", "sin"), emulated={"fra": DELAY_S}, rules=rules))
    sin.run(sin.inputs({"m1": [(100, "sin")]}, callers=("fra",), rules=rules))
    fra.run(
        fra.inputs(
            {
                "m1": [(100, "fra>iad>sin")],
                "m2": [(100, "iad")],
                "m3": [(100, "sin>iad>fra")],
                "ghost": [(100, "iad>sin")],
                "closed": [(100, "sin")],
            },
            longest_ms={"m1": ((20, 80),)},
            peers=(iad, sin),
            callers=("iad",),
            rules=rules,
        )
    )
    return {"fra": fra, "iad": iad, "sin": sin}


@pytest.fixture
def modes(sites):
    """Set modes of engines of m1; they are "ok" again afterwards."""
    engines = {name: site.engines["m1", "1"] for name, site in sites.items()}

    def set_modes(**wanted: str) -> None:
        for name, mode in wanted.items():
            engines[name].mode = mode

    yield set_modes
    for engine in engines.values():
        engine.mode = "ok"


def infer(fleet, sites, model="m1", origin="fra", body=None):
    return fleet.ask(sites[origin].public, f"/v2/models/{model}/infer", body or {})


def many(fleet, sites, count, at_once=16, **options):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda _: infer(fleet, sites, **options), range(count)))


def test_local_while_it_has_room(fleet, sites):
    answer = infer(fleet, sites)
    assert (answer.headers["x-nearcast-site"], answer.headers["x-nearcast-reason"]) == ("fra", "local;attempt=1")


def test_each_place_hears_how_long_a_request_may_wait_and_clients_cannot_say_it(fleet, sites, modes):
    modes(fra="full")
    fleet.ask(sites["fra"].public, "/v2/models/m1/infer", {}, headers={"x-nearcast-longest-wait": "fra=9999"})
    heard = [sites[name].engines["m1", "1"].seen[-1].headers["x-nearcast-longest-wait"] for name in ("fra", "iad")]
    assert heard == ["fra=20,iad=80;3"] * 2


def test_where_the_last_places_are_dead_the_first_takes_what_would_wait_too_long(fleet, sites, modes):
    modes(fra="late", iad="late", sin="broken")
    answer = infer(fleet, sites)
    assert (answer.status, answer.headers["x-nearcast-site"]) == (200, "fra")
    assert answer.headers["x-nearcast-reason"].endswith(";attempt=4")
    heard = {
        name: [seen.headers["x-envoy-attempt-count"] for seen in site.engines["m1", "1"].seen[-2:]]
        for name, site in sites.items()
    }
    assert heard["fra"] == ["1", "4"]
    assert heard["iad"][-1] == "2", "peers pass it on"


def test_a_full_place_spills_and_is_not_ejected(fleet, sites, modes):
    modes(fra="full")
    answers = many(fleet, sites, 32)
    assert {(a.status, a.headers["x-nearcast-site"], a.headers["x-nearcast-reason"]) for a in answers} == {
        (200, "iad", "spill;attempt=2")
    }
    modes(iad="full")
    assert {a.headers["x-nearcast-site"] for a in many(fleet, sites, 16)} == {"sin"}
    modes(fra="ok")
    assert infer(fleet, sites).headers["x-nearcast-site"] == "fra"
    assert sites["fra"].ejections() == {}
    assert sites["iad"].ejections() == {}


def test_a_crowd_spills_as_well_as_a_few(fleet, sites, modes):
    """More retries in flight at once (each takes the emulated round trip) than Envoy's usual bounds."""
    modes(fra="full")
    answers = many(fleet, sites, 300, at_once=150)
    assert {(a.status, a.headers["x-nearcast-site"]) for a in answers} == {(200, "iad")}


def test_all_full_is_the_last_places_own_answer(fleet, sites, modes):
    modes(fra="full", iad="full", sin="full")
    answer = infer(fleet, sites)
    assert (answer.status, answer.headers[wire.FULL], answer.headers["retry-after"]) == (503, "queue", "1")


def test_where_the_first_is_broken_and_all_others_are_full_the_client_hears_that_they_are_full(fleet, sites):
    for name, mode in (("sin", "broken"), ("iad", "full"), ("fra", "full")):
        sites[name].engines["m3", "1"].mode = mode
    answer = infer(fleet, sites, model="m3")
    assert (answer.status, answer.headers.get(wire.FULL), answer.headers["x-nearcast-site"]) == (503, "queue", "fra")
    assert answer.headers["x-nearcast-reason"].endswith(";attempt=5")


def test_a_large_body_spills_too(fleet, sites, modes):
    modes(fra="full")
    body = b"x" * 3_000_000
    answer = infer(fleet, sites, body=body)
    assert (answer.status, answer.headers["x-nearcast-site"], answer.json["bytes"]) == (200, "iad", len(body))
    assert sites["iad"].engines["m1", "1"].seen[-1].body == body


def test_a_nearest_place_elsewhere_says_so(fleet, sites):
    answer = infer(fleet, sites, "m2")
    assert (answer.status, answer.headers["x-nearcast-site"]) == (200, "iad")
    assert answer.headers["x-nearcast-reason"] == "nearest;attempt=1"
    assert "x-nearcast-via" not in answer.headers
    seen = sites["iad"].engines["m2", "1"].seen[-1]
    assert seen.headers["x-nearcast-model"] == "m2"


def test_a_killed_engine_costs_no_request(fleet, sites):
    engine = sites["fra"].engines["m1", "1"]
    engine.stop()
    answers = many(fleet, sites, 40)
    engine.start()
    assert {(a.status, a.headers["x-nearcast-site"]) for a in answers} == {(200, "iad")}


def test_an_engine_that_dies_while_it_computes_costs_no_request(fleet, sites, modes):
    modes(fra="dying")
    assert {a.status for a in many(fleet, sites, 20)} == {200}


def test_a_broken_engine_is_ejected(fleet, sites, modes):
    sites["fra"].wait_healthy()
    before = sites["fra"].ejections().get("engine:m1@1", 0)
    modes(fra="broken")
    answers = many(fleet, sites, 24)
    assert {a.status for a in answers} == {200}
    assert sites["fra"].ejections().get("engine:m1@1", 0) == before + 1
    # From then on it is skipped inside the first attempt.
    assert infer(fleet, sites).headers["x-nearcast-reason"] == "spill;attempt=1"


def test_a_broken_engine_of_a_peer_does_not_cost_the_peers_other_models(fleet, sites, modes):
    sites["fra"].engines["m1", "1"].mode = "full"
    for mode in ("broken", "failing"):
        modes(iad=mode)
        many(fleet, sites, 24)
    sites["iad"].engines["m1", "1"].stop()
    assert {(a.status, a.headers["x-nearcast-site"]) for a in many(fleet, sites, 24)} == {(200, "sin")}
    sites["iad"].engines["m1", "1"].start()
    assert "site:iad" not in sites["fra"].ejections()
    assert infer(fleet, sites, "m2").status == 200


def test_a_peer_without_the_model_says_so_and_the_next_one_is_asked(fleet, sites):
    answer = infer(fleet, sites, "ghost")
    assert (answer.status, answer.headers["x-nearcast-error"]) == (503, "no_place_ready")
    assert answer.headers[wire.FULL] == "no-model"
    assert "ghost" in answer.json["error"]
    assert "site:iad" not in sites["fra"].ejections()


def test_the_peer_refuses_by_policy_even_when_the_origin_does_not(fleet, sites):
    """An origin with a forged or stale plan routes to `sin`, whose own gateway holds the rule."""
    fra = sites["fra"]
    honest = fra.inputs(
        {"m1": [(100, "fra>iad>sin")], "m2": [(100, "iad")], "ghost": [(100, "iad>sin")], "closed": [(100, "sin")]},
        peers=(sites["iad"], sites["sin"]),
        callers=("iad",),
    )
    before = len(sites["sin"].engines["closed", "1"].seen)
    fra.gateway.apply(render(honest))  # without the rule
    answer = infer(fleet, sites, "closed")
    assert (answer.status, answer.headers["x-nearcast-error"]) == (403, "caller_not_permitted")
    assert len(sites["sin"].engines["closed", "1"].seen) == before


# --- the peer listener itself ----------------------------------------------------------------------------------------


def connect(site, identity, tmp_path, *, with_certificate=True):
    context = ssl.create_default_context(cadata=identity.authority_pem)
    context.check_hostname = False
    if with_certificate:
        pem = tmp_path / "id.pem"
        pem.write_text(identity.certificate_pem + identity.key_pem)
        context.load_cert_chain(pem)
    return http.client.HTTPSConnection("127.0.0.1", site.peer_port, context=context, timeout=10)


def call(fleet, site, identity, tmp_path, path, model=None):
    headers = {wire.MODEL: model} if model else {}
    return fleet.exchange(connect(site, identity, tmp_path), path, headers=headers)


def test_no_certificate_is_no_connection(fleet, sites, tmp_path):
    connection = connect(sites["iad"], sites["fra"].identity, tmp_path, with_certificate=False)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fleet.exchange(connection, "/-/load")


def test_a_certificate_of_another_authority_is_no_connection(fleet, sites, tmp_path):
    from dataclasses import replace

    stranger = type(fleet.authority)().identity("fra")
    mixed = replace(stranger, authority_pem=sites["fra"].identity.authority_pem)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fleet.exchange(connect(sites["iad"], mixed, tmp_path), "/-/load")


def test_who_may_call_is_decided_by_the_certificate(fleet, sites, tmp_path):
    sin, iad = sites["sin"], sites["iad"]
    assert call(fleet, sin, sites["fra"].identity, tmp_path, "/v2/models/m1", "m1").status == 200
    for path, model in [("/v2/models/m1", "m1"), ("/-/load", None), ("/v2/models/x", "x")]:
        answer = call(fleet, sin, iad.identity, tmp_path, path, model)  # iad is no caller of sin
        assert (answer.status, answer.headers["x-nearcast-error"]) == (403, "caller_not_permitted")
    # A site whose name begins like a permitted one is another site.
    longer = fleet.authority.identity("fra2")
    assert call(fleet, sin, longer, tmp_path, "/-/load").status == 403


def test_a_revoked_node_is_refused_and_its_neighbour_is_not(fleet, sites, tmp_path):
    """On a connection that stands, each request; a new one is closed before it may ask."""
    sin = sites["sin"]
    revoked = "spiffe://fleet.test/site/fra/node/lost"
    inputs = sin.inputs({"m1": [(100, "sin")]}, callers=("fra",), revoked=(revoked,))
    lost = fleet.authority.identity("fra", "lost")
    standing = connect(sin, lost, tmp_path)
    sin.gateway.apply(render(sin.inputs({"m1": [(100, "sin")]}, callers=("fra",))))
    headers = {wire.MODEL: "m1"}
    assert fleet.exchange(standing, "/v2/models/m1", headers=headers, close=False).status == 200
    sin.gateway.apply(render(inputs))
    refused = fleet.exchange(standing, "/v2/models/m1", headers=headers)
    assert (refused.status, refused.headers["x-nearcast-error"]) == (403, "caller_not_permitted")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        call(fleet, sin, lost, tmp_path, "/v2/models/m1", "m1")
    assert call(fleet, sin, sites["fra"].identity, tmp_path, "/v2/models/m1", "m1").status == 200


# --- probes and emulated distance ------------------------------------------------------------------------------------


def timed(call):
    begun = time.monotonic()
    return call(), time.monotonic() - begun


def test_probes_reach_the_load_reports(sites):
    fra = sites["fra"]
    assert fra.probe("/-/load").json == {"by": "status", "path": "/-/load", "bytes": 0}
    assert fra.probe("/-/peers/sin/load").json["path"] == "/-/load"
    assert fra.probe("/-/peers/nowhere/load").status == 404
    assert sites["sin"].status.seen


def test_emulated_round_trips_hold_for_probes_and_for_that_caller_only(fleet, sites, tmp_path):
    answer, took = timed(lambda: sites["fra"].probe("/-/peers/iad/load"))
    assert answer.status == 200
    assert took >= FELT_S
    # Two more callers, without a delay: their requests must not wait for the fault filter of fra.
    stats = sites["iad"].gateway.stats(r"^http\.peer\.fault\.delays_injected$")
    call(fleet, sites["iad"], sites["sin"].identity, tmp_path, "/-/load")
    assert sites["iad"].gateway.stats(r"^http\.peer\.fault\.delays_injected$") == stats


def test_emulated_round_trips_hold_for_other_nodes_of_the_site(fleet, sites, tmp_path):
    other = fleet.authority.identity("fra", "n2")
    _, took = timed(lambda: call(fleet, sites["iad"], other, tmp_path, "/-/load"))
    assert took >= FELT_S


def test_a_stream_begins_late_and_then_comes_chunk_by_chunk(sites, modes):
    engine = sites["iad"].engines["m2", "1"]
    engine.mode = "lockstep"
    connection = http.client.HTTPConnection("127.0.0.1", sites["fra"].public, timeout=10)
    begun = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps({"model": "m2"}))
    response = connection.getresponse()
    chunks = []
    for _ in range(4):
        chunks.append(response.read(5))
        if len(chunks) == 1:
            late = time.monotonic() - begun
        engine.go_on()  # the engine sends the next chunk only after this one has come through
    assert response.read() == b""
    connection.close()
    engine.mode = "ok"
    assert chunks == [b"chunk"] * 4
    assert late >= FELT_S


def test_emulated_distance_can_change_while_running(fleet, sites):
    iad = sites["iad"]
    iad.gateway.apply(render(iad.inputs({"m1": [(100, "iad")]}, callers=("fra", "sin"), emulated={"fra": 2 * DELAY_S})))
    sites["fra"].gateway.apply(render(sites["fra"].inputs({"m1": [(100, "iad")]}, peers=(iad,))))
    iad.wait_healthy()  # its engine was broken in tests before this one
    answer, took = timed(lambda: infer(fleet, sites))
    assert (answer.status, answer.headers["x-nearcast-site"]) == (200, "iad")
    assert took >= 2 * FELT_S


def test_a_new_identity_is_taken_up_without_a_restart(fleet, sites):
    iad = sites["iad"]
    pid = iad.gateway.pid()
    renewed = fleet.authority.identity("iad")
    assert iad.gateway.install_identity(renewed) is True
    expected = ssl.PEM_cert_to_DER_cert(renewed.certificate_pem)
    fleet.until(lambda: shown_certificate(iad) == expected, "the new certificate is shown")
    assert iad.gateway.pid() == pid
    assert sites["fra"].probe("/-/peers/iad/load").status == 200


def shown_certificate(site):
    """What the peer listener shows to whoever connects; it shows it before it asks who that is."""
    with socket.create_connection(("127.0.0.1", site.peer_port), timeout=10) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain) as connection:
            return connection.getpeercert(binary_form=True)


def test_shares_are_roughly_kept(fleet, sites):
    fra = sites["fra"]
    inputs = fra.inputs({"m1": [(70, "fra>sin"), (30, "sin>fra")]}, peers=(sites["sin"],))
    fra.gateway.apply(render(inputs))
    fra.wait_healthy()
    answers = many(fleet, sites, 300)
    local = sum(a.headers["x-nearcast-site"] == "fra" for a in answers)
    assert {a.status for a in answers} == {200}
    assert 160 <= local <= 255  # 210 expected; six standard deviations
    reasons = {a.headers["x-nearcast-reason"] for a in answers}
    assert reasons == {"local;attempt=1", "balance;attempt=1"}


def test_a_peer_that_is_stopped_sends_requests_elsewhere_and_finishes_what_it_has(own_fleet) -> None:
    """A steady load through `fra`, which has no engine; `iad`, the nearest place, is stopped in the middle of it."""
    fra, iad, sin = (own_fleet.site(name) for name in ("fra", "iad", "sin"))
    engine, _ = iad.add("m1"), sin.add("m1")
    shares = {"m1": [(100, "fra")]}
    iad_inputs = iad.inputs(shares, callers=("fra",))
    iad.run(iad_inputs)
    sin.run(sin.inputs(shares, callers=("fra",)))
    fra.run(fra.inputs({"m1": [(100, "iad>sin")]}, peers=(iad, sin)))
    assert infer(own_fleet, {"fra": fra}).headers["x-nearcast-site"] == "iad"
    slow: list[Any] = []
    engine.mode = "lockstep"
    waiting = threading.Thread(target=lambda: slow.append(infer(own_fleet, {"fra": fra})))
    waiting.start()
    own_fleet.until(lambda: len(engine.seen) == 2, "a request is in flight at iad")
    iad.gateway.turn_away(render(replace(iad_inputs, leaving=True)), 0.0)
    turned = [infer(own_fleet, {"fra": fra}) for _ in range(20)]
    assert {(a.status, a.headers["x-nearcast-site"]) for a in turned} == {(200, "sin")}
    assert {a.headers["x-nearcast-reason"] for a in turned} == {"nearest;attempt=2"}  # told, and not ejected
    assert fra.probe("/-/peers/iad/load").status == 503
    for _ in range(4):
        engine.go_on()
    waiting.join(10)
    assert [(a.status, a.headers["x-nearcast-site"]) for a in slow] == [(200, "iad")]
    assert "site:iad" not in fra.ejections()
    iad.gateway.drain_and_stop(timeout_s=2.0)
    assert {a.status for a in [infer(own_fleet, {"fra": fra}) for _ in range(20)]} == {200}
