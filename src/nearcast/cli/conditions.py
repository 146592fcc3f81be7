"""Conditions and statuses of resources, read out of documents and put into words."""

from typing import Any

import msgspec
from rich.text import Text

from nearcast.cli.screen import coloured
from nearcast.client import ConditionView, Document


def conditions_of(document: Document) -> tuple[ConditionView, ...]:
    """``status.conditions`` of a resource; empty where it has none yet."""
    found = (document.get("status") or {}).get("conditions") or []
    return tuple(msgspec.convert(item, ConditionView) for item in found)


def condition_of(document: Document, kind: str) -> ConditionView | None:
    """The condition of type ``kind``, in any case, or None."""
    wanted = kind.lower()
    return next((item for item in conditions_of(document) if item.type.lower() == wanted), None)


def trouble_in(conditions: tuple[ConditionView, ...]) -> str:
    """The conditions that do not hold, in one line; empty when all is well."""
    return "; ".join(f"{item.type}: {item.reason}" for item in conditions if item.status != "True")


def condition_rows(conditions: tuple[ConditionView, ...]) -> list[tuple[str | Text, ...]]:
    """Type, status, since, reason, message."""
    return [
        (item.type, coloured(item.status), since(item.last_transition_time), item.reason, item.message)
        for item in conditions
    ]


def condition_lines(conditions: tuple[ConditionView, ...]) -> list[str]:
    """One line per condition, for messages."""
    return [
        f"  {item.type}={item.status} {item.reason}" + (f": {item.message}" if item.message else "")
        for item in conditions
    ]


def since(moment: str) -> str:
    """A moment without its fraction of a second."""
    head, dot, _ = moment.partition(".")
    return f"{head}Z" if dot else moment


def details_of(document: Document) -> dict[str, Any]:
    """``status.details``; empty where there are none yet."""
    return dict((document.get("status") or {}).get("details") or {})
