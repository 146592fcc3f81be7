"""Write the release directory of magika's model: the ONNX file and its configuration, out of the PyPI package.

    python model.py OUT_DIR

The package is only read, never imported: a release is files.
"""

import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

FILES = ("model.onnx", "config.min.json")


def model_directory() -> Path:
    """Where the installed package `magika` keeps its model `standard_v3_3`."""
    return Path(str(distribution("magika").locate_file("magika/models/standard_v3_3")))


def write_release(out_dir: Path) -> Path:
    """Copy the model into `out_dir` and return it."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(model_directory() / name, out_dir / name)
    return out_dir


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: model.py OUT_DIR")
    print(f"wrote {write_release(Path(sys.argv[1]))}")
