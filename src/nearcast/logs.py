"""How every process of ours logs: one line per event to standard error or a file, time first, in UTC (RFC 3339).

It decides the form of a line, not what is worth one. Callers never give it a secret.
"""

import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Final

CHATTY: Final = ("httpx", "httpcore", "tuf", "urllib3", "asyncio")
"""Libraries that tell of every step; of them only warnings are of interest."""

_plain = re.compile(r"[A-Za-z0-9_.:/@+%-]+")


def set_up(level: str = "INFO", *, file: Path | None = None) -> None:
    """Send everything from ``level`` up to ``file`` (appended), or to standard error.

    Args:
        level: a name of the standard library's levels, in any case.
        file: where to; None for standard error.
    """
    handler = logging.FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def line(event: str, **fields: object) -> str:
    """``event`` and its fields as one line: ``event key=value key="two words"``. None fields are left out."""
    return " ".join([event, *(f"{name}={_shown(value)}" for name, value in fields.items() if value is not None)])


def _shown(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _plain.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - theirs
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
