"""Check example 05 against a running fleet: a version changes under load, forth and back, and no request fails.

python run.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from load import Load, Tally, first_wine
from model import train, wine_data, write_releases

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet, expect, until

HERE = Path(__file__).resolve().parent


def change_under_load(fleet: Fleet, urls: list[str], old: str, new: str) -> dict[str, Tally]:
    """Switch from version `old` to `new` while every gateway is asked; what came back, per gateway."""
    with Load(urls, first_wine()) as load:
        tallies = load.tallies.values()
        until(
            lambda: all(tally.answers[f"wine@{old}"] >= 10 for tally in tallies),
            f"no answers by {old} before the change",
        )
        fleet.apply(HERE / f"wine-{new}.yaml", "wine")
        until(
            lambda: all(tally.last == f"wine@{new}" for tally in tallies),
            f"{new} is ready but does not answer everywhere",
        )
        before = {url: tally.answers[f"wine@{new}"] for url, tally in load.tallies.items()}
        until(
            lambda: all(tally.answers[f"wine@{new}"] >= before[url] + 10 for url, tally in load.tallies.items()),
            f"{new} stopped answering",
        )
    return load.tallies


def main() -> None:
    """Push both, deploy the first, change under load, look at every answer."""
    fleet = Fleet()
    gateways = fleet.gateways()
    with tempfile.TemporaryDirectory() as scratch:
        for version, directory in write_releases(Path(scratch)).items():
            fleet.push("wine", version, directory)
    wanted = {f"wine@{version}": train(version).predict_proba(wine_data()[0][:1])[0] for version in ("1", "2")}
    try:
        fleet.apply(HERE / "wine-1.yaml", "wine")
        for old, new in (("1", "2"), ("2", "1")):
            for url, tally in change_under_load(fleet, list(gateways.values()), old, new).items():
                expect(not tally.failures, f"{url}: {len(tally.failures)} requests failed, first: {tally.failures[:1]}")
                expect(set(tally.answers) <= set(wanted), f"{url}: answers by {set(tally.answers)}")
                for name, outputs in tally.outputs.items():
                    right = all(np.allclose(output, wanted[name], atol=1e-4) for output in outputs)
                    expect(right, f"{url}: {name} answered {outputs}, scikit-learn says {wanted[name]}")
                print(f"  {old} -> {new}, {url}: {dict(tally.answers)}, 0 failed")
    finally:
        fleet.delete("deployment/wine")
    print("05-new-version: ok")


if __name__ == "__main__":
    main()
