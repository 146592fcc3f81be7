"""Runs keep their size where a change of size is dear. The device, its planning and the clock are made up."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nearcast.engine.datatypes import Array
from nearcast.engine.profile import Profile
from nearcast.engine.steady import HOLD_S, Rows, SteadyModel, change_cost, steadied
from nearcast.resources.release import Signature, Tensor

SIGNATURE = Signature(
    inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(Tensor(name="y", datatype="FP32", shape=(-1, 3)),),
)
BATCHED = Profile(max_batch=16, width=3, service_s=0.003)


class Device:
    """Plans for ``plan_s`` whenever the shape differs from the last one, then takes 3 ms."""

    def __init__(self, plan_s: float, function: Callable[[Array], Array] = lambda x: x * 2) -> None:
        self.plan_s, self.time_s, self.function = plan_s, 0.0, function
        self.sizes: list[int] = []

    def now(self) -> float:
        return self.time_s

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        rows = len(feeds[0])
        self.time_s += 0.003 + (self.plan_s if self.sizes[-1:] != [rows] else 0.0)
        self.sizes.append(rows)
        return [self.function(feeds[0])]


@pytest.mark.parametrize(("plan_s", "dear"), [(0.3, True), (0.005, False), (0.0, False)])
def test_only_a_model_that_plans_for_long_is_steadied(plan_s: float, dear: bool) -> None:
    device = Device(plan_s)
    assert isinstance(steadied(device, SIGNATURE, BATCHED, device.now), SteadyModel) is dear


def test_the_cost_of_a_change_is_measured_apart_from_the_run() -> None:
    device = Device(0.3)
    change_s, run_s = change_cost(device, SIGNATURE, 3, device.now)
    assert change_s == pytest.approx(0.3)
    assert run_s == pytest.approx(0.003)


def test_models_without_batches_and_texts_are_left_alone() -> None:
    device = Device(0.3)
    texts = Signature(inputs=(Tensor(name="x", datatype="BYTES", shape=(-1, 1)),), outputs=SIGNATURE.outputs)
    assert steadied(device, SIGNATURE, Profile(max_batch=1), device.now) is device
    assert steadied(device, texts, BATCHED, device.now) is device
    assert device.sizes == []


def test_sizes_rise_at_once_and_fall_after_a_while_of_needing_less() -> None:
    rows = Rows(16)
    assert [rows.take(n, 0.0) for n in (1, 3, 2, 9, 1)] == [1, 4, 4, 16, 16]
    assert rows.take(3, HOLD_S / 2) == 16
    assert rows.take(1, HOLD_S) == 4, "the most that was needed meanwhile"
    assert rows.take(1, HOLD_S * 1.5) == 4
    assert rows.take(1, HOLD_S * 2) == 1


def test_more_rows_than_a_batch_has_are_run_as_they_are_and_change_nothing() -> None:
    rows = Rows(16)
    assert rows.take(100, 0.0) == 100
    assert rows.take(1, 0.0) == 1


def test_answers_are_those_of_the_own_rows() -> None:
    device = Device(0.3)
    model = SteadyModel(device, 16, device.now)
    for count in (5, 3, 8, 1):
        x = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
        (y,) = model.run([x])
        np.testing.assert_array_equal(y, x * 2)
    assert device.sizes == [8, 8, 8, 8]


def test_an_output_that_does_not_follow_the_rows_is_that_of_the_own_rows_alone() -> None:
    device = Device(0.3, lambda x: x.mean(keepdims=True)[0])
    model = SteadyModel(device, 16, device.now)
    model.run([np.ones((8, 3), np.float32)])
    assert model.run([np.ones((5, 3), np.float32)])[0].tolist() == [1.0], "not the mean of five rows and three of zeros"
