"""What a real node tells of itself: one scrape target with agent, gateway and engine, request ids, the access log."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.utils
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from e2e.agent_node import BODY, AgentNode, Depot, agent_node
from e2e.local_fleet import eventually
from nearcast.agent import metrics as agent_metrics
from nearcast.engine import metrics as engine_metrics
from nearcast.gateway import metrics as gateway_metrics

DOCUMENTED = {
    metric.name: metric for metric in (*agent_metrics.METRICS, *engine_metrics.METRICS, *gateway_metrics.METRICS)
}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentNode, str]]:
    folder = tmp_path_factory.mktemp("telemetry")
    depot = Depot(folder)
    depot.push("adder", "1", 1.0)
    depot.plan("adder@1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with agent_node(folder, depot) as node:
        node.start("--metrics", f"127.0.0.1:{port}", "--access-log", "errors")
        node.ready("adder@1")
        for _ in range(5):
            assert node.ask("adder")[1] == 1.0
        yield node, f"http://127.0.0.1:{port}"


def scrape(url: str, query: str = "") -> str:
    answer = httpx.get(f"{url}/metrics{query}", timeout=10)
    assert answer.status_code == 200
    return answer.text


def value(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for each in families(text)
        for sample in each.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, f"no {name} {labels} in\n{text[:2000]}"
    return sum(found)


def test_what_is_served_is_what_is_documented(scraped):
    _, url = scraped
    served = {each.name: each for each in families(scrape(url))}
    names = {each.name + ("_total" if each.type == "counter" else "") for each in served.values()}
    assert names == set(DOCUMENTED)
    for each in served.values():
        metric = DOCUMENTED[each.name + ("_total" if each.type == "counter" else "")]
        assert each.type == metric.kind, metric.name
        for sample in each.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name


def test_it_is_open_metrics_for_those_who_ask(scraped):
    _, url = scraped
    text = scrape(url, "?format=openmetrics")
    assert text.endswith("# EOF\n")
    assert {each.name for each in openmetrics(text)} == {name.removesuffix("_total") for name in DOCUMENTED}


def test_requests_are_counted_by_model_site_reason_and_code(scraped):
    node, url = scraped
    httpx.post(f"{node.url}/v2/models/only-asked-for/infer", json=BODY)

    def counted() -> bool:
        return value(scrape(url), "nearcast_gateway_requests_total", model="adder", reason="local", code="2xx") >= 5

    eventually(counted, "five answered requests")
    text = scrape(url)
    assert value(text, "nearcast_gateway_answers_total", site="frankfurt", reason="local", code="2xx") >= 5
    # Envoy merges its histograms every five seconds.
    eventually(lambda: "nearcast_gateway_request_seconds_count{" in scrape(url), "durations")
    eventually(
        lambda: value(scrape(url), "nearcast_gateway_request_seconds_count", model="adder") >= 5, "five durations"
    )
    assert value(text, "nearcast_engine_answered_total", model="adder", version="1") >= 5
    assert value(text, "nearcast_gateway_up") == 1
    assert value(text, "nearcast_agent_process_ready", process="engine") == 1
    assert "only-asked-for" not in text, "a name that only a client knows must never become a label"


def test_a_call_that_failed_is_counted_as_such(scraped):
    node, url = scraped
    client = tritongrpc.InferenceServerClient(node.url.removeprefix("http://"))
    wrong = tritongrpc.InferInput("nobody", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
    for _ in range(3):
        with pytest.raises(tritonclient.utils.InferenceServerException, match="INVALID_ARGUMENT"):
            client.infer("adder", [wrong])
    assert client.is_model_ready("adder")
    client.close()

    def counted() -> dict[str, float]:
        found = [sample for each in families(scrape(url)) for sample in each.samples]
        found = [sample for sample in found if sample.name == "nearcast_gateway_requests_total"]
        return {sample.labels["code"]: sample.value for sample in found if sample.labels["model"] == "adder"}

    eventually(lambda: counted().get("4xx") == 3, "three failed calls")


def test_a_name_is_given_to_a_request_and_kept(scraped):
    node, _ = scraped
    url = f"{node.url}/v2/models/adder/infer"
    given = httpx.post(url, json=BODY).headers["x-request-id"]
    assert len(given) == 36
    assert httpx.post(url, json=BODY, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    wrong = {"inputs": []}
    refused = httpx.post(url, json=wrong, headers={"x-request-id": "mine-2"})
    assert (refused.status_code, refused.json()["request_id"]) == (400, "mine-2")
    unknown = httpx.post(f"{node.url}/v2/models/only-asked-for/infer", json=BODY, headers={"x-request-id": "mine-3"})
    assert (unknown.status_code, unknown.json()["request_id"]) == (404, "mine-3")
    assert unknown.headers["x-request-id"] == "mine-3"


def test_the_access_log_has_the_failures_and_no_secrets(scraped):
    node, _ = scraped
    httpx.post(
        f"{node.url}/v2/models/only-asked-for/infer?key=secret-query",
        content=b'{"inputs": "secret-body"}',
        headers={"x-request-id": "logged-1", "authorization": "Bearer secret-token"},
    )
    log: Path = node.layout.access_log
    eventually(lambda: log.exists() and "logged-1" in log.read_text(), "the line of the request", timeout_s=20)
    text = log.read_text()
    entry = next(line for line in map(json.loads, text.splitlines()) if line["request_id"] == "logged-1")
    assert (entry["status"], entry["error"], entry["path"]) == (
        404,
        "model_not_found",
        "/v2/models/only-asked-for/infer",
    )
    assert "secret" not in text
    assert all(
        line["status"] >= 400
        for line in map(json.loads, text.splitlines())
        if not line["path"].startswith("/inference.")
    )


def test_only_metrics_are_served_there(scraped):
    _, url = scraped
    assert httpx.get(f"{url}/").status_code == 404
    assert httpx.post(f"{url}/metrics").status_code == 405
