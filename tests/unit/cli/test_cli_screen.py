"""What is shown is what was said: no markup, and nothing that a terminal would obey."""

import io
import sys

import pytest
from rich.text import Text

from nearcast.cli.progress import Seldom, shortened
from nearcast.cli.screen import folded, milliseconds, note, plain, show_lines, show_pairs, show_prose, show_table

SAID = "expected float32[batch], got [/tmp/x] \x1b]0;title\x1b\\\x1b[31m\x9b"
SHOWN = "expected float32[batch], got [/tmp/x] \ufffd]0;title\ufffd\\\ufffd[31m\ufffd"


def test_tables_pairs_lines_and_notes_show_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("message",), [(SAID,)])
    show_pairs([("name[x]", SAID)])
    show_lines(SAID)
    note(SAID)
    shown = capsys.readouterr()
    assert shown.out == f"MESSAGE\n{SHOWN}\nname[x]  {SHOWN}\n{SHOWN}\n"
    assert shown.err == f"{SHOWN}\n"


def test_colours_of_our_own_stay() -> None:
    cleaned = plain(Text.assemble(("no\x1b", "red"), " way"))
    assert cleaned.plain == "no\ufffd way"
    assert [(span.start, span.end, span.style) for span in cleaned.spans] == [(0, 3, "red")]


class Terminal(io.StringIO):
    """Standard output of somebody who looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """80 columns, no colours. Tests put it in place themselves: pytest has its own until they begin."""
    for name, value in {"COLUMNS": "80", "LINES": "25", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


WIDE = (("place", *(f">figure {n}" for n in range(10))), [("a", *["1.5"] * 10), ("frankfurt", *["1,234.5"] * 10)])


def test_a_table_that_is_too_wide_is_folded_where_somebody_looks(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    show_table(*WIDE, too_wide="fold")
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.strip()] == ["PLACE", "a", "frankfurt"] * 2
    for n in range(10):
        assert sum(f"FIGURE {n}" in line for line in lines) == 1, "nothing is lost"
    assert "1,234.5" in lines[-1]


def test_a_wide_table_is_left_to_the_terminal_on_demand(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    show_table(*WIDE, too_wide="wide")
    head, *rows = terminal.getvalue().splitlines()
    assert (head.count("FIGURE"), len(rows)) == (10, 2)
    assert rows[1].count("1,234.5") == 10, "nothing is cut"


def test_nothing_is_folded_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(*WIDE, too_wide="fold")
    assert capsys.readouterr().out.splitlines()[0].count("FIGURE") == 10


@pytest.mark.parametrize(
    ("widths", "width", "blocks"),
    [
        ([], 80, []),
        ([5], 80, [(0,)]),
        ([5, 10, 10], 31, [(0, 1, 2)]),
        ([5, 10, 10], 30, [(0, 1), (0, 2)]),
        ([5, 90, 10], 30, [(0, 1), (0, 2)]),
    ],
)
def test_columns_are_folded_in_their_order(widths: list[int], width: int, blocks: list[tuple[int, ...]]) -> None:
    assert folded(widths, width) == blocks


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (0.126, "0.13"), (12.34, "12.3"), (3196.2, "3,196")])
def test_times_for_people(value: float | None, shown: str) -> None:
    assert milliseconds(value) == shown


def test_prose_goes_on_between_words_and_is_whole_in_a_pipe(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(["answers"] * 60)
    show_prose(words)
    assert capsys.readouterr().out == f"{words}\n"
    monkeypatch.setattr(sys, "stdout", terminal)
    show_prose(words)
    lines = terminal.getvalue().splitlines()
    assert {word for line in lines for word in line.split()} == {"answers"}
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("text", "longest", "shown"),
    [
        ("singapore: the gateway of singapore", 40, "singapore: the gateway of singapore"),
        ("singapore: the gateway of singapore", 30, "singapore: the gateway of…"),
        ("one, two", 7, "one…"),
        ("unbreakable", 6, "unbre…"),
    ],
)
def test_what_is_too_long_for_a_line_ends_behind_a_word(text: str, longest: int, shown: str) -> None:
    assert shortened(text, longest) == shown
    assert len(shown) <= longest


def test_long_work_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 9.0, 10.0, 10.0, 15.0, 21.0, 21.0])
    seldom = Seldom(10.0, lambda: next(moments))
    for part in ("10 %", "20 %", "30 %", "40 %"):
        seldom.tell(part)
    assert capsys.readouterr().err == "20 %\n40 %\n"
