"""How things are shown: data on standard output in three formats, notes and progress on standard error.

Decides the form, not the content. Where standard output is no terminal there are no colours, and no line is cut and no
table folded, so that it survives a pipe. Text is shown as it is: brackets are no markup, and control characters, which
nodes and models of others could send to the terminal, are replaced.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import yaml
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nearcast.cli.options import Format

WIDE: Final = 400
"""Columns assumed where nobody looks: wider than any table of ours."""

GAP: Final = 3
"""Blanks between two columns."""

Cell = str | Text
TooWide = Literal["wrap", "fold", "wide"]
_OBEYED: Final = frozenset(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))) - {"\n", "\t"}
STYLES: Final = {"ready": "green", "true": "green", "yes": "green", "serving": "green", "created": "green"}
STYLES_OF_TROUBLE: Final = {"no": "red", "false": "red", "failed": "red", "refused": "red", "unreachable": "red"}


def data_console() -> Console:
    """Standard output."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=False)


def note_console() -> Console:
    """Standard error."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else WIDE, highlight=False)


def plain(cell: Cell) -> Text:
    """``cell`` with nothing in it that a terminal would obey, and no markup."""
    text = cell if isinstance(cell, Text) else Text(cell)
    if not any(character in _OBEYED for character in text.plain):
        return text
    shown = "".join("\ufffd" if character in _OBEYED else character for character in text.plain)
    return Text(shown, style=text.style, spans=list(text.spans))


def note(text: Cell) -> None:
    """Tell the person something; never parsed by programs."""
    note_console().print(plain(text), soft_wrap=True)


def coloured(word: str) -> Text:
    """``word`` in the colour of good or bad news, where it is one of either."""
    style = STYLES.get(word.lower()) or STYLES_OF_TROUBLE.get(word.lower()) or ""
    return Text(word, style=style)


def show_document(document: Any, form: Format) -> None:
    """Print a JSON-able value as JSON or YAML."""
    if form is Format.YAML:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=WIDE)
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str = "", too_wide: TooWide = "wrap"
) -> None:
    """Print rows under headings; columns whose heading begins with ``>`` are numbers and stand to the right.

    Args:
        columns: headings.
        rows: a cell for each.
        title: a line above.
        too_wide: what becomes of a table that is wider than the terminal: cells are wrapped, columns that do not fit
            come in further tables below, beside the first column, or lines are left to the terminal.
    """
    if title:
        data_console().print(Text(title, style="bold"))
    cells = [[plain(cell) for cell in row] for row in rows]
    console = data_console()
    widths = [
        max(cell_len(column.lstrip(">")), *(row[n].cell_len for row in cells), 0) for n, column in enumerate(columns)
    ]
    if too_wide == "wide":
        wanted = max(console.width, sum(widths) + GAP * len(widths))
        console = Console(file=sys.stdout, width=wanted, height=console.height, highlight=False)
    blocks = folded(widths, console.width) if too_wide == "fold" else [tuple(range(len(columns)))]
    for number, block in enumerate(blocks):
        if number:
            console.print()
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
        for n in block:
            right = columns[n].startswith(">")
            table.add_column(
                columns[n].lstrip(">").upper(),
                justify="right" if right else "left",
                no_wrap=too_wide == "fold" and (right or n == 0),
            )
        for row in cells:
            table.add_row(*(row[n] for n in block))
        _print_trimmed(table, console)


def folded(widths: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Columns of each table into which one with columns of ``widths`` is folded so that it fits ``width``: the first
    column stands in each, the others in their order, at least one in each."""
    blocks: list[list[int]] = [[]]
    for n in range(1, len(widths)):
        wanted = [0, *blocks[-1], n]
        if blocks[-1] and sum(widths[each] for each in wanted) + GAP * (len(wanted) - 1) > width:
            blocks.append([])
        blocks[-1].append(n)
    return [(0, *block) for block in blocks][: len(widths)]


def show_lines(*lines: Cell) -> None:
    """Print lines of a table's kind: text for people that is the answer to their question."""
    console = data_console()
    for line in lines:
        console.print(plain(line), soft_wrap=True)


def show_prose(*lines: Cell) -> None:
    """Print sentences; on a terminal that is narrower they go on in the next line, between two words."""
    console = data_console()
    for line in lines:
        if console.is_terminal:
            console.print(plain(line))
        else:
            console.print(plain(line), soft_wrap=True)


def show_pairs(pairs: Iterable[tuple[str, Cell]]) -> None:
    """Print names and values, aligned."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(plain(name), plain(value))
    _print_trimmed(table, data_console())


def _print_trimmed(table: Table, console: Console) -> None:
    """Print a table; away from a terminal without the blanks that fill its last column."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()


def milliseconds(value: float | None) -> str:
    """A time for people; an unknown one is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(size_bytes: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("the last unit takes everything")
