"""``plan explain``, ``plan list``, ``plan replay``: what the planner decided, why, and that it can be repeated."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.text import Text

from nearcast.cli.completion import decisions, deployments, sites
from nearcast.cli.connect import connected
from nearcast.cli.files import check_target, decoded, read_named, write_named
from nearcast.cli.options import FoldedOutput, Form, Format, Output, application, command
from nearcast.cli.screen import (
    Cell,
    TooWide,
    coloured,
    milliseconds,
    note,
    show_document,
    show_lines,
    show_pairs,
    show_table,
)
from nearcast.cli.session import Session
from nearcast.errors import InvalidInput, NotFound
from nearcast.planning.fleet.explanation import PlanExplanation, PlannedPlace, PlannedWay

if TYPE_CHECKING:
    from nearcast.planning.fleet.record import Record

COMMANDS: Final = {
    "plan": application(help="Explain, list and repeat what the fleet's planner decided.", no_args_is_help=True)
}
PLACES: Final = ("site", "part", ">asked /s", ">serves /s", ">work ms", ">busy", ">wait ms", "why")
WAYS: Final = ("place", ">share", ">cost ms", ">round trip", ">transfer", ">wait", ">service", ">extra", "why not")
LEAST_SHOWN_PER_S: Final = 5e-4


@command(
    COMMANDS["plan"],
    "explain",
    examples=(
        "plan explain magika",
        "plan explain magika --site singapore",
        "plan explain magika --decision 12 -o json",
    ),
)
def explain(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="DEPLOYMENT|MODEL", help="Name of a deployment or its model.", autocompletion=deployments
        ),
    ],
    site: Annotated[
        str | None, typer.Option(help="Also where requests go that enter at this site.", autocompletion=sites)
    ] = None,
    decision: Annotated[
        int | None, typer.Option(min=1, help="An earlier decision; default: the newest.", autocompletion=decisions)
    ] = None,
    output: FoldedOutput = Form.TABLE,
) -> None:
    """Explain where the planner places a deployment, on which observations, and why not elsewhere.

    It tells what was seen and decided at the moment of the decision, how long ago that was, and what is another by now;
    `route explain` tells what gateways do now. What the columns mean: docs, "Let the planner choose sites".
    """
    with connected(session) as client:
        found = client.explain_plan(name, site, decision)
    if output.document is not None:
        show_document(msgspec.to_builtins(found), output.document)
        return
    show_explanation(found, "wide" if output is Form.WIDE else "fold")


@command(COMMANDS["plan"], "list", examples=("plan list", "plan list --limit 5 -o json"))
def list_decisions(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    output: Output = Format.TABLE,
) -> None:
    """List what the planner decided, newest first."""
    with connected(session) as client:
        found = client.decisions(limit)
    if output is not Format.TABLE:
        show_document({"items": [msgspec.to_builtins(item) for item in found]}, output)
        return
    rows = ((str(item.id), _second(item.at), "; ".join(item.reason)) for item in found)
    show_table((">decision", "at", "what changed"), rows)
    if not found:
        note("the planner has not decided anything yet: it does once a deployment's version is released")


@command(
    COMMANDS["plan"],
    "replay",
    examples=("plan replay", "plan replay 12 --save decision-12.json", "plan replay --file decision-12.json"),
)
def replay(
    session: Session,
    decision: Annotated[
        int | None, typer.Argument(metavar="ID", help="Number; default: the newest.", min=1, autocompletion=decisions)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A record that was saved, instead of asking a control plane.", dir_okay=False)
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the record in this file.", dir_okay=False)] = None,
    output: Output = Format.TABLE,
) -> None:
    """Plan again on the observations of a decision, offline, and compare. Exits 1 where the plan is another one.

    The same release makes the same plan to the last bit; another release may plan better.
    """
    # Planning pulls in numpy and SciPy: only whoever plans pays for it.
    from nearcast.planning.fleet.decision import differences, replayed
    from nearcast.planning.fleet.record import decode_record

    if save is not None:
        check_target(save)
    if file is None:
        data = _fetched(session, decision)
        record = decode_record(data)
    elif decision is None:
        data = read_named(file, "a decision record", "nearcast plan replay ID --save FILE writes one")
        record = decoded(file, data, decode_record)
    else:
        raise InvalidInput(f"expected a number or --file, got both: {decision} and {file}")
    if save is not None:
        write_named(save, data)
        note(f"the record is in {save}")
    different = differences(record, replayed(record))
    _show_replay(record, different, output)
    if different:
        raise typer.Exit(1)


def _show_replay(record: "Record", different: tuple[str, ...], output: Format) -> None:
    if output is not Format.TABLE:
        show_document(
            {
                "decision": record.id,
                "at": record.at,
                "software": record.software,
                "same": not different,
                "differences": list(different),
            },
            output,
        )
    elif not different:
        show_lines(f"decision {record.id} of {record.at}: the same plan again")
    else:
        show_lines(f"decision {record.id} of {record.at}, by {record.software}: another plan", *different)


def _fetched(session: Session, decision: int | None) -> bytes:
    with connected(session) as client:
        if decision is None:
            newest = client.decisions(1)
            if not newest:
                raise NotFound(
                    "the planner has not decided anything yet",
                    hint="it does once a deployment's version is released: nearcast status",
                )
            decision = newest[0].id
        return client.decision(decision)


def show_explanation(found: PlanExplanation, too_wide: TooWide = "fold") -> None:
    """Print the decision, its places, and where requests of the site go that was asked about."""
    show_lines(
        Text.assemble(
            (f"{found.model}@{found.version}", "bold"),
            f" by decision {found.decision} of {_second(found.at)}{_age(found.age_s)}",
        )
    )
    show_pairs(
        (
            ("what changed", "; ".join(found.reason)),
            ("planned anew", _planned(found)),
            *((("since then", "; ".join(found.since)),) if found.since else ()),
            ("wanted", f"{found.objective}, within {milliseconds(found.target_ms)} ms; {found.placement}"),
            ("demand", f"{_rate(found.demand_per_s)} requests/s" + _unserved(found) + _now(found)),
            (
                "bounds",
                f"routing within {found.routing_gap:.2%}, placement within {found.placement_gap:.2%} of the best",
            ),
        )
    )
    show_lines("")
    show_table(PLACES, (_place(place) for place in found.places), too_wide=too_wide)
    if found.unlisted:
        note(f"{found.unlisted} more sites are not listed; -o json lists no more either")
    if found.ways:
        show_lines("", Text.assemble("requests that enter at ", (found.site, "bold")))
        told = any(way.why for way in found.ways)
        columns = WAYS if told else WAYS[:-1]
        show_table(columns, (_way(way)[: len(columns)] for way in found.ways), too_wide=too_wide)


def _planned(found: PlanExplanation) -> str:
    """How much of the fleet the decision planned, and why."""
    count = len(found.planned_sites)
    what = {
        "whole": "the whole fleet",
        "part": "1 site and whom it touches" if count == 1 else f"{count} sites and whom they touch",
        "none": "nothing: no figure had changed enough",
    }[found.planned]
    return what + (f": {found.planned_why}" if found.planned_why else "")


def _unserved(found: PlanExplanation) -> str:
    """What of the demand gets no answer, and why: for want of room, or since no place may answer it."""
    crowded = found.unserved_per_s - found.closed_per_s
    parts = [f"no place may answer {_rate(found.closed_per_s)}"] if found.closed_per_s else []
    parts += [f"no place has room for {_rate(crowded)}"] if crowded > LEAST_SHOWN_PER_S else []
    return f", of which {' and '.join(parts)}" if parts else ""


def _now(found: PlanExplanation) -> str:
    return "" if found.demand_now_per_s is None else f"; now {_rate(found.demand_now_per_s)}"


def _age(seconds: float) -> str:
    """How long ago, for people; nothing for what was just now."""
    if seconds < 1.0:
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f", {seconds / size:.0f} {unit} ago"
    return f", {seconds:.0f} s ago"


def _place(place: PlannedPlace) -> tuple[Cell, ...]:
    return (
        place.site,
        coloured(place.role),
        _rate(place.demand_per_s),
        _rate(place.serves_per_s),
        milliseconds(place.work_ms),
        "–" if place.utilization is None else f"{place.utilization:.0%}",
        milliseconds(place.wait_ms),
        place.why,
    )


def _way(way: PlannedWay) -> tuple[Cell, ...]:
    times = (way.total_ms, way.round_trip_ms, way.transfer_ms, way.wait_ms, way.service_ms, way.extra_ms)
    return (way.site, f"{way.share_percent:g} %", *map(milliseconds, times), way.why)


def _rate(per_s: float) -> str:
    """A rate for people."""
    return "0" if per_s == 0 else f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}" if per_s >= 10 else f"{per_s:.3g}"


def _second(at: str) -> str:
    """A moment for people: to the second."""
    return f"{at.partition('.')[0].removesuffix('Z')}Z"
