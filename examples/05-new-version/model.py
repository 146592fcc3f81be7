"""Write two releases of a wine classifier: the second was trained with another strength of regularisation.

    python model.py OUT_DIR          (writes OUT_DIR/1 and OUT_DIR/2)

`measurements: float32[batch, 13]` -> `probabilities: float32[batch, 3]`
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

REGULARISATION = {"1": 0.01, "2": 1.0}


def wine_data() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """178 wines with 13 measurements each, and which of three growers made them."""
    measurements, grower = load_wine(return_X_y=True)
    return measurements.astype(np.float32), grower


def train(version: str) -> Pipeline:
    """The classifier of one version."""
    classifier = LogisticRegression(C=REGULARISATION[version], max_iter=500)
    return make_pipeline(StandardScaler(), classifier).fit(*wine_data())


def to_onnx(pipeline: Pipeline) -> onnx.ModelProto:
    """Scaling folded into the weights: one matrix product and a Softmax."""
    scaler, classifier = pipeline[0], pipeline[1]
    weights = (classifier.coef_ / scaler.scale_).T
    bias = classifier.intercept_ - scaler.mean_ @ weights
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["measurements", "weights", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        "wine",
        [helper.make_tensor_value_info("measurements", TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        initializer=[
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in {"weights": weights, "bias": bias}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_releases(out_dir: Path) -> dict[str, Path]:
    """Write both; version -> release directory."""
    for version in REGULARISATION:
        (out_dir / version).mkdir(parents=True, exist_ok=True)
        onnx.save(to_onnx(train(version)), out_dir / version / "model.onnx")
    return {version: out_dir / version for version in REGULARISATION}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: model.py OUT_DIR")
    for path in write_releases(Path(sys.argv[1])).values():
        print(f"wrote {path}")
