"""How a device that models run on is named: on the command lines of agents and engines."""

import re
from typing import Final, Literal

from nearcast.errors import InvalidInput

DEVICE_RULE: Final = "auto, cpu, cuda or cuda:INDEX"

_RULE: Final = re.compile(r"(auto|cpu|cuda)(?::([0-9]{1,3}))?")

Wish = Literal["auto", "cpu", "cuda"]


def parse_device(text: str) -> tuple[Wish, int]:
    """What ``text`` asks for, and the index of the device.

    Raises:
        InvalidInput: it is not of :data:`DEVICE_RULE`.
    """
    match = _RULE.fullmatch(text)
    if match is None or (match[2] is not None and match[1] != "cuda"):
        raise InvalidInput(f"expected a device of {DEVICE_RULE}; got {text!r}")
    wish: Wish = "auto" if match[1] == "auto" else "cpu" if match[1] == "cpu" else "cuda"
    return wish, int(match[2] or 0)
