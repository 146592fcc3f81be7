"""One line per event, ``key=value``, to standard error; values that need it are quoted as JSON.

It decides the form of a line, not what is worth one. Callers never give it a secret.
"""

import json
import logging
import re
import sys
import time
from typing import Final

NAME: Final = "nearcast.agent"

_plain = re.compile(r"[A-Za-z0-9_.:/@+%-]+")


def set_up(level: str) -> None:
    """Send everything from ``level`` up to standard error.

    Args:
        level: a name of the standard library's levels, in any case.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "tuf", "urllib3", "asyncio"):
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
