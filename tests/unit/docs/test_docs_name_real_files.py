"""The pages that walk through the house name files that exist: a renamed file must not leave its old name behind."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    path for folder in ("explanation", "tutorial", "how-to") for path in (ROOT / "docs" / folder).glob("*.md")
)
NAME = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|sh|yaml))`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    names = NAME.findall(page.read_text())
    assert [name for name in names if not (ROOT / name).exists() and not (ROOT / "src/nearcast" / name).exists()] == []


def test_the_architecture_page_names_files_of_every_room_on_the_way() -> None:
    rooms = {name.split("/")[0] for name in NAME.findall((ROOT / "docs/explanation/architecture.md").read_text())}
    assert {"agent", "cli", "control", "engine", "gateway", "planning", "registry"} <= rooms
