"""Run the benchmarks and keep everything: `python -m bench [PART ...]`, or `--page` to draw again.

Writes bench/results/{machine,PART}.json, and from them docs/explanation/benchmarks.md with its plots.
A part is a module of this package with `run(folder)`, and one of bench.report that draws it. A part that is not named
keeps the results of its last run.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "explanation" / "benchmarks.md"
PARTS = ("gateway", "ablation", "end_to_end", "engine", "fleet", "network", "planner", "twin")
"""In the order of the page."""
BY_HAND = ("cuda",)
"""Parts of the page that are measured elsewhere, each by a command of its own; drawn where their results are kept."""

sys.path.insert(0, str(ROOT / "tests"))  # the fleet's benchmark drives a fleet as the end-to-end tests do

from bench import machine, report  # noqa: E402


def main() -> None:
    """Measure what is named, or everything; then write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of {', '.join(PARTS)}; all by default")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page from kept results")
    given = parser.parse_args()
    parts = () if given.page else given.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    if parts:
        RESULTS.mkdir(parents=True, exist_ok=True)
    record = machine.record() | {"commits": _commits()}
    for part in parts:
        print(f"measuring {part}", file=sys.stderr)
        commit = machine.commit()
        with tempfile.TemporaryDirectory(prefix="nb-") as folder:
            _keep(part, importlib.import_module(f"bench.{part}").run(Path(folder)))
        record["commits"][part] = commit
        _keep("machine", record)
    _write_page()


def _commits() -> dict[str, str]:
    """Of the parts that are kept, what each was measured on."""
    path = RESULTS / "machine.json"
    return dict(json.loads(path.read_text())["commits"]) if path.exists() else {}


def _keep(name: str, result: object) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def _write_page() -> None:
    paths = {name: RESULTS / f"{name}.json" for name in (*PARTS, *BY_HAND)}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    report.write(json.loads((RESULTS / "machine.json").read_text()), results, PAGE)
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
