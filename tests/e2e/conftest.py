"""One fleet for all end-to-end tests that do not break it; tests that kill processes start their own."""

from collections.abc import Iterator

import pytest

from e2e.local_fleet import LocalFleet, local_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    """Three sites, up and ready. Tests leave nothing deployed that could mislead another test."""
    with local_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running
