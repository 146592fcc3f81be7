"""Lines of the log, and what is worth one."""

import json
import logging

import msgspec
import pytest

from nearcast.agent.states import (
    Blame,
    FetchFailed,
    GatewayAccepted,
    Key,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
    Serving,
    State,
    Tick,
)
from nearcast.agent.tell import told
from nearcast.logs import line
from nearcast.resources.plan import HoldingRule, PlannedModel, SiteFacts, SitePlan

PLAN = SitePlan(fleet="f", site=SiteFacts(name="here", tier="edge", country="DE"), version=4, revision="r")
BARRED = msgspec.structs.replace(
    PLAN,
    version=5,
    models=(PlannedModel(model="m", version="1", release="r", deployment="m"),),
    holding={"m": HoldingRule(tiers=("cloud",))},
)


def test_a_line_quotes_what_needs_it_and_leaves_out_what_is_not() -> None:
    assert (
        line("x", a=1, b="two words", c=None, d=0.12345, e='say "so"') == 'x a=1 b="two words" d=0.123 e="say \\"so\\""'
    )
    assert "\n" not in line("x", message="two\nlines")


@pytest.mark.parametrize("odd", ["\x85", "\x9b31m", "\x7f", "\u2028", "\u202e"])
def test_nothing_in_a_line_commands_a_terminal_or_ends_the_line(odd: str) -> None:
    shown = line("x", request_id=f"a{odd}b")
    assert shown.isprintable()
    assert json.loads(shown.partition("=")[2]) == f"a{odd}b"


def test_what_happens_all_the_time_is_not_told() -> None:
    known = State(who="n", plan=PLAN)
    assert told(known, Tick()) == told(known, PlanUnchanged()) == told(known, PlanReceived(PLAN)) == []
    assert told(State(who="n"), PlanReceived(PLAN)) == [(logging.INFO, "plan version=4 peers=0")]


def test_a_lasting_trouble_is_shownonce() -> None:
    from nearcast.agent.reconcile import step

    event = PlanRefused(Blame.TRANSIENT, "Unreachable", "no route")
    before = State(who="n")
    assert told(before, event) == [(logging.WARNING, 'no new plan reason=Unreachable message="no route"')]
    after, _ = step(before, event, 1.0)
    assert told(after, event) == []
    assert told(after, PlanUnchanged()) == [(logging.INFO, "plan is current again")]


def test_failures_and_new_routes_are_told() -> None:
    failed = FetchFailed(Key("m", "1"), "r", Blame.REFUSED, "DigestMismatch", "bytes")
    assert told(State(who="n"), failed) == [
        (logging.WARNING, "fetch failed model=m@1 reason=DigestMismatch message=bytes")
    ]
    serving = Serving(PLAN, frozenset({Key("m", "1")}), {"m": "1"})
    assert told(State(who="n"), GatewayAccepted(1, serving)) == [(logging.INFO, "routes plan=4 local=m@1")]
    assert told(State(who="n", accepted=serving), GatewayAccepted(2, serving)) == []


def test_places_that_a_plan_names_and_its_own_rules_bar_are_told_once_per_change() -> None:
    before = State(who="n", plan=PLAN)
    (_, (level, text)) = told(before, PlanReceived(BARRED))
    assert level == logging.WARNING
    assert "m at here: Model/m may run on cloud only, and the site is edge" in text
    later = msgspec.structs.replace(BARRED, version=6)
    assert len(told(State(who="n", plan=BARRED), PlanReceived(later))) == 1, "the same places again"
    (_, again) = told(State(who="n", plan=BARRED), PlanReceived(PLAN))
    assert again == (logging.INFO, "no place of the plan is barred any more version=4")
