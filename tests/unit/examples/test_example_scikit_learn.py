"""Example 03 without a fleet: the ONNX models answer as the scikit-learn models that they were made from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

Load = Callable[[str], ModuleType]
ASK = Path(__file__).resolve().parents[3] / "examples/03-scikit-learn/ask.sh"


@pytest.fixture(scope="module")
def model(load_example: Load) -> ModuleType:
    return load_example("03-scikit-learn/model.py")


def test_digits_answers_as_the_pipeline_and_is_worth_asking(model: ModuleType) -> None:
    pixels, labels = model.digits_data()
    pipeline = model.train_digits()
    session = onnxruntime.InferenceSession(model.digits_onnx(pipeline).SerializeToString())
    label, probabilities = session.run(["label", "probabilities"], {"pixels": pixels})
    assert np.array_equal(label, pipeline.predict(pixels))
    assert np.allclose(probabilities, pipeline.predict_proba(pixels), atol=1e-5)
    assert (label[::5] == labels[::5]).mean() > 0.95


def test_diabetes_answers_as_the_forest_and_is_worth_asking(model: ModuleType) -> None:
    features, progression = model.diabetes_data()
    forest = model.train_diabetes()
    session = onnxruntime.InferenceSession(model.diabetes_onnx(forest).SerializeToString())
    outlook = session.run(["progression"], {"features": features})[0][:, 0]
    assert np.allclose(outlook, forest.predict(features), rtol=1e-5)
    assert np.corrcoef(outlook[::5], progression[::5])[0, 1] > 0.5


def test_a_value_exactly_on_a_threshold_goes_the_way_scikit_learn_goes(model: ModuleType) -> None:
    forest = model.train_diabetes()
    session = onnxruntime.InferenceSession(model.diabetes_onnx(forest).SerializeToString())
    tree = forest.estimators_[0].tree_
    inner = np.flatnonzero(tree.children_left >= 0)
    features = np.zeros((len(inner), 10), np.float32)
    features[np.arange(len(inner)), tree.feature[inner]] = tree.threshold[inner]  # rounded to float32 on the way
    outlook = session.run(["progression"], {"features": features})[0][:, 0]
    assert np.allclose(outlook, forest.predict(features), rtol=1e-5)


def test_the_bodies_in_the_curl_script_are_what_the_models_take(model: ModuleType) -> None:
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*?)'", ASK.read_text(), flags=re.DOTALL)]
    tensors = [body["inputs"][0] for body in bodies]
    assert [(tensor["name"], tensor["shape"]) for tensor in tensors] == [("pixels", [1, 64]), ("features", [1, 10])]
    assert tensors[0]["data"] == model.digits_data()[0][0].tolist()
    assert len(tensors[1]["data"]) == 10
