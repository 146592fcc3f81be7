"""Environments for the peers that we measure ourselves against: one virtual environment each, kept in build/peers/.

Peers pin dependencies that contradict one another and ours, so none of them is installed beside nearcast. Exact
versions stand in bench/peers.txt, which is a pip constraints file.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "peers"
PINS = ROOT / "bench" / "peers.txt"


def environment(name: str, *requirements: str, base: str = sys.executable) -> Path:
    """The folder of a virtual environment that holds `requirements`; installed once, again when they or pins change.

    Args:
        name: of the folder in build/peers/.
        requirements: as pip takes them, without versions: those come from bench/peers.txt.
        base: the Python that it is made of.
    """
    home = PEERS / name
    names = {re.split(r"[\[<>=]", each)[0] for each in requirements}
    pins = [line for line in PINS.read_text().splitlines() if line.partition("==")[0] in names]
    wanted = hashlib.sha256("\n".join((base, *requirements, *pins)).encode()).hexdigest()
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return home
    print(f"installing {' '.join(requirements)} for the comparison (once)", file=sys.stderr)
    subprocess.run([base, "-m", "venv", "--clear", "--without-pip", str(home)], check=True, timeout=120)
    python = str(home / "bin" / "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "-q",
    ]
    subprocess.run([*pip, "--constraint", str(PINS), *requirements], check=True, timeout=900)
    stamp.write_text(wanted)
    return home
