"""What a measured curve means, and which models are batched at all. The model and the clock are made up."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nearcast.engine.datatypes import Array
from nearcast.engine.profile import BUDGET_S, Point, Profile, best_batch, made_up, profile
from nearcast.resources.release import Signature, Tensor


class Model:
    """Computes ``function`` and takes ``cost(rows)`` seconds of a clock of its own."""

    def __init__(self, cost: Callable[[int], float], function: Callable[[Array], Array] = lambda x: x + 1) -> None:
        self.time_s = 0.0
        self._cost = cost
        self._function = function

    def now(self) -> float:
        return self.time_s

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        self.time_s += self._cost(len(feeds[0]))
        return [self._function(feeds[0])]


def signature(*shape: int) -> Signature:
    one = Tensor(name="x", datatype="FP32", shape=shape)
    return Signature(inputs=(one,), outputs=(Tensor(name="y", datatype="FP32", shape=shape),))


@pytest.mark.parametrize(
    ("curve", "best"),
    [
        ([(1, 1.0), (2, 2.0), (4, 4.0)], 1),
        ([(1, 1.0), (2, 1.0), (4, 1.0)], 4),
        ([(1, 1.0), (2, 1.9), (4, 3.8)], 1),
        ([(1, 1.0), (2, 1.2), (4, 2.4), (8, 4.8)], 2),
        ([(1, 1.0), (2, 1.4), (4, 2.4), (8, 9.0)], 4),
        ([(1, 8.95), (2, 15.62), (4, 30.2), (8, 59.7), (16, 120.8)], 4),  # MiniLM: 2 would cost 5 % of its rate
        ([(1, 1.0)], 1),
    ],
)
def test_best_batch(curve: list[tuple[int, float]], best: int) -> None:
    assert best_batch([Point(batch, seconds) for batch, seconds in curve]) == best


def test_short_and_batched_in_the_loop() -> None:
    model = Model(lambda rows: 10e-6 + rows * 1e-6)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert (found.max_batch, found.inline, found.note) == (32, True, "")
    assert found.service_s == pytest.approx(11e-6)
    assert found.item_s == pytest.approx(42e-6 / 32)


def test_long_runs_leave_the_loop() -> None:
    model = Model(lambda rows: 0.004 * rows)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert (found.max_batch, found.inline) == (1, False)
    assert "no cheaper" in found.note


def test_larger_batches_that_only_lose_are_not_tried() -> None:
    model = Model(lambda rows: 0.004 * rows**1.1)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert found.max_batch == 1
    assert [point.batch for point in found.curve] == [1, 2, 4]


def test_rows_that_depend_on_one_another_are_never_batched() -> None:
    model = Model(lambda rows: 1e-5, lambda x: x - x.mean(axis=0))
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert found.max_batch == 1
    assert "depend" in found.note


def test_a_model_that_gives_rows_for_some_inputs_only_is_never_batched() -> None:
    model = Model(lambda rows: 10e-6, lambda x: x[x[:, 0] > 0])
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert (found.max_batch, found.note) == (1, "rows depend on one another")


def test_a_fixed_batch_is_never_batched() -> None:
    model = Model(lambda rows: 1e-5)
    found = profile(model, signature(1, 4), pad=False, now=model.now)
    assert (found.max_batch, found.note) == (1, "the batch dimension is fixed")


def test_measuring_is_bounded() -> None:
    model = Model(lambda rows: 0.5 * rows)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    warm_s = 0.5 * 5  # one first run, and three that compare two rows
    assert model.time_s <= warm_s + BUDGET_S + 2 * found.curve[-1].seconds


def test_a_model_slower_than_measuring_may_be_runs_once() -> None:
    model = Model(lambda rows: 7.0)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert model.time_s == 7.0
    assert (found.service_s, found.max_batch, found.inline) == (7.0, 1, False)


def test_a_model_that_refuses_made_up_inputs_is_served_one_by_one() -> None:
    def refuse(x: Array) -> Array:
        raise ValueError("only real inputs")

    model = Model(lambda rows: 1e-5, refuse)
    found = profile(model, signature(-1, 4), pad=False, now=model.now)
    assert (found.curve, found.max_batch, found.inline) == ((), 1, False)


def test_made_up_inputs_fit_the_signature() -> None:
    inputs = (
        Tensor(name="f", datatype="FP16", shape=(-1, 3, -1)),
        Tensor(name="i", datatype="INT64", shape=(-1, -1)),
        Tensor(name="s", datatype="BYTES", shape=(-1,)),
        Tensor(name="b", datatype="BOOL", shape=(2,)),
    )
    made = made_up(Signature(inputs=inputs, outputs=()), 5, 7)
    assert [array.shape for array in made] == [(5, 3, 7), (5, 7), (5,), (2,)]
    assert [array.dtype for array in made] == [np.float16, np.int64, np.dtype(object), np.bool_]


def test_a_profile_reads_as_a_sentence() -> None:
    alone = Profile(service_s=0.0043, note="rows depend on one another")
    assert str(alone) == "4.3 ms a row, no batches (rows depend on one another), on a thread"
    assert str(Profile(service_s=7e-6, max_batch=32, inline=True)) == "0.007 ms a row, batches of up to 32, in the loop"
