"""What an engine tells of its models' cost and of its capacity, and how load is told where models share it."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from contract import engine_models as models
from contract.engine_process import Engine, running_engine
from nearcast.resources import wire
from nearcast.resources.load import LoadReport, ModelLoad, parse_load
from nearcast.resources.release import ReleaseManifest
from nearcast.resources.status import EngineProfile, ModelProfile

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running_engine("--queue", "64") as running:
        yield running


def profile_of(engine: Engine) -> EngineProfile:
    with engine.client(wire.ENGINE_STATUS) as client:
        return msgspec.json.decode(client.get(wire.PROFILE_PATH).content, type=EngineProfile)


def model_profile(engine: Engine, manifest: ReleaseManifest) -> ModelProfile:
    (found,) = [each for each in profile_of(engine).profiles if each.model == manifest.model]
    return found


def report_of(engine: Engine) -> LoadReport:
    with engine.client(wire.ENGINE_STATUS) as client:
        return parse_load(client.get(wire.LOAD_PATH).content)


def load_of(engine: Engine, manifest: ReleaseManifest) -> ModelLoad:
    found = report_of(engine).of(manifest.model)
    assert found is not None
    return found


def until(check: Callable[[], bool], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < end, f"it did not happen within {timeout_s:g} s"
        time.sleep(0.02)


class Crowd:
    """Clients that ask one model as fast as it answers."""

    def __init__(self, engine: Engine, manifest: ReleaseManifest, clients: int) -> None:
        self._engine, self._manifest = engine, manifest
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with self._engine.model(self._manifest) as client:
            while not self._over.is_set():
                client.post(wire.infer_path(self._manifest.model), json=BODY)

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def test_a_loaded_model_has_a_profile_and_the_node_a_capacity(engine: Engine, tmp_path: Path) -> None:
    empty = profile_of(engine)
    assert empty.profiles == ()
    assert (empty.capacity.workers, empty.capacity.device) == (1.0, "cpu")
    assert empty.capacity.memory_bytes > 0
    manifest = models.adder(tmp_path)
    assert engine.load(tmp_path, manifest).status_code == 200
    found = model_profile(engine, manifest)
    assert (found.model, found.version) == ("adder", "1")
    assert found.curve[0][0] == 1
    assert [rows for rows, _ in found.curve] == sorted({rows for rows, _ in found.curve})
    assert all(seconds > 0 for _, seconds in found.curve)
    assert 0 < found.work_s <= found.service_s
    assert found.footprint_bytes >= manifest.size_bytes
    assert found.load_s > 0
    assert engine.unload(manifest).status_code == 200
    assert profile_of(engine).profiles == ()


def test_a_profile_is_asked_for_by_get_alone(engine: Engine) -> None:
    with engine.client(wire.ENGINE_STATUS) as client:
        assert client.post(wire.PROFILE_PATH).status_code == 405


def test_a_saturated_engine_says_so_and_what_its_requests_cost_adds_up(engine: Engine, tmp_path: Path) -> None:
    slow = models.slow(tmp_path, batch=1)
    assert engine.load(tmp_path, slow).status_code == 200
    seen: list[ModelLoad] = []

    def is_saturated() -> bool:
        seen.append(load_of(engine, slow))
        return seen[-1].utilization > 0.8 and seen[-1].wait_s > 0

    with Crowd(engine, slow, 4):
        until(is_saturated)
        cost = model_profile(engine, slow)
    # Utilisation is what the requests cost, whatever the machine: sum(rate x work_s) / workers.
    assert seen[-1].rate_per_s * cost.work_s == pytest.approx(seen[-1].utilization, rel=0.3)


def test_a_model_that_batches_well_is_not_saturated_by_a_few_clients(engine: Engine, tmp_path: Path) -> None:
    slow = models.slow(tmp_path)  # 32 rows cost what one does
    assert engine.load(tmp_path, slow).status_code == 200
    cost = model_profile(engine, slow)
    assert cost.work_s < cost.service_s / 8
    with Crowd(engine, slow, 2):
        until(lambda: load_of(engine, slow).rate_per_s > 5)
        told = load_of(engine, slow)
    assert 0.0 < told.utilization < 0.5


def test_the_queue_of_one_model_is_a_wait_for_another(engine: Engine, tmp_path: Path) -> None:
    slow, idle = models.slow(tmp_path / "s", batch=1), models.adder(tmp_path / "a")
    for folder, manifest in ((tmp_path / "s", slow), (tmp_path / "a", idle)):
        assert engine.load(folder, manifest).status_code == 200
    assert load_of(engine, idle).wait_s == 0.0
    with Crowd(engine, slow, 4):
        until(lambda: load_of(engine, idle).wait_s > 0)
        told = load_of(engine, idle)
    assert (told.queue, told.rate_per_s) == (0, 0.0)
    assert told.wait_s <= told.service_s * 1.001  # it gets its part of the worker; it does not stand behind all of it


def test_two_models_that_compute_at_once_take_no_more_than_all(engine: Engine, tmp_path: Path) -> None:
    one, two = models.slow(tmp_path / "1", model="one", batch=1), models.slow(tmp_path / "2", model="two", batch=1)
    for folder, manifest in ((tmp_path / "1", one), (tmp_path / "2", two)):
        assert engine.load(folder, manifest).status_code == 200
    told: list[tuple[float, float]] = []

    def both_are_busy() -> bool:
        report = report_of(engine)
        told.append(tuple(load.utilization if (load := report.of(name)) else 0.0 for name in ("one", "two")))
        return sum(told[-1]) > 0.8 and min(told[-1]) > 0.2

    with Crowd(engine, one, 3), Crowd(engine, two, 3):
        until(both_are_busy)
    assert max(map(sum, told)) <= 1.1


def test_the_figures_are_metrics_too(engine: Engine, tmp_path: Path) -> None:
    manifest = models.adder(tmp_path)
    assert engine.load(tmp_path, manifest).status_code == 200
    with engine.client(wire.ENGINE_STATUS) as client:
        text: httpx.Response = client.get(wire.METRICS_PATH)
    for name in ("work_seconds", "idle_service_seconds", "footprint_bytes", "load_seconds"):
        assert f'nearcast_engine_{name}{{model="adder",version="1"}}' in text.text
    assert "nearcast_engine_workers 1.0" in text.text
