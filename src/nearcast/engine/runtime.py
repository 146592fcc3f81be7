"""ONNX Runtime: a release on disk becomes something that can be run.

Decides how a session is made, and refuses a model whose inputs and outputs are not those of its manifest. Does not
decide when and with what it is run. Session creation from a path releases the GIL (measured: the loop was never held
for more than 2 ms while a model of 377 MB loaded; creation from bytes in memory held it for 255 ms).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from nearcast.engine.datatypes import Array
from nearcast.engine.refusal import Refusal
from nearcast.resources import wire
from nearcast.resources.release import ONNX_DATATYPES, ReleaseManifest, Tensor

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


class OnnxModel:
    """A model that is loaded and can be run, from any thread.

    Args:
        directory: the files of the release.
        manifest: what the release claims to be.
        threads: threads for one run.

    Raises:
        Refusal: status 422: not a model, or not the one that the manifest describes.
    """

    def __init__(self, directory: Path, manifest: ReleaseManifest, threads: int) -> None:
        path = directory / manifest.entrypoint
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle models must cost nothing
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except ORT_ERRORS as error:
            raise invalid_model(f"{manifest.entrypoint!r} cannot be loaded: {error}") from error
        _check("input", manifest.signature.inputs, self._session.get_inputs())
        _check("output", manifest.signature.outputs, self._session.get_outputs())
        self._input_names = [tensor.name for tensor in manifest.signature.inputs]
        self._output_names = [tensor.name for tensor in manifest.signature.outputs]

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """One array per output, for one array per input, both in the order of the signature.

        Raises:
            Exception: one of :data:`ORT_ERRORS`.
        """
        results: list[Array] = self._session.run(self._output_names, dict(zip(self._input_names, feeds, strict=True)))
        return results


def invalid_model(message: str) -> Refusal:
    """422 on the admin socket."""
    return Refusal(422, wire.CODE_INVALID_MODEL, message)


def _check(role: str, claimed: tuple[Tensor, ...], actual: Sequence[Any]) -> None:
    wanted = {tensor.name: tensor for tensor in claimed}
    names = {node.name for node in actual}
    if wanted.keys() != names:
        raise invalid_model(f"{role}s: the manifest says {sorted(wanted)}, the model has {sorted(names)}")
    for node in actual:
        tensor = wanted[node.name]
        datatype = ONNX_DATATYPES.get(node.type, node.type)
        if datatype != tensor.datatype:
            raise invalid_model(f"{role} {node.name!r}: the manifest says {tensor.datatype}, the model has {datatype}")
        if role == "input" and not _same_shape(tensor.shape, node.shape):
            raise invalid_model(
                f"input {node.name!r}: the manifest says shape {list(tensor.shape)}, the model has {node.shape}"
            )


def _same_shape(claimed: tuple[int, ...], actual: Sequence[int | str | None]) -> bool:
    """Whether both agree; the model's symbolic and unknown sizes agree with anything."""
    return len(claimed) == len(actual) and all(
        not isinstance(size, int) or size < 0 or want in {-1, size} for want, size in zip(claimed, actual, strict=True)
    )
