"""The estimate on real round trips: 490 PlanetLab nodes (uofa-rzhu3/NetLatency-Data, PlanetLabData_1, MIT; Zhu et al.,
IEEE/ACM Transactions on Networking 25, 2017). `python -m bench network` has the whole table."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from nearcast.planning.network.map import step
from nearcast.planning.network.measurements import RoundTrip

FOLDERS = (
    Path(os.environ.get("NEARCAST_DATA_SETS", "/nonexistent")),
    *(parent / "shared" / "data" for parent in Path(__file__).resolve().parents),
)
NAME = "planetlab_rtt_490.txt.gz"


def matrix_s() -> np.ndarray:
    for folder in FOLDERS:
        if (folder / NAME).is_file():
            with gzip.open(folder / NAME, "rt") as text:
                return np.loadtxt(text) / 1000.0
    pytest.skip(f"the data set {NAME} is not here: set NEARCAST_DATA_SETS to its folder")


@pytest.mark.parametrize(("fraction", "median", "p90"), [(0.02, 0.16, 0.9), (0.1, 0.07, 0.3)])
def test_unmeasured_pairs_of_a_real_network(fraction: float, median: float, p90: float) -> None:
    real_s = matrix_s()
    count = len(real_s)
    one, other = np.triu_indices(count, 1)
    chosen = np.random.default_rng(0).permutation(len(one))[: round(fraction * len(one))]
    names = [f"n{n:03}" for n in range(count)]
    made = step(
        None,
        dict.fromkeys(names),
        [
            RoundTrip(names[i], names[j], float(real_s[i, j]), 0.0)
            for i, j in zip(one[chosen], other[chosen], strict=True)
        ],
        0.0,
    ).at(0.0)
    assert made.measured[one, other].mean() == pytest.approx(fraction, abs=0.001)
    unmeasured = ~made.measured[one, other]
    i, j = one[unmeasured], other[unmeasured]
    error = np.abs(made.round_trip_s[i, j] - real_s[i, j])
    relative = error / real_s[i, j]
    assert np.median(relative) < median
    assert np.percentile(relative, 90) < p90
    assert 0.82 < np.mean(error <= 1.645 * made.deviation_s[i, j]) < 0.97
