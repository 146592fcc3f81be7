"""Check example 01 against a running fleet: every answer must equal magika's own, at every gateway.

python run.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import tritonclient.http
from classify import Verdict, classify, features, judge, known_without_model, load_rules, read_ends
from magika import Magika
from model import write_release
from samples import write_samples

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet, expect

HERE = Path(__file__).resolve().parent


def check_equal(site: str, paths: list[Path], ours: list[Verdict], magika: Magika) -> None:
    """Compare our verdicts with magika's, file by file. Scores depend a little on who shares the batch."""
    for path, verdict, theirs in zip(paths, ours, magika.identify_paths(paths), strict=True):
        expect(
            verdict.label == str(theirs.output.label) and abs(verdict.score - theirs.score) < 2e-3,
            f"{site}: {path.name}: got {verdict.label} ({verdict.score:.5f}), "
            f"magika says {theirs.output.label} ({theirs.score:.5f})",
        )


def ask_with_tritonclient(gateway_url: str, paths: list[Path]) -> list[Verdict]:
    """The verdicts on those of `paths` that need the model, by tritonclient alone."""
    rules = load_rules()
    tokens = np.stack([features(read_ends(path, rules), rules) for path in paths])
    tensor = tritonclient.http.InferInput("bytes", list(tokens.shape), "INT32")
    tensor.set_data_from_numpy(tokens)
    client = tritonclient.http.InferenceServerClient(gateway_url.removeprefix("http://"))
    try:
        expect(client.is_model_ready("magika"), f"{gateway_url}: tritonclient says that magika is not ready")
        result = client.infer("magika", [tensor])
    finally:
        client.close()
    return [judge(row, rules) for row in result.as_numpy("target_label")]


def main() -> None:
    """Push, deploy to Frankfurt, ask everywhere in three ways, compare."""
    fleet, magika, rules = Fleet(), Magika(), load_rules()
    with tempfile.TemporaryDirectory() as scratch:
        fleet.push("magika", "3.3", write_release(Path(scratch) / "release"))
        fleet.apply(HERE / "deployment.yaml", "magika")
        paths = write_samples(Path(scratch) / "samples")
        for site, url in fleet.gateways().items():
            for binary in (True, False):
                verdicts, answer = classify(url, paths, binary=binary)
                check_equal(site, paths, verdicts, magika)
                expect(answer is not None and answer.site == "frankfurt", f"{site}: expected frankfurt, got {answer}")
                expect(
                    answer is not None and answer.model == "magika@3.3", f"{site}: expected magika@3.3, got {answer}"
                )
            large = [path for path in paths if known_without_model(read_ends(path, rules), rules) is None]
            check_equal(site, large, ask_with_tritonclient(url, large), magika)
            print(f"  {site}: {len(paths)} files as magika says; computed at {answer.site}: {answer.reason}")
    print("01-file-types: ok")


if __name__ == "__main__":
    main()
