"""How long a request may wait at a place before the next one is asked."""

from nearcast.planning.cost import Terms
from nearcast.planning.waits import PLANNED, STAY_S, STEPS_MS, longest_waits_ms

HOME = Terms(service_s=0.1)
NEAR = Terms(round_trip_s=0.05, service_s=0.1)
FAR = Terms(round_trip_s=0.5, service_s=0.1)
ALL = {"home": HOME, "near": NEAR, "far": FAR}


def test_a_place_is_left_where_the_next_one_answers_sooner_and_the_last_takes_everything() -> None:
    assert longest_waits_ms(("home", "far"), ALL) == (480,)  # the next step below its 500 ms of way
    assert longest_waits_ms(("home", "near", "far"), ALL) == (40, 480)  # at near, the way there is spent
    assert longest_waits_ms(("home",), ALL) == ()


def test_a_queue_at_the_next_place_counts_as_it_was_told() -> None:
    busy = {**ALL, "near": Terms(round_trip_s=0.05, wait_s=0.2, service_s=0.1)}
    assert longest_waits_ms(("home", "near"), busy) == (240,)


def test_with_a_target_a_place_takes_what_is_in_time_and_only_the_urgent_is_refused_at_last() -> None:
    assert longest_waits_ms(("home", "far"), ALL, 0.16, urgent=True) == (
        60,
        80,
    )  # at far it is late: as long as its service
    assert longest_waits_ms(("home", "far"), ALL, 0.9, urgent=True) == (480, 960)
    assert longest_waits_ms(("home", "far"), ALL, 0.9) == (480,)
    assert longest_waits_ms(("home",), ALL, 0.16) == ()


def test_what_is_in_time_by_a_margin_stays_although_the_next_place_is_sooner() -> None:
    close = {**ALL, "near": Terms(round_trip_s=0.001, service_s=0.1)}
    assert longest_waits_ms(("home", "near"), close)[0] == STEPS_MS[0]
    assert longest_waits_ms(("home", "near"), close, 0.15)[0] == 30
    assert longest_waits_ms(("home", "near"), close, 9.0)[0] == 80 <= 1000 * STAY_S


def test_what_the_plan_expects_to_wait_stays_where_it_was_sent() -> None:
    """At a place that is planned nearly full, with 0.25 s of waiting, and with time left until the target."""
    close = {**ALL, "near": Terms(round_trip_s=0.001, service_s=0.1)}
    expected_s = {"home": HOME.service_s + 0.25, "near": 0.11}
    assert longest_waits_ms(("home", "near"), close, 0.9, expected_s)[0] == 120 <= 1000 * PLANNED * 0.25
    assert longest_waits_ms(("home", "near"), close, 0.2, expected_s)[0] == 60, "no longer than a part of what is left"
    assert longest_waits_ms(("home", "near"), close, 0.0, expected_s)[0] == STEPS_MS[0], (
        "without a target, what is sooner"
    )
    assert longest_waits_ms(("near", "home"), close, 0.9, expected_s)[0] == 80, "hardly any waiting is expected there"


def test_a_target_that_no_place_can_meet_counts_for_nothing() -> None:
    assert longest_waits_ms(("home", "far"), ALL, 0.05) == longest_waits_ms(("home", "far"), ALL)


def test_places_that_do_not_stand_are_neither_waited_at_nor_gone_to() -> None:
    assert longest_waits_ms(("home", "lost"), ALL) == ()
    assert longest_waits_ms(("home", "far", "lost"), ALL) == (480,)
