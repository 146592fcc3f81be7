"""The work of a request at a busy place."""

import numpy as np
import pytest

from nearcast.twin.batching import busy_s, relative_work
from nearcast.twin.scenario import TwinModel


def model(noise: float) -> TwinModel:
    return TwinModel.model_validate(
        {
            "name": "m",
            "targetMs": 100,
            "requestBytes": 1,
            "answerBytes": 1,
            "service": {"box": [[1, 10], [4, 20]]},
            "noise": noise,
        }
    )


def test_equal_requests_take_what_the_profile_says() -> None:
    found = busy_s((0.010, 0.013, 0.016, 0.020), relative_work(model(0.0), None))
    assert found == pytest.approx((0.005, 0.020))


def test_a_batch_lasts_as_long_as_its_longest_request() -> None:
    work = relative_work(model(0.5), None)
    assert work.mean() == pytest.approx(1.0)
    assert work.std() == pytest.approx(0.5, rel=0.02)
    dice = np.random.default_rng(1)
    sigma = np.sqrt(np.log1p(0.25))
    drawn = dice.lognormal(-(sigma**2) / 2, sigma, (200_000, 4)).max(axis=1).mean()
    assert busy_s((1e9, 1e9, 1e9, 0.020), work)[0] == pytest.approx(0.020 * drawn / 4, rel=0.01)


def test_the_best_size_counts() -> None:
    assert busy_s((0.010, 0.0201), relative_work(model(1.0), None)) == pytest.approx((0.010, 0.010))


def test_token_counts_are_their_own_distribution() -> None:
    told = model(0.0).model_copy(update={"tokens": type("T", (), {"input_weight": 0.5})()})
    work = relative_work(told, np.array([[2.0, 3.0], [2.0, 1.0]]))
    assert work == pytest.approx([2 / 3, 4 / 3])
    assert busy_s((1e9, 1.0), work)[0] == pytest.approx((0.25 * 2 / 3 + 0.75 * 4 / 3) / 2)
