"""Progress on standard error: one moving line on a terminal, one line per change anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.status import Status
from rich.text import Text

from nearcast.cli.screen import note, note_console, plain

LONGEST: Final = 160
PAUSE_S: Final = 3.0
"""Between two lines where standard error is no terminal."""


class Ticker:
    """Says what is being waited for: on a terminal at once, elsewhere only what is new, and not every moment."""

    def __init__(self, title: str, line: Status | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._line = line
        self._clock = clock
        self._started_s = clock()
        self._said = ""
        self._said_s = -PAUSE_S

    def tell(self, text: str) -> None:
        """What is missing now."""
        text = shortened(" ".join(text.split()), LONGEST)
        if self._line is not None:  # one line, whatever it says
            text = shortened(text, max(20, self._line.console.width - len(self._title) - 14))
            self._line.update(plain(f"{self._title}: {text} ({self._clock() - self._started_s:.0f} s)"))
        elif text != self._said and self._clock() >= self._said_s + PAUSE_S:
            note(f"{self._title}: {text}")
            self._said, self._said_s = text, self._clock()

    def step(self, text: str) -> None:
        """Something is done, and more is to come."""
        if self._line is not None:
            self._line.console.print(Text.assemble(("✓ ", "green"), plain(text)))
        else:
            note(text)

    def done(self, text: str) -> None:
        """It is over."""
        self.step(f"{text} ({self._clock() - self._started_s:.1f} s)")


def shortened(text: str, longest: int) -> str:
    """``text`` in ``longest`` characters: cut behind a word, which an ellipsis shows."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 1].rsplit(' ', 1)[0].rstrip(',;:')}…"


class Seldom:
    """Says how far long work is, away from a terminal: nothing of short work, then a line every ``pause_s``."""

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._said_s = clock()

    def tell(self, text: str) -> None:
        """How far it is."""
        if self._clock() >= self._said_s + self._pause_s:
            note(text)
            self._said_s = self._clock()


@contextmanager
def ticking(title: str) -> Iterator[Ticker]:
    """A ticker that lives as long as the block."""
    if not sys.stderr.isatty():
        yield Ticker(title, None)
        return
    with note_console().status(plain(title)) as line:
        yield Ticker(title, line)


@contextmanager
def transferring() -> Iterator[Progress]:
    """Bars for transfers; silent where standard error is no terminal."""
    what = TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()) as progress:
        yield progress
