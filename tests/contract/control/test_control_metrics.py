"""``GET /metrics`` of the control plane: what is served is what is documented, for its own token alone."""

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from nearcast.control.metrics import METRICS

Fleet = Any
Make = Any


def scraped(fleet: Fleet, **headers: str) -> str:
    token = fleet.settings.metrics_token_file.read_text().strip()
    answer = fleet.call("GET", "/metrics", token=token, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def value(text: str, name: str, **labels: str) -> float:
    samples = [sample for each in families(text) for sample in each.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def test_what_is_served_is_what_is_documented(fleet: Fleet) -> None:
    documented = {metric.name: metric for metric in METRICS}
    scraped(fleet)  # so that a call was counted
    served = {each.name + ("_total" if each.type == "counter" else ""): each for each in families(scraped(fleet))}
    assert set(served) - {name for name in served if name.endswith("_created")} == set(documented)
    for name, each in served.items():
        assert each.type == documented[name].kind
        assert all(set(sample.labels) - {"le"} == set(documented[name].labels) for sample in each.samples), name
    accept = "application/openmetrics-text; version=1.0.0"
    assert {each.name for each in openmetrics(scraped(fleet, accept=accept))} == {
        name.removesuffix("_total") for name in documented
    }


def test_its_token_opens_nothing_else(fleet: Fleet) -> None:
    token = fleet.settings.metrics_token_file.read_text().strip()
    assert fleet.settings.metrics_token_file.stat().st_mode & 0o777 == 0o600
    assert fleet.call("GET", "/v1/status", token=token).status_code == 401
    assert fleet.call("GET", "/metrics", token="").status_code == 401
    assert fleet.call("GET", "/metrics", token="x" * 40).status_code == 401
    assert fleet.call("GET", "/metrics").status_code == 200


def test_the_fleet_and_the_calls_are_told(fleet: Fleet, make: Make) -> None:
    fleet.start_releases()
    fleet.push("magika", "3.3")
    fleet.applied(make.site("fra"), make.site("iad"), make.deployment("magika", "3.3", "fra"))
    node = fleet.join("fra")
    fleet.controllers.step()
    node.report()
    fleet.call("GET", "/v1/resources/sites/never-seen-name")
    fleet.call("GET", "/no/such/path-of-a-caller")
    text = scraped(fleet)
    assert value(text, "nearcast_control_sites", state="connected") == 1
    assert value(text, "nearcast_control_nodes", state="connected") == 1
    assert value(text, "nearcast_control_deployments", state="not_ready") == 1
    assert value(text, "nearcast_control_releases") == 1
    assert value(text, "nearcast_control_plans_published_total") >= 2
    assert value(text, "nearcast_control_publish_seconds_count") >= 1
    assert value(text, "nearcast_control_database_seconds_count") > 0
    assert value(text, "nearcast_control_store_seconds_count") > 0
    assert value(text, "nearcast_control_requests_total", route="/v1/apply", code="2xx") == 1
    assert value(text, "nearcast_control_requests_total", route="other", code="4xx") == 1
    assert "never-seen-name" not in text
    assert "path-of-a-caller" not in text
    fleet.pass_time(3600)
    assert value(scraped(fleet), "nearcast_control_nodes", state="stale") == 1
