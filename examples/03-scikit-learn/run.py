"""Check example 03 against a running fleet: answers equal scikit-learn's own, asked by tritonclient and by curl.

python run.py
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http
from model import diabetes_data, digits_data, train_diabetes, train_digits, write_releases
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet, expect

HERE = Path(__file__).resolve().parent


def ask(gateway_url: str, model: str, tensor: str, rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """All outputs of `model` for `rows`, through tritonclient: outputs by name."""
    request = tritonclient.http.InferInput(tensor, list(rows.shape), "FP32")
    request.set_data_from_numpy(rows)
    client = tritonclient.http.InferenceServerClient(gateway_url.removeprefix("http://"))
    try:
        result = client.infer(model, [request])
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}
    finally:
        client.close()


def ask_with_curl(gateway_url: str) -> list[dict[str, Any]]:
    """The two answers of `ask.sh`."""
    done = subprocess.run(
        ["/bin/sh", str(HERE / "ask.sh"), gateway_url], capture_output=True, text=True, timeout=60, check=False
    )
    expect(done.returncode == 0, f"ask.sh {gateway_url} failed:\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    """Train, push, deploy, ask everywhere, compare."""
    fleet, digits, diabetes = Fleet(), train_digits(), train_diabetes()
    with tempfile.TemporaryDirectory() as scratch:
        for name, directory in write_releases(Path(scratch)).items():
            fleet.push(name, "1", directory)
    fleet.apply(HERE / "deployment.yaml", "digits", "diabetes")
    pixels, features = digits_data()[0][::5], diabetes_data()[0][::5]
    patient = np.array([[0.0381, 0.0507, 0.0617, 0.0219, -0.0442, -0.0348, -0.0434, -0.0026, 0.0199, -0.0176]])
    for site, url in fleet.gateways().items():
        answer = ask(url, "digits", "pixels", pixels)
        expect(np.array_equal(answer["label"], digits.predict(pixels)), f"{site}: labels of digits differ")
        expect(
            np.allclose(answer["probabilities"], digits.predict_proba(pixels), atol=1e-5),
            f"{site}: probabilities of digits differ",
        )
        outlook = ask(url, "diabetes", "features", features)["progression"][:, 0]
        expect(np.allclose(outlook, diabetes.predict(features), rtol=1e-5), f"{site}: diabetes differs")
        label, progression = (answer["outputs"][0]["data"] for answer in ask_with_curl(url))
        expect(label == [0], f"{site}: curl got the digit {label}, expected [0]")
        expect(np.allclose(progression, diabetes.predict(patient), rtol=1e-4), f"{site}: curl got {progression}")
        print(f"  {site}: {len(pixels)} digits and {len(features)} outlooks as scikit-learn says")
    print("03-scikit-learn: ok")


if __name__ == "__main__":
    main()
