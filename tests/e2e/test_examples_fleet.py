"""Every numbered example, run as its README says, on one fleet that all of them share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NUMBERED = sorted(path.name for path in EXAMPLES.iterdir() if path.name[:2].isdigit())


@pytest.mark.e2e
@pytest.mark.timeout(420)
@pytest.mark.parametrize("example", NUMBERED)
def test_the_example_runs_and_its_answers_are_right(example: str, fleet: LocalFleet) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example / "run.py")],
        env=os.environ | {"NEARCAST_DATA_DIR": str(fleet.data_dir)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines()[-1] == f"{example}: ok"
