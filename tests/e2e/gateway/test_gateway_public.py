"""The public listener of a real Envoy, in front of fake engines: what clients see."""

import json
import socket

import pytest

from nearcast.resources import wire

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(fleet):
    from nearcast.resources.plan import ResidencyRule

    site = fleet.site("fra")
    site.add("m1")
    site.add("closed")
    many = tuple(f"a-model-with-a-rather-long-name-{number}" for number in range(100))
    site.run(
        site.inputs(
            {"m1": [(100, "fra")], "closed": [(100, "fra")]},
            catalog=("absent", *many),
            rules=(ResidencyRule(policy="us-only", models=("closed",), allow_countries=("US",)),),
        )
    )
    return site


@pytest.fixture
def get(fleet, site):
    return lambda path, body=None, **options: fleet.ask(site.public, path, body, **options)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/nope/infer", {}),
        ("/v2/models/nope", None),
        ("/v2/models/nope/versions/1/infer", {}),
        ("/v2/models/b%C3%A4r/infer", {}),
    ],
)
def test_an_unknown_model_in_an_oip_path_is_404_in_the_shape_of_oip(get, path, body):
    answer = get(path, body)
    assert (answer.status, answer.headers["x-nearcast-error"]) == (404, "model_not_found")
    assert list(answer.json) == ["error", "request_id"]
    assert isinstance(answer.json["error"], str)
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "nope", "input": "x"}),
        ("/v1/chat/completions", {"messages": [], "model": 'say "hi"\n'}),
        ("/m/nope/v1/embeddings", {"model": "nope"}),
        ("/v1/models/nope", None),
    ],
)
def test_an_unknown_model_is_404_in_the_shape_of_openai(get, path, body):
    answer = get(path, body)
    assert (answer.status, answer.headers["x-nearcast-error"]) == (404, "model_not_found")
    error = answer.json["error"]
    assert (error["code"], error["type"], error["param"]) == ("model_not_found", "not_found_error", None)
    assert error["message"]


def test_the_unknown_model_is_named(get):
    assert "nope" in get("/v1/embeddings", {"model": "nope"}).json["error"]["message"]
    assert "nope" in get("/v2/models/nope").json["error"]


def test_an_unknown_path_is_404_with_another_code(get):
    answer = get("/v3/anything?x=1")
    assert (answer.status, answer.headers["x-nearcast-error"]) == (404, "not_found")
    assert answer.json["error"] == "no such path: /v3/anything"
    assert get("/-/load").status == 404


def test_a_model_without_an_allowed_place_is_403_naming_the_policy(get, site):
    for path, body in [("/v2/models/closed/infer", {}), ("/v1/embeddings", {"model": "closed"})]:
        answer = get(path, body)
        assert (answer.status, answer.headers["x-nearcast-error"]) == (403, "residency_refused")
        assert "us-only" in answer.body.decode()
    assert site.engines["closed", "1"].seen == []


def test_a_model_without_a_ready_place_is_503_with_a_time_to_retry(get):
    for path, body in [("/v2/models/absent/infer", {}), ("/v1/embeddings", {"model": "absent"})]:
        answer = get(path, body)
        assert (answer.status, answer.headers["x-nearcast-error"]) == (503, "no_place_ready")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model": 1}',
        b'{"model": "m1", "model": "m1"}',
        b'{"a": {"model": "m1"}}',
        b'{"model": "m1',
    ],
)
def test_a_body_that_does_not_say_its_model_is_400(get, body):
    answer = get("/v1/embeddings", body)
    assert (answer.status, answer.headers["x-nearcast-error"]) == (400, "model_required")
    assert answer.json["error"]["code"] == "model_required"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m1"}',
        b' {"a":{"model":"x"},"b":["model"],"mod\\u0065l" : "m\\u0031" } ',
        json.dumps({"input": '"model": "x" \\' * 20_000, "model": "m1"}).encode(),
        json.dumps({"model": "m1", "input": '"model": "x" \\' * 20_000}).encode(),
        json.dumps({"a": list(range(9000)), "model": "m1", "b": [{"model": "x"}] * 900}).encode(),
    ],
)
def test_the_model_is_read_out_of_the_body(get, site, body):
    answer = get("/v1/embeddings", body)
    assert answer.status == 200
    request = site.engines["m1", "1"].seen[-1]
    assert (request.headers["x-nearcast-model"], request.body) == ("m1", body)


