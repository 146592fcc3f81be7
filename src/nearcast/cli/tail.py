"""The end of a log file, and what comes after it."""

import os
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 1 << 16


def last_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines of ``path``; none where there is no such file. Reads no more than it needs."""
    return read_end(path, count)[0]


def read_end(path: Path, count: int) -> tuple[list[str], int]:
    """The same, and the offset behind them from which to go on reading."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start, data = end, b""
            while start > 0 and data.count(b"\n") <= count:
                step = min(BLOCK_BYTES, start)
                start -= step
                file.seek(start)
                data = file.read(step) + data
    except FileNotFoundError:
        return [], 0
    lines = data.decode("utf-8", errors="replace").splitlines()
    return (lines[-count:] if count else []), end


def read_on(path: Path, offset: int) -> tuple[list[str], int]:
    """The whole lines after ``offset``, and the offset behind them. A file that shrank is read from its beginning."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < offset:
                offset = 0
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines(), offset + len(whole)
