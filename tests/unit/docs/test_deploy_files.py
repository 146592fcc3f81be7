"""What is handed to Prometheus, Grafana and systemd: every expression parses and asks for what is really served."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from nearcast import logs
from nearcast.agent import metrics as agent
from nearcast.control import metrics as control
from nearcast.engine import metrics as engine
from nearcast.gateway import metrics as gateway

DEPLOY = Path(__file__).parents[3] / "deploy"
METRICS = {each.name: each for room in (agent, control, engine, gateway) for each in room.METRICS}
ALWAYS = {"instance", "job"}
BOARD = json.loads((DEPLOY / "grafana" / "nearcast.json").read_text())


def selectors(expression: Any) -> Iterator[Any]:
    """Every choice of series in an expression."""
    if isinstance(expression, promql.VectorSelector):
        yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        inner = getattr(expression, name, None)
        if inner is not None and not isinstance(inner, str | float):
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from selectors(inner)


def check(text: str) -> set[str]:
    """The expression parses; its metrics are served, with the labels that it names. The metrics."""
    expression = promql.parse(text.replace("$__rate_interval", "5m"))
    found = set()
    for selector in selectors(expression):
        name = selector.name
        found.add(name)
        if name == "up":
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name) if name not in METRICS else name
        assert base in METRICS, f"{name} is served by nobody: {text}"
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= {*METRICS[base].labels, *ALWAYS}, f"{name} has no label {asked}: {text}"
    assert found, text
    grouped = re.findall(r"\b(?:by|without) \(([^)]*)\)", text)
    labels = {label.strip() for group in grouped for label in group.split(",")} - ALWAYS - {"le"}
    assert labels <= {label for name in found for label in _labels(name)}, text
    return found


def _labels(name: str) -> tuple[str, ...]:
    metric = METRICS.get(name) or METRICS.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return metric.labels if metric else ()


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_alerts_ask_for_what_is_served_and_say_what_to_do(rule):
    check(rule["expr"])
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["action"]
    assert rule["labels"]["severity"] in {"page", "ticket"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_panels_ask_for_what_is_served(panel):
    assert panel["targets"]
    for target in panel["targets"]:
        check(target["expr"])


def test_the_board_is_whole():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    for variable in BOARD["templating"]["list"][1:]:
        (metric,) = re.findall(r"label_values\((\w+),", variable["query"]["query"])
        assert metric in METRICS
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in panels() for target in panel["targets"])


@pytest.mark.parametrize(
    "wrong",
    ["sum(nearcast_gateway_requests_totals)", 'nearcast_gateway_up{model="m"}', "sum by (nodes) (nearcast_gateway_up)"],
)
def test_the_check_can_fail(wrong: str):
    with pytest.raises(AssertionError):
        check(wrong)


def test_the_scrape_configuration_reads_the_rules():
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in document["rule_files"]] == [True]
    jobs = {job["job_name"] for job in document["scrape_configs"]}
    assert set(re.findall(r'job="([^"]+)"', (DEPLOY / "prometheus" / "alerts.yml").read_text())) <= jobs


EXPOSURE_MOST = 20
"""Tenths of what `systemd-analyze security` calls exposure: 0 is none, 100 is all."""
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
HOW_TO = DEPLOY.parent / "docs" / "how-to" / "run-under-systemd.md"


def service_of(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser["Service"]


def command_of(unit: Path, options: str = "") -> list[str]:
    """The arguments in ``ExecStart``, with ``options`` for the one variable in it, which systemd splits at spaces."""
    words = shlex.split(service_of(unit)["ExecStart"])
    assert words.pop(0) == "/opt/nearcast/bin/nearcast"
    variables = [word for word in words if word.startswith("$")]
    assert len(variables) == 1
    return [more for word in words for more in (options.split() if word in variables else [word])]


def options_in_the_how_to() -> str:
    (found,) = re.findall(r"^NEARCAST_AGENT_OPTIONS=(.*)$", HOW_TO.read_text(), re.MULTILINE)
    return str(found)


def settings_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a process that is started by ``nearcast ARGUMENTS`` would run with; nothing is started."""
    from nearcast.agent import main as agent_main
    from nearcast.agent.arguments import parse
    from nearcast.cli.main import main
    from nearcast.control import server

    found: list[Any] = []
    monkeypatch.setattr(agent_main, "main", lambda argv: found.append(parse(argv)))
    monkeypatch.setattr(server, "serve", found.append)
    monkeypatch.setattr(logs, "set_up", lambda *_: None)
    for name in ("NEARCAST_CONTROL", "NEARCAST_DATA_DIR", "NEARCAST_REPOSITORY", "NEARCAST_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code, arguments
    (settings,) = found
    return settings


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_command_of_a_unit_is_one_of_ours(unit: Path, monkeypatch: pytest.MonkeyPatch):
    service, settings = service_of(unit), settings_of(command_of(unit), monkeypatch)
    assert settings.data_dir.is_relative_to(Path("/var/lib") / service["StateDirectory"])
    assert service["EnvironmentFile"].startswith("-"), "without the file it starts with what it is told here"


def test_the_options_that_the_how_to_gives_an_agent_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    token = tmp_path / "join.token"
    token.write_text("secret")
    options = options_in_the_how_to().replace("/etc/nearcast/join.token", str(token))
    settings = settings_of(command_of(DEPLOY / "systemd" / "nearcast-agent.service", options), monkeypatch)
    assert settings.join == "secret"
    assert settings.control == "https://control.example:7643"
    assert settings.metrics.port == 9464


@pytest.mark.parametrize("option", ["--no-such-option", "--public 1.2.3.4:99999"])
def test_an_option_that_we_do_not_have_is_noticed(option: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(AssertionError):
        settings_of(command_of(DEPLOY / "systemd" / "nearcast-agent.service", option), monkeypatch)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_valid_and_give_little_away(unit: Path, tmp_path: Path):
    service = service_of(unit)
    assert service["Type"] == "notify"
    assert service["NoNewPrivileges"] == service["PrivateTmp"] == service["ProtectHome"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: the unit was only read")
    program = tmp_path / "nearcast"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/nearcast/bin/nearcast", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MOST}", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded: it was only verified")
    assert judged.returncode == 0, judged.stdout[-2000:]
