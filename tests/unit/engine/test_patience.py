"""How long requests may wait here, as gateways say."""

from hypothesis import given
from hypothesis import strategies as st

from nearcast.engine.patience import KNOWN_MAX, Patience
from nearcast.resources import wire


def test_a_node_finds_itself_by_its_own_name_or_by_its_sites() -> None:
    told = wire.longest_waits([("frankfurt", 20), ("frankfurt/b", 80), ("paris", 40)]).encode()
    assert Patience("frankfurt", "a").of(told) == 0.02
    assert Patience("frankfurt", "b").of(told) == 0.08
    assert Patience("paris", "a").of(told) == 0.04
    assert Patience("rome", "a").of(told) is None
    assert Patience().of(told) is None


def test_who_has_asked_all_places_waits_for_as_long_as_it_takes() -> None:
    told = wire.longest_waits([("frankfurt", 20), ("paris", 40)], tries=3).encode()
    patience = Patience("frankfurt", "a")
    assert [patience.of(told, attempt) for attempt in (None, b"1", b"3", b"4", b"x", b"99999")] == [
        0.02,
        0.02,
        0.02,
        None,
        0.02,
        0.02,
    ]


@given(st.binary(max_size=60), st.none() | st.binary(max_size=6))
def test_whatever_comes_is_a_time_or_nothing(value: bytes, attempt: bytes | None) -> None:
    found = Patience("m", "n").of(value, attempt)
    assert found is None or 0.0 <= found < 1e6


def test_few_values_are_remembered() -> None:
    patience = Patience("frankfurt", "a")
    for number in range(3 * KNOWN_MAX):
        assert patience.of(b"frankfurt=%d" % number) == number / 1000
    assert len(patience._known) <= KNOWN_MAX
