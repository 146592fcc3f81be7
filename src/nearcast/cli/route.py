"""``route explain``: every candidate place, what its answer costs, and who refused the others."""

from typing import Annotated, Final

import msgspec
import typer
from rich.text import Text

from nearcast.cli.completion import models, sites
from nearcast.cli.connect import connected
from nearcast.cli.naming import name_in, unknown_among
from nearcast.cli.options import FoldedOutput, Form, application, command
from nearcast.cli.screen import (
    Cell,
    TooWide,
    coloured,
    milliseconds,
    note,
    show_document,
    show_lines,
    show_table,
)
from nearcast.cli.session import Session
from nearcast.client import ControlClient
from nearcast.errors import NotFound
from nearcast.planning.explanation import Explanation, PlaceExplanation

COMMANDS: Final = {"route": application(help="Explain where requests go.", no_args_is_help=True)}
VERDICTS: Final = {
    "routed": "Requests are routed to the places that serve, in the shares below.",
    "residency_refused": "No place may answer: policies refuse every one that could (requests get 403).",
    "no_place_ready": "No place can answer now (requests get 503).",
}
COSTS: Final = ("place", "state", ">share", ">cost ms", ">round trip", ">transfer", ">wait", ">service", ">cold")
BASE: Final = (">base", ">expected")


@COMMANDS["route"].callback()
def _group() -> None:
    """Keeps the group a group."""


@command(
    COMMANDS["route"],
    "explain",
    examples=("route explain magika --site singapore", "route explain magika --site ashburn -o wide"),
)
def explain(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", autocompletion=models)],
    site: Annotated[
        str,
        typer.Option(help="The site at which requests enter, or SITE/NODE: one of its gateways.", autocompletion=sites),
    ],
    output: FoldedOutput = Form.TABLE,
) -> None:
    """Explain where requests for a model go that enter at a site.

    Times are in milliseconds and add up to the cost. Hard rules come before any cost. Base is the share that the
    fleet's plan asks for, and expected the time at the place that it counts on; without them, the model goes by cost.
    """
    site, _, node = site.partition("/")
    with connected(session) as client:
        try:
            explanation = client.explain(model, site, node or None)
        except NotFound as error:
            raise _unknown(client, model, site) or error from error
    if output.document is not None:
        show_document(msgspec.to_builtins(explanation), output.document)
        return
    show_explanation(explanation, "wide" if output is Form.WIDE else "fold")


def show_explanation(explanation: Explanation, too_wide: TooWide = "fold") -> None:
    """Print the verdict, then the candidates with their costs, then the other places with who refused them."""
    show_lines(
        Text.assemble((explanation.model, "bold"), " asked at ", (_entrance(explanation), "bold")),
        VERDICTS[explanation.verdict],
        "",
    )
    candidates = [place for place in explanation.places if place.total_ms is not None]
    others = [place for place in explanation.places if place.total_ms is None]
    if candidates:
        planned = any(place.base_percent is not None for place in candidates)
        columns = (*COSTS[:3], *BASE, *COSTS[3:]) if planned else COSTS
        show_table(columns, (_row(place, planned=planned) for place in candidates), too_wide=too_wide)
    if candidates and others:
        show_lines("")
    if others:
        show_table(
            ("no candidate", "state", "why not"), ((place.site, _state(place), place.rule or "") for place in others)
        )
    if explanation.outside:
        names = ", ".join(explanation.outside)
        note(f"outside of the deployment's placement, until sites of it serve: {names} (nearcast describe deployment)")
    if explanation.unlisted:
        note(f"{explanation.unlisted} more sites do not have the model")
    if not explanation.reported:
        note(f"{explanation.site} has not reported yet: costs rest on its plan alone")


def _entrance(explanation: Explanation) -> str:
    """The site, and which of its nodes where that makes a difference."""
    several = any(place.site.startswith(f"{explanation.site}/") for place in explanation.places)
    return f"{explanation.site}/{explanation.node}" if several else explanation.site


def _row(place: PlaceExplanation, *, planned: bool) -> tuple[Cell, ...]:
    base = "–" if place.base_percent is None else f"{place.base_percent:g} %"
    return (
        place.site,
        _state(place),
        f"{place.share_percent} %",
        *((base, milliseconds(place.expected_ms)) if planned else ()),
        milliseconds(place.total_ms),
        milliseconds(place.round_trip_ms),
        milliseconds(place.transfer_ms),
        milliseconds(place.wait_ms),
        milliseconds(place.service_ms),
        milliseconds(place.cold_ms),
    )


def _state(place: PlaceExplanation) -> Cell:
    return coloured(place.standing.replace("_", " "))


def _unknown(client: ControlClient, model: str, site: str) -> NotFound | None:
    """Which of the two is unknown, with the nearest names; None where both exist."""
    sites = [name_in(document) for document in client.resources("sites")]
    if site not in sites:
        return unknown_among("site", site, sites)
    models = {name_in(document) for document in client.resources("models")}
    models |= {document["spec"]["model"] for document in client.resources("deployments")}
    return unknown_among("model", model, models) if model not in models else None
