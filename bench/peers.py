"""Environments for the peers that we measure ourselves against: one virtual environment each, kept in build/peers/.

Peers pin dependencies that contradict one another and ours, so none of them is installed beside nearcast. Exact
versions stand in bench/peers.txt, which is a pip constraints file.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "peers"
PINS = ROOT / "bench" / "peers.txt"


def environment(name: str, *requirements: str) -> Path:
    """The folder of a virtual environment that holds `requirements`; installed once, again when they or pins change.

    Args:
        name: of the folder in build/peers/.
        requirements: as pip takes them, without versions: those come from bench/peers.txt.
    """
    home = PEERS / name
    wanted = hashlib.sha256("\n".join((*requirements, PINS.read_text())).encode()).hexdigest()
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return home
    print(f"installing {' '.join(requirements)} for the comparison (once)", file=sys.stderr)
    venv.create(home, with_pip=True, clear=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(PINS), *requirements], check=True, timeout=900)
    stamp.write_text(wanted)
    return home
