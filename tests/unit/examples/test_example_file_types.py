"""Example 01 without a fleet: our features and rules, with the model run here, say what magika says."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from magika import Magika

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def classify(load_example: Load) -> ModuleType:
    return load_example("01-file-types/classify.py")


@pytest.fixture(scope="module")
def samples(load_example: Load, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths: list[Path] = load_example("01-file-types/samples.py").write_samples(tmp_path_factory.mktemp("samples"))
    assert len(paths) >= 30
    return paths


@pytest.fixture(scope="module")
def magika() -> Magika:
    return Magika()


def _our_labels(
    classify: ModuleType, session: onnxruntime.InferenceSession, paths: list[Path]
) -> list[tuple[str, float]]:
    rules = classify.load_rules()
    verdicts = []
    for path in paths:
        ends = classify.read_ends(path, rules)
        verdict = classify.known_without_model(ends, rules)
        if verdict is None:
            tokens = classify.features(ends, rules)
            assert tokens.dtype == np.int32
            assert tokens.shape == (2048,)
            verdict = classify.judge(session.run(None, {"bytes": tokens[None]})[0][0], rules)
        verdicts.append((verdict.label, verdict.score))
    return verdicts


def test_our_labels_equal_magikas_on_real_files(
    load_example: Load, classify: ModuleType, samples: list[Path], magika: Magika, tmp_path: Path
) -> None:
    release = load_example("01-file-types/model.py").write_release(tmp_path / "release")
    assert sorted(path.name for path in release.iterdir()) == ["config.min.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(release / "model.onnx"))
    theirs = {
        path.name: str(result.output.label)
        for path, result in zip(samples, magika.identify_paths(samples), strict=True)
    }
    ours = {path.name: label for path, (label, _) in zip(samples, _our_labels(classify, session, samples), strict=True)}
    assert ours == theirs
    # the samples are worth something: many kinds, and the corners where magika overrides the model
    assert len(set(theirs.values())) >= 20
    assert {"empty", "txt", "unknown", "python", "png", "pdf", "zip", "html", "json"} <= set(theirs.values())


def test_our_labels_equal_magikas_where_the_model_is_unsure(
    classify: ModuleType, magika: Magika, tmp_path: Path
) -> None:
    """Cut and mixed files score low, so that thresholds and the overwrite map decide."""
    random = np.random.default_rng(11)
    words = [b"def ", b"SELECT ", b"<p>", b"{", b"\n", b"the ", b"\x00\x01", b"0,1,2\n", b"# ", b"int main()", b" "]
    paths = []
    for number in range(150):
        path = tmp_path / f"{number:03d}"
        path.write_bytes(b"".join(words[i] for i in random.integers(0, len(words), int(random.integers(1, 900)))))
        paths.append(path)
    model = Path(str(magika._model_path))
    ours = _our_labels(classify, onnxruntime.InferenceSession(str(model)), paths)
    results = [magika.identify_path(path) for path in paths]  # singly: in a batch the sums round otherwise
    assert [label for label, _ in ours] == [str(result.output.label) for result in results]
    assert [score for _, score in ours] == pytest.approx([result.score for result in results], abs=1e-5)
    assert sum(result.score < 0.5 for result in results if str(result.dl.label) != "undefined") >= 10
