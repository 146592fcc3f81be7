"""Waits grow, stay below their cap, are spread, and are the same when asked again."""

from hypothesis import given
from hypothesis import strategies as st

from nearcast.agent.backoff import CRASHED, PROCESS, REFUSED, TRANSIENT, Backoff, spread


@given(st.sampled_from((TRANSIENT, REFUSED, CRASHED, PROCESS)), st.integers(1, 10_000), st.text(max_size=10))
def test_a_wait_lies_between_half_of_its_step_and_all_of_it(backoff: Backoff, attempt: int, who: str) -> None:
    step = min(backoff.cap_s, backoff.base_s * backoff.factor ** min(attempt - 1, 64))
    delay_s = backoff.delay_s(attempt, who)
    assert step / 2 <= delay_s <= step
    assert delay_s == backoff.delay_s(attempt, who)


def test_nodes_do_not_come_back_together() -> None:
    delays = {round(TRANSIENT.delay_s(3, f"node-{n}"), 2) for n in range(200)}
    assert len(delays) > 80
    assert 0.0 <= spread("x") < 1.0
