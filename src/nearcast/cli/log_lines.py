"""Lines of logs: what they say, whichever process wrote them. Pure.

Our processes write ``TIME LEVEL message`` or JSON, Envoy the same form (`gateway.envoy`), and JSON about requests.
What is none of these (a traceback, a library's own words) belongs to the line before it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from nearcast.resources import wire

_LINE: Final = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) (?P<level>[A-Za-z]+) (?P<message>.*)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    Attributes:
        source: which log it is from.
        text: as it was written.
        time: when; None where it does not say.
        level: lower case; empty where it does not say.
        message: what is said.
        fields: further facts, of a line of JSON.
    """

    source: str
    text: str
    time: datetime | None = None
    level: str = ""
    message: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The line as one JSON object."""
        shown = None if self.time is None else self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"source": self.source, "time": shown, "level": self.level, "message": self.message, **self.fields}

    @property
    def shown(self) -> str:
        """The line for people: JSON in the form of all others."""
        if not self.fields or self.time is None:
            return self.text
        return f"{self.time.isoformat(timespec='milliseconds')[:-6]}Z {self.level.upper()} {self.message}"

    def names(self, request_id: str) -> bool:
        """Whether it is about that request: its id stands here as a word."""
        return re.search(rf"(?<![\w-]){re.escape(request_id)}(?![\w-])", self.text) is not None


def parsed(source: str, text: str) -> LogLine:
    """What ``text`` says."""
    if found := _LINE.fullmatch(text):
        return LogLine(source, text, _moment(found["time"]), found["level"].lower(), found["message"])
    if text.startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            return LogLine(source, text, message=text)
        moment = _moment(str(fields.pop("time", "")))
        level, message = str(fields.pop("level", "")), str(fields.pop("message", ""))
        if "status" in fields:
            level, message = level or _level_of(fields), message or _request(fields)
        return LogLine(source, text, moment, level, message, fields)
    return LogLine(source, text, message=text)


def read(source: str, texts: Iterable[str]) -> Iterator[LogLine]:
    """All of ``texts``; a line without a time has that of the one before it."""
    before: datetime | None = None
    for text in texts:
        found = parsed(source, text)
        if found.time is None and before is not None:
            found = LogLine(source, text, before, found.level, found.message, found.fields)
        before = found.time
        yield found


def in_order(lines: Iterable[LogLine]) -> list[LogLine]:
    """By time; those without one first, and of one moment in the order in which they came."""
    return sorted(lines, key=lambda each: each.time or datetime.min.replace(tzinfo=UTC))


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _level_of(fields: dict[str, Any]) -> str:
    return "error" if int(fields["status"] or 0) >= 500 else "warning" if int(fields["status"] or 0) >= 400 else "info"


def _request(fields: dict[str, Any]) -> str:
    what = f"{fields.get('method')} {fields.get('path')} {fields['status']}"
    told = (wire.REQUEST_ID.removeprefix("x-").replace("-", "_"), "model", "site", "reason", "error", "duration_ms")
    return " ".join([what, *(f"{name}={fields[name]}" for name in told if fields.get(name) not in {None, ""})])
