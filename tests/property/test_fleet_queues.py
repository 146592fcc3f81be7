"""What load costs at a place, whatever its workers and batches: dearer with every second of load, and never a gap."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleets.small import line
from nearcast.planning.fleet.congestion import CEILING, Growth, Queues, growth_of, served_s

parts = st.one_of(st.floats(0.0, CEILING), st.floats(0.8, CEILING))
loads = st.tuples(parts, parts).map(sorted)


@given(
    workers=st.one_of(st.floats(0.01, 64.0), st.floats(64.0, 1e5)),
    weight=st.floats(0.1, 4.0),
    extra=st.floats(0.0, 50.0),
    power=st.floats(2.0, 5.0),
    two=loads,
    price_s=st.floats(0.0, 1e3),
)
def test_one_more_second_costs_no_less_at_a_fuller_place(
    workers: float, weight: float, extra: float, power: float, two: list[float], price_s: float
) -> None:
    growth = Growth(np.array([extra]), np.array([power]))
    queues = Queues.over(np.array([workers]), weight, np.zeros(1), growth)
    low, high = (np.array([part * workers]) for part in two)
    assert queues.price_s(low)[0] <= queues.price_s(high)[0] + 1e-9
    rise = (queues.waiting_s(high) - queues.waiting_s(low))[0]
    width, slack = (high - low)[0], 1e-9 * (1.0 + queues.waiting_s(high)[0])
    assert queues.price_s(low)[0] * width - slack <= rise <= queues.price_s(high)[0] * width + slack
    load = queues.load_at(np.array([price_s]))
    assert 0.0 <= load[0] <= queues.room[0]
    if 0.0 < load[0] < (1.0 - 1e-9) * queues.room[0]:
        assert abs(queues.price_s(load)[0] - price_s) <= 1e-6 * (1.0 + price_s)


@given(
    service_s=st.floats(1e-4, 10.0),
    gain=st.floats(1.0, 100.0),
    longer=st.floats(1.0, 20.0),
    two=loads,
)
def test_service_is_between_that_of_one_and_that_of_a_full_batch(
    service_s: float, gain: float, longer: float, two: list[float]
) -> None:
    one = np.ones((2, 1))
    problem = line(2, service_s=one * service_s, work_s=one * service_s / gain, full_s=one * service_s * longer)
    low, high = served_s(problem, np.array(two))[:, 0]
    assert service_s <= low <= high <= service_s * longer * (1.0 + 1e-9)
    growth = growth_of(problem)
    assert (growth.extra >= 0.0).all()
    assert (growth.power >= 2.0 - 1e-9).all()
