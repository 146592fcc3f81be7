"""What a shell is offered, by the protocol of bash: words of the fleet and of the code, and nothing in trouble."""

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

from nearcast.twin.names import NAMES

if TYPE_CHECKING:
    from unit.cli.conftest import Run
    from unit.cli.fake_control import FakeControl

Offered = Callable[[str], list[str]]


@pytest.fixture
def offered(control: "FakeControl", run: "Run", monkeypatch: pytest.MonkeyPatch) -> Offered:
    """The words that bash gets for a line; the last of it is incomplete."""
    for name in ("frankfurt", "fra-2", "ashburn"):
        control.put("Site", name, {"country": "DE"})
    control.put("Model", "magika", {})
    control.put("Deployment", "magic", {"model": "magika"})
    control.nodes = [{"site": "ashburn", "name": "n1"}]

    def offered_(line: str) -> list[str]:
        monkeypatch.setenv("_NEARCAST_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"nearcast {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        done = run()
        assert done.err == ""
        return done.out.split()

    return offered_


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("get de", ["deployment", "deployments"]),
        ("get site/fr", ["site/fra-2", "site/frankfurt"]),
        ("describe site fr", ["fra-2", "frankfurt"]),
        ("delete node/", ["node/ashburn/n1"]),
        ("wait deployments/m", ["deployments/magic"]),
        ("drain a", ["ashburn/n1"]),
        ("infer ma", ["magika"]),
        ("infer magika --site a", ["ashburn"]),
        ("route explain magika --site fra-", ["fra-2"]),
        ("plan explain m", ["magic", "magika"]),
        ("model inspect m", ["magika"]),
        ("twin run x.yaml --policy near", sorted(name for name in NAMES if name.startswith("near"))),
        ("get thing/x", []),
    ],
)
def test_what_fits_is_offered(offered: Offered, line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_decisions_are_offered_by_number(offered: Offered, control: "FakeControl") -> None:
    items = [{"id": number, "at": "2026-11-28T12:00:00Z", "reason": ["+frankfurt"]} for number in (12, 13, 7)]
    for line in ("plan explain m --decision 1", "plan replay 1"):
        control.failures = [httpx.Response(200, json={"items": items})]
        assert offered(line) == ["12", "13"]


@pytest.mark.parametrize(
    "trouble", [httpx.ReadTimeout("slow"), httpx.ConnectError("nobody"), httpx.Response(401), httpx.Response(503)]
)
def test_trouble_is_silent_and_asked_once(
    offered: Offered,
    control: "FakeControl",
    trouble: httpx.Response | Exception,
) -> None:
    control.failures = [trouble] * 5
    assert offered("get site/f") == []
    assert len(control.calls) == 1


def test_no_fleet_is_silent(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARCAST_CONTROL")
    assert offered("get site/f") == []
    assert offered("get site/f --data-dir /nowhere") == []


def test_options_before_and_after_the_name_say_which_fleet(
    offered: Offered,
    control: "FakeControl",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEARCAST_TOKEN", "wrong")
    assert offered("get site/fra-") == []
    assert offered("--token admin-token get site/fra-") == ["site/fra-2"]
    assert offered("get --token admin-token site/fra-") == ["site/fra-2"]


def test_no_simulation_is_loaded_for_the_names_of_policies() -> None:
    look = "print({'numpy', 'scipy'} & {*sys.modules})"
    code = f"import sys; from nearcast.cli.completion import policies; policies(''); {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
