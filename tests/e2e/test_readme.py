"""The quickstart of the README works as it stands: its commands, in order, in one shell.

A block counts when the line `<!-- quickstart -->` stands right above its fence.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^<!-- quickstart -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_quickstart_asks_one_model_through_all_three_gateways(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert blocks, "README.md has no block marked <!-- quickstart -->"
    environment = os.environ | {"NEARCAST_DATA_DIR": str(tmp_path / "fleet"), "TERM": "dumb"}
    script = "set -euo pipefail\n" + "\n".join(blocks)
    try:
        done = subprocess.run(
            ["/usr/bin/env", "bash", "-c", script],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        subprocess.run(["make", "down"], cwd=ROOT, env=environment, timeout=120, check=True, capture_output=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answers = re.findall(r"^computed at (\S+) by (\S+); why there: (\w+)", done.stdout, re.MULTILINE)
    assert answers == [
        ("frankfurt", "magika@3.3", "local"),
        ("frankfurt", "magika@3.3", "nearest"),
        ("frankfurt", "magika@3.3", "nearest"),
    ]
