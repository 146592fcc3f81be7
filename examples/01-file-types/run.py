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

from fleet import Fleet, Mismatch, expect

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


def check_gateway(name: str, url: str, paths: list[Path], magika: Magika) -> None:
    """Ask one gateway in three ways; the answers are magika's, and Frankfurt computed them."""
    rules = load_rules()
    for binary in (True, False):
        verdicts, answer = classify(url, paths, binary=binary)
        check_equal(name, paths, verdicts, magika)
        if answer is None:
            raise Mismatch(f"{name}: no file needed the model")
        expect(answer.site == "frankfurt", f"{name}: expected an answer from frankfurt, got one from {answer.site}")
        expect(answer.model == "magika@3.3", f"{name}: expected magika@3.3, got {answer.model}")
        print(f"  {name}: {len(paths)} files as magika says; computed at {answer.site}: {answer.reason}")
    large = [path for path in paths if known_without_model(read_ends(path, rules), rules) is None]
    check_equal(name, large, ask_with_tritonclient(url, large), magika)


def main() -> None:
    """Push, deploy to Frankfurt, ask everywhere."""
    fleet, magika = Fleet(), Magika()
    with tempfile.TemporaryDirectory() as scratch:
        fleet.push("magika", "3.3", write_release(Path(scratch) / "release"))
        fleet.apply(HERE / "deployment.yaml", "magika")
        paths = write_samples(Path(scratch) / "samples")
        for name, url in fleet.gateways().items():
            check_gateway(name, url, paths, magika)
    print("01-file-types: ok")


if __name__ == "__main__":
    main()
