"""``wait``: until a condition of a resource holds, saying on the way what is missing."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from nearcast.cli.completion import kinds, names
from nearcast.cli.conditions import condition_lines, condition_of, conditions_of
from nearcast.cli.connect import connected
from nearcast.cli.naming import Reference, named
from nearcast.cli.options import application, command
from nearcast.cli.progress import Ticker, ticking
from nearcast.cli.resources import read
from nearcast.cli.session import Session
from nearcast.client import ControlClient, Document
from nearcast.errors import InvalidInput, Unavailable

COMMANDS: Final = {"wait": application()}
PAUSE_S: Final = 0.2
READY: Final = {"Deployment": "Ready", "Site": "GatewayReady", "Model": "Released", "Policy": "Enforced"}
"""The condition that ``--for ready`` means."""

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Goal:
    """The condition to wait for, and the status that it shall have."""

    condition: str
    status: str = "True"

    def is_met_by(self, document: Document) -> bool:
        """Whether the resource has it, as it stands in ``document``."""
        found = condition_of(document, self.condition)
        return found is not None and found.status == self.status


@command(
    COMMANDS["wait"],
    "wait",
    examples=(
        "wait deployment/magika --for ready --timeout 60s",
        "wait site/frankfurt --for condition=Connected",
        "wait site/frankfurt --for condition=Connected=False --timeout 5m",
    ),
)
def wait(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(metavar="KIND/NAME", help="The resource; its name may also stand apart.", autocompletion=kinds),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Its name, unless after a slash.", autocompletion=names)
    ] = None,
    for_: Annotated[
        str, typer.Option("--for", help="`ready`, or `condition=TYPE`, or `condition=TYPE=STATUS`.")
    ] = "ready",
    timeout: Annotated[str, typer.Option(help="How long: a number with ms, s, m or h.")] = "60s",
) -> None:
    """Wait until a resource is ready, or a condition of it holds.

    Exit code 6 says that the time was up; the conditions are then printed.
    """
    reference, _ = named(what, name)
    goal, timeout_s = goal_of(for_, reference.kind), seconds_of(timeout)
    with connected(session) as client, ticking(f"waiting for {reference}") as ticker:
        await_condition(client, reference, goal, timeout_s, ticker)


def await_condition(
    client: ControlClient,
    reference: Reference,
    goal: Goal,
    timeout_s: float,
    ticker: Ticker,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Document:
    """Ask until ``goal`` is met, and give the resource as it then is.

    Raises:
        NotFound: there is no such resource.
        Unavailable: the time is up; the message holds the conditions.
    """
    deadline = clock() + timeout_s
    while True:
        document = read(client, reference).document
        if goal.is_met_by(document):
            ticker.done(f"{reference} has {goal.condition}={goal.status}")
            return document
        ticker.tell(_missing(document, goal))
        if clock() >= deadline:
            raise _time_is_up(document, reference, goal, timeout_s)
        sleep(PAUSE_S)


def goal_of(text: str, kind: str) -> Goal:
    """What ``--for`` means for a resource of ``kind``.

    Raises:
        InvalidInput: it is neither ``ready`` nor a condition.
    """
    if text.lower() == "ready":
        return Goal(READY[kind])
    word, _, condition = text.partition("=")
    if word != "condition" or not condition:
        raise InvalidInput(f"expected --for ready or --for condition=TYPE[=STATUS], got {text!r}")
    kind_of_condition, _, status = condition.partition("=")
    wanted = (status or "True").capitalize()
    if wanted not in {"True", "False", "Unknown"}:
        raise InvalidInput(f"expected the status True, False or Unknown, got {status!r}")
    return Goal(kind_of_condition, wanted)


def seconds_of(text: str) -> float:
    """A duration such as ``60s``, ``500ms``, ``2m`` or ``90`` in seconds.

    Raises:
        InvalidInput: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"expected a duration, got {text!r}", hint="a number with ms, s, m or h, such as 60s")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def _missing(document: Document, goal: Goal) -> str:
    found = condition_of(document, goal.condition)
    if found is None:
        return f"{goal.condition} is not reported yet"
    return found.message or f"{found.type}={found.status} {found.reason}"


def _time_is_up(document: Document, reference: Reference, goal: Goal, timeout_s: float) -> Unavailable:
    conditions = conditions_of(document)
    lines = condition_lines(conditions) or ["  none yet"]
    return Unavailable(
        "\n".join([f"{reference} does not have {goal.condition}={goal.status} after {timeout_s:g} s", *lines]),
        hint=f"nearcast describe {reference}; nearcast status; nearcast logs",
    )
