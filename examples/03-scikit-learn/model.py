"""Train a classifier and a regressor on scikit-learn's bundled data, and write both as ONNX.

    python model.py OUT_DIR          (writes OUT_DIR/digits and OUT_DIR/diabetes)

* `digits`: scaled pixels, one hidden layer. Plain ONNX operations. `pixels: float32[batch, 64]` ->
  `label: int64[batch]`, `probabilities: float32[batch, 10]`.
* `diabetes`: a random forest, by ONNX's own operation for tree ensembles (domain `ai.onnx.ml`).
  `features: float32[batch, 10]` -> `progression: float32[batch, 1]`.

Training is repeatable: the same machine and versions give the same models.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[Any]
IR_VERSION = 9


def digits_data() -> tuple[Array, Array]:
    """1797 pictures of 8 x 8 pixels, and the digit that each shows."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels


def diabetes_data() -> tuple[Array, Array]:
    """442 patients with 10 measurements each, and how far the disease went in a year."""
    features, progression = load_diabetes(return_X_y=True)
    return features.astype(np.float32), progression


def train_digits() -> Pipeline:
    """A scaler and a small neural network; every fifth picture is kept for the questions."""
    pixels, labels = digits_data()
    train = np.arange(len(pixels)) % 5 != 0
    network = MLPClassifier(hidden_layer_sizes=(48,), max_iter=400, random_state=0)
    return make_pipeline(StandardScaler(), network).fit(pixels[train], labels[train])


def train_diabetes() -> RandomForestRegressor:
    """A forest of 60 trees; every fifth patient is kept for the questions."""
    features, progression = diabetes_data()
    train = np.arange(len(features)) % 5 != 0
    return RandomForestRegressor(n_estimators=60, max_depth=8, random_state=0).fit(features[train], progression[train])


def digits_onnx(pipeline: Pipeline) -> onnx.ModelProto:
    """The pipeline as a graph: scale, multiply, Relu, multiply, Softmax, and the label of the largest."""
    scaler, network = pipeline[0], pipeline[1]
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    floats = {"mean": scaler.mean_, "scale": scaler.scale_, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in floats.items()]
    constants.append(numpy_helper.from_array(network.classes_.astype(np.int64), "classes"))
    nodes = [
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Gather", ["classes", "best"], ["label"]),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(network.classes_)]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", len(scaler.mean_)])
    graph = helper.make_graph(nodes, "digits", [pixels], outputs, initializer=constants)
    return checked(graph, helper.make_opsetid("", 17))


def diabetes_onnx(forest: RandomForestRegressor) -> onnx.ModelProto:
    """The forest as one TreeEnsembleRegressor, which averages its trees."""
    table: dict[str, list[Any]] = {
        f"nodes_{column}": []
        for column in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    } | {f"target_{column}": [] for column in ("treeids", "nodeids", "ids", "weights")}
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        leaf = tree.children_left < 0
        table["nodes_treeids"] += [number] * tree.node_count
        table["nodes_nodeids"] += range(tree.node_count)
        table["nodes_featureids"] += np.where(leaf, 0, tree.feature).tolist()
        table["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        table["nodes_values"] += np.where(leaf, 0.0, float32_not_above(tree.threshold)).tolist()
        table["nodes_truenodeids"] += np.where(leaf, 0, tree.children_left).tolist()
        table["nodes_falsenodeids"] += np.where(leaf, 0, tree.children_right).tolist()
        leaves = np.flatnonzero(leaf)
        table["target_treeids"] += [number] * len(leaves)
        table["target_nodeids"] += leaves.tolist()
        table["target_ids"] += [0] * len(leaves)
        table["target_weights"] += (tree.value[leaves, 0, 0] / len(forest.estimators_)).tolist()
    node = helper.make_node(
        "TreeEnsembleRegressor", ["features"], ["progression"], domain="ai.onnx.ml", n_targets=1, **table
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", forest.n_features_in_])
    progression = helper.make_tensor_value_info("progression", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph([node], "diabetes", [features], [progression])
    return checked(graph, helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3))


def float32_not_above(thresholds: Array) -> NDArray[np.float32]:
    """The largest float32 not above each float64 threshold: for a float32 x, `x <= t` then decides as scikit-learn."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def checked(graph: onnx.GraphProto, *opsets: onnx.OperatorSetIdProto) -> onnx.ModelProto:
    """The model of `graph`, checked."""
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_releases(out_dir: Path) -> dict[str, Path]:
    """Train both, write both; model name -> release directory."""
    models = {"digits": digits_onnx(train_digits()), "diabetes": diabetes_onnx(train_diabetes())}
    for name, model in models.items():
        (out_dir / name).mkdir(parents=True, exist_ok=True)
        onnx.save(model, out_dir / name / "model.onnx")
    return {name: out_dir / name for name in models}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: model.py OUT_DIR")
    for path in write_releases(Path(sys.argv[1])).values():
        print(f"wrote {path}")