def test_a_body_names_its_model_whatever_the_method_and_without_one_it_is_no_path(get, site):
    assert get("/v1/embeddings", {"model": "m1"}, method="PUT").status == 200
    assert site.engines["m1", "1"].seen[-1].headers["x-nearcast-model"] == "m1"
    answer = get("/v1/embeddings", method="DELETE")
    assert (answer.status, answer.headers["x-nearcast-error"]) == (404, "not_found")


def test_a_base_url_names_the_model(get, site):
    assert get("/m/m1/v1/embeddings?x=1", b"anything").status == 200
    request = site.engines["m1", "1"].seen[-1]
    assert (request.path, request.headers["x-nearcast-model"]) == ("/v1/embeddings?x=1", "m1")
    assert get("/m/m1/v1/models").json["object"] == "list"


def test_answers_say_who_and_why(get):
    answer = get("/v2/models/m1/infer", {}, headers={"x-request-id": "r-1"})
    assert answer.headers["x-nearcast-site"] == "fra"
    assert answer.headers["x-nearcast-reason"] == "local;attempt=1"
    assert answer.headers["x-nearcast-model"] == "m1@1"
    timings = {part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")}
    assert timings == {"queue", "compute", "gateway", "upstream"}
    assert not {name for name in answer.headers if name.startswith("x-envoy") or name == "endpoint-load-metrics"}


def test_what_clients_may_not_set_does_not_reach_engines(get, site):
    smuggled = {
        "x-nearcast-model": "closed",
        "x-nearcast-site": "fra",
        "X-Nearcast-Error": "model_required",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-max-retries": "100",
        "x-envoy-attempt-count": "9",
        "x-forwarded-client-cert": "URI=spiffe://fleet.test/site/iad/node/n1",
        "x-request-id": "kept",
    }
    assert get("/v2/models/m1/infer", {}, headers=smuggled).status == 200
    headers = site.engines["m1", "1"].seen[-1].headers
    assert headers["x-nearcast-model"] == "m1"
    assert headers["x-request-id"] == "kept"
    assert {name for name in headers if name.startswith("x-envoy")} <= {"x-envoy-external-address", wire.ATTEMPT}
    assert headers[wire.ATTEMPT] == "1"
    assert not {"x-nearcast-site", "x-nearcast-error", "x-forwarded-client-cert"} & set(headers)
    assert get("/v3", headers=smuggled).headers["x-nearcast-error"] == "not_found"


def test_discovery(get):
    listing = get("/v1/models").json
    assert listing["object"] == "list"
    names = [model["id"] for model in listing["data"]]
    assert {"m1", "absent"} <= set(names)
    assert "closed" not in names
    assert len(names) == 102
    assert get("/v1/models/m1").json == listing["data"][names.index("m1")]
    assert get("/v1/models/closed").status == 403
    assert get("/v2").json["name"] == "nearcast"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/health",
        "/healthz",
        "/livez",
        "/readyz",
        "/liveness",
        "/readiness",
        "/health/liveliness",
        "/health/readiness",
    ],
)
def test_health_in_the_usual_spellings(get, path):
    assert get(path).status == 200
    assert get(path, method="HEAD").status == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v2/models/m1%2Finfer", {}, 400),
        ("/v2/models/m1%00/infer", {}, 400),
        ("/v2/models/m1/infer#x", {}, 400),
        ("/v2/models/m1/infer", {"connection": "upgrade", "upgrade": "websocket"}, 403),
    ],
)
def test_what_is_not_accepted_is_called_so_and_why(get, path, headers, status):
    answer = get(path, headers=headers)
    assert (answer.status, answer.headers["x-nearcast-error"]) == (status, "bad_request")
    assert answer.json["error"].startswith("the request was not accepted: ")
    assert "_" in answer.json["error"], "a word of Envoy that says why"


def test_http_1_0_is_understood(site):
    with socket.create_connection(("127.0.0.1", site.public), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.0 200"), answer


@pytest.mark.parametrize("path", ["/v2/models/m1/infer", "/v1/embeddings"])
def test_a_body_over_the_limit_is_413(get, path):
    answer = get(path, b"", method="POST", headers={"content-length": str(65 * MIB)})
    assert (answer.status, answer.headers["x-nearcast-error"]) == (413, "body_too_large")
    assert answer.json["error"]


def test_an_engine_that_is_gone_is_503_and_back_at_once_when_it_returns(get, site):
    engine = site.engines["m1", "1"]
    engine.stop()
    answer = get("/v2/models/m1/infer", {})
    engine.start()
    assert (answer.status, answer.headers["x-nearcast-error"]) == (503, "no_place_ready")
    assert get("/v2/models/m1/infer", {}).status == 200
