"""Example 02 without a fleet: the ONNX graph that we write equals the float64 computation from the same weights."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def release(load_example: Load, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = load_example("02-sentence-embeddings/model.py").write_release(tmp_path_factory.mktemp("minilm"))
    return path


def _embed(release: Path, texts: list[str], *, extra_padding: int = 0) -> NDArray[np.float32]:
    """One padded batch through ONNX Runtime: float32[texts, 384]."""
    session = onnxruntime.InferenceSession(str(release / "model.onnx"))
    encodings = Tokenizer.from_file(str(release / "tokenizer.json")).encode_batch(texts)
    width = max(len(encoding.ids) for encoding in encodings) + extra_padding
    inputs = {
        name: np.zeros((len(texts), width), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for row, encoding in enumerate(encodings):
        inputs["input_ids"][row, : len(encoding.ids)] = encoding.ids
        inputs["attention_mask"][row, : len(encoding.ids)] = 1
    vectors: NDArray[np.float32] = session.run(["sentence_embedding"], inputs)[0]
    return vectors


def test_the_graph_equals_an_independent_float64_computation(load_example: Load, release: Path) -> None:
    reference = load_example("02-sentence-embeddings/reference.py")
    model = reference.Reference()
    wanted = np.stack([model.embed(text) for text in reference.TEXTS])
    vectors = _embed(release, reference.TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(reference.TEXTS), 384)
    assert (vectors * wanted).sum(axis=1).min() > 0.99999
    assert np.abs(vectors - wanted).max() < 1e-5


def test_texts_of_like_meaning_are_near_and_padding_changes_nothing(load_example: Load, release: Path) -> None:
    texts = load_example("02-sentence-embeddings/reference.py").TEXTS
    vectors = _embed(release, texts[:3])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert np.abs(vectors - _embed(release, texts[:3], extra_padding=40)).max() < 1e-5


def test_the_release_reads_256_tokens_and_holds_two_files(load_example: Load, release: Path) -> None:
    assert sorted(path.name for path in release.iterdir()) == ["model.onnx", "tokenizer.json"]
    reference = load_example("02-sentence-embeddings/reference.py")
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    assert len(tokenizer.encode(reference.TOO_LONG).ids) == 256
    assert len(tokenizer.encode("word").ids) == 3
    tokenizer.no_truncation()
    assert len(tokenizer.encode(reference.TOO_LONG).ids) > 256
    assert 230 <= len(tokenizer.encode(reference.TEXTS[-1]).ids) <= 256
