"""What is shown is what was said: no markup, and nothing that a terminal would obey."""

import pytest
from rich.text import Text

from nearcast.cli.screen import note, plain, show_lines, show_pairs, show_table

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
