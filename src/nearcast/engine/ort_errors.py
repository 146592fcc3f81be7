"""What ONNX Runtime raises: its own kinds have no common ancestor but ``Exception``, so they are listed once."""

from typing import Final

from onnxruntime.capi import onnxruntime_pybind11_state as ort

ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoModel,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
    ort.EPFail,
    RuntimeError,
    ValueError,
    MemoryError,
)
"""All that a session raises: its own kinds have no common ancestor but ``Exception``."""
