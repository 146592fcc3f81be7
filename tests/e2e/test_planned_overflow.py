"""A fleet that plans: what one site cannot answer goes where the plan says, nothing fails, and traffic comes home."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from e2e.local_fleet import LocalFleet, eventually, local_fleet, resource

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORDS = 1024
TARGET_S = 1.0
"""Several times what both sites need for all clients at once: whether it is kept is a matter of where requests go."""
ANSWERS = 300
BODY = {"inputs": [{"name": "x", "shape": [1, WORDS], "datatype": "FP32", "data": [0.1] * WORDS}]}


def slow_model(folder: Path, rounds: int) -> Path:
    """float32[batch, WORDS] -> the same shape, multiplied ``rounds`` times by a matrix: some milliseconds of work."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WORDS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WORDS])
    matrix = np.eye(WORDS, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x" if n == 0 else f"v{n}", "w"], ["y" if n == rounds - 1 else f"v{n + 1}"])
        for n in range(rounds)
    ]
    graph = helper.make_graph(nodes, "slow", [x], [y], [numpy_helper.from_array(matrix, "w")])
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


class Clients:
    """Clients of one gateway that ask again as soon as they are answered, and never retry."""

    def __init__(self, gateway: str, count: int) -> None:
        self._url = f"http://{gateway}/v2/models/slow/infer"
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self.answers: list[tuple[float, int, str, float]] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(timeout=30.0, trust_env=False) as client:
            while not self._ended.is_set():
                began_s = time.monotonic()
                answer = client.post(self._url, json=BODY)
                now_s = time.monotonic()
                with self._guard:
                    site = answer.headers.get("x-nearcast-site", "")
                    self.answers.append((now_s, answer.status_code, site, now_s - began_s))

    def lately(self, seconds: float) -> list[tuple[float, int, str, float]]:
        with self._guard:
            return [item for item in self.answers if item[0] >= time.monotonic() - seconds]

    def since(self, at_s: float) -> list[tuple[float, int, str, float]]:
        """Answers to what was asked after ``at_s``."""
        with self._guard:
            return [item for item in self.answers if item[0] - item[3] >= at_s]

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(40)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with local_fleet(tmp_path_factory.mktemp("planned")) as running:
        running.push("slow", "1", slow_model(running.data_dir / "models" / "slow", 40))
        yield running


def deploy(fleet: LocalFleet, placement: dict[str, Any]) -> None:
    spec = {"model": "slow", "version": "1", "placement": placement, "latencyTarget": f"{TARGET_S:g}s"}
    fleet.apply(resource("Deployment", "slow", spec))
    fleet.run("wait", "deployment/slow", "--for", "ready", "--timeout", "90s")


def shares(fleet: LocalFleet) -> dict[str, dict[str, Any]]:
    """Site -> its line of ``route explain`` at Frankfurt."""
    found = fleet.json("route", "explain", "slow", "--site", "frankfurt")
    return {place["site"]: place for place in found["places"] if place["total_ms"] is not None}


def demand(fleet: LocalFleet) -> float:
    return float(fleet.json("plan", "explain", "slow")["demand_per_s"])


def test_a_surge_brings_a_second_site_and_calm_takes_it_back(fleet: LocalFleet) -> None:
    deploy(fleet, {"auto": {"maxSites": 2}})

    def sites() -> list[str]:
        document = fleet.json("get", "deployment", "slow")
        return list(document["status"]["details"]["sites"])

    eventually(lambda: len(sites()) == 1, "one site while nobody asks", timeout_s=180)
    clients = Clients(fleet.gateway("frankfurt"), 24)
    try:
        eventually(lambda: len(sites()) == 2, "a second site under demand", timeout_s=120)
        eventually(lambda: len({item[2] for item in clients.lately(5.0)}) == 2, "answers of both", timeout_s=120)
    finally:
        clients.stop()
    assert {item[1] for item in clients.answers} == {200}
    eventually(lambda: len(sites()) == 1, "the second site to be given back", timeout_s=240, pause_s=2.0)
    reasons = [reason for item in fleet.json("plan", "list")["items"] for reason in item["reason"]]
    assert any(reason.startswith("slow: +") for reason in reasons), reasons
    assert any(reason.startswith("slow: -") for reason in reasons), json.dumps(reasons)


def test_overflow_goes_where_the_plan_says_and_comes_home(fleet: LocalFleet) -> None:
    deploy(fleet, {"everywhere": True})
    clients = Clients(fleet.gateway("frankfurt"), 24)
    try:
        eventually(lambda: bool(shares(fleet)["ashburn"]["base_percent"]), "a base for Ashburn", timeout_s=120)
        eventually(lambda: shares(fleet)["ashburn"]["share_percent"] > 0, "a share at Ashburn", timeout_s=60)
        eventually(lambda: any(item[2] == "ashburn" for item in clients.lately(5.0)), "answers of Ashburn")
        overflowing_s = time.monotonic()
        eventually(lambda: len(clients.since(overflowing_s)) >= ANSWERS, "answers while it overflows", timeout_s=120)
        explained = fleet.json("plan", "explain", "slow", "--site", "frankfurt")
        ways = {way["site"]: way["share_percent"] for way in explained["ways"]}
        assert ways["ashburn"] > 0
    finally:
        clients.stop()
    statuses = Counter(item[1] for item in clients.answers)
    assert set(statuses) == {200}, statuses
    late = sorted(item[3] for item in clients.since(overflowing_s))
    assert late[int(0.95 * len(late))] < TARGET_S, "the objective of the deployment, as its clients measure it"
    eventually(lambda: shares(fleet)["frankfurt"]["share_percent"] == 100, "traffic to be home", timeout_s=180)
    assert fleet.run("plan", "replay").returncode == 0
