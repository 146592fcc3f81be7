"""Golden pairs: an input beside the output that it must give; `pytest tests/golden --update-golden` rewrites outputs.

Read the difference before committing it: an output is right because somebody looked at it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", default=False, help="write the outputs of golden tests anew"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with the one in a file, or write it there under ``--update-golden``."""
    update = request.config.getoption("--update-golden", default=False)

    def check(path: Path, text: str) -> None:
        if update:
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest tests/golden --update-golden, and read what it wrote"
        assert text == path.read_text(), f"differs from {path.name}; --update-golden writes it anew"

    return check
