"""The least few of each row."""

import numpy as np

from nearcast.planning.fleet.least import smallest


def test_the_least_come_first_and_ties_by_label() -> None:
    values = np.array([[3.0, 1.0, np.inf, 1.0, 0.0], [np.inf, 2.0, 5.0, np.inf, 2.5]], np.float32)
    found, labels, rest = smallest(values, np.array([9, 8, 7, 4, 2]), 3)
    assert found.tolist() == [[0.0, 1.0, 1.0], [2.0, 2.5, 5.0]]
    assert labels.tolist() == [[2, 4, 8], [8, 2, 7]]
    assert rest.tolist() == [3.0, np.inf]


def test_fewer_than_asked_for_leave_nothing() -> None:
    found, labels, rest = smallest(np.array([[2.0, 1.0]], np.float32), np.array([[5, 6]]), 4)
    assert (found.tolist(), labels.tolist(), rest.tolist()) == ([[1.0, 2.0]], [[6, 5]], [np.inf])
