"""How every process of ours logs: one line per event to standard error or a file, time first, in UTC (RFC 3339).

It decides the form of a line (text for people, or JSON), and how long a file of lines may get; not what is worth one.
Callers never give it a secret. The environment chooses the level and the form for all processes of a fleet at once.
"""

import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")
LEVEL_VARIABLE: Final = "NEARCAST_LOG_LEVEL"
FORMAT_VARIABLE: Final = "NEARCAST_LOG_FORMAT"
"""``json`` for lines of JSON; anything else is text."""
LIMIT_BYTES: Final = 8 * 1024 * 1024
KEPT_BYTES: Final = 1024 * 1024
"""Of a file over the limit, this much of its end stays, in ``<name>.1``."""

CHATTY: Final = ("httpx", "httpcore", "tuf", "urllib3", "asyncio", "alembic")
"""Libraries that tell of every step; of them only warnings are of interest."""

_LINE: Final = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
_TIME: Final = "%Y-%m-%dT%H:%M:%S"

_plain = re.compile(r"[A-Za-z0-9_.:/@+%-]+")
_unseen = re.compile("[\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")
"""What JSON leaves as it is, and a terminal or a reader of lines takes for a command: further controls, ends of lines,
directions of writing."""


def level_in(environment: Mapping[str, str]) -> str:
    """The level that ``environment`` asks for; ``info`` where it does not, or names none."""
    asked = environment.get(LEVEL_VARIABLE, "").lower()
    return asked if asked in LEVELS else "info"


def set_up(level: str | None = None, *, file: Path | None = None) -> None:
    """Send everything from ``level`` up to ``file`` (appended), or to standard error.

    Args:
        level: one of :data:`LEVELS`, in any case; None for what the environment says.
        file: where to; None for standard error.
    """
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    as_json = os.environ.get(FORMAT_VARIABLE, "").lower() == "json"
    handler.setFormatter(_JsonFormatter() if as_json else _Formatter(_LINE, _TIME))
    logging.basicConfig(level=(level or level_in(os.environ)).upper(), handlers=[handler], force=True)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def line(event: str, **fields: object) -> str:
    """``event`` and its fields as one line: ``event key=value key="two words"``. None fields are left out."""
    return " ".join([event, *(f"{name}={_shown(value)}" for name, value in fields.items() if value is not None)])


def _shown(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _plain.fullmatch(text) else _unseen.sub(_spelled, json.dumps(text, ensure_ascii=False))


def _spelled(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def bound(path: Path) -> None:
    """Where the file has grown over :data:`LIMIT_BYTES`, keep its end in ``<name>.1`` and start it anew.

    It is cut short in place, so that a process which appends to it goes on without being told; lines written in the
    moment between copy and cut are lost. Nothing happens where there is no such file.
    """
    try:
        with path.open("rb+") as log:
            if log.seek(0, os.SEEK_END) <= LIMIT_BYTES:
                return
            log.seek(-KEPT_BYTES, os.SEEK_END)
            with path.with_name(f"{path.name}.1").open("wb") as kept:
                shutil.copyfileobj(log, kept)
            log.truncate(0)
    except FileNotFoundError:
        return


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime(_TIME, time.gmtime(record.created))
        shown = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return _unseen.sub(_spelled, json.dumps(shown, ensure_ascii=False))


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - theirs
        return time.strftime(datefmt or _TIME, time.gmtime(record.created))
