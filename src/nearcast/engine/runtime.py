"""ONNX Runtime: a release on disk becomes something that can be run.

Decides how a session is made, and refuses a model whose inputs and outputs are not those of its manifest. Does not
decide when and with what it is run. Session creation from a path releases the GIL (measured: the loop was never held
for more than 2 ms while a model of 377 MB loaded; creation from bytes in memory held it for 255 ms).
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime

from nearcast.engine.datatypes import Array
from nearcast.engine.device import Device
from nearcast.engine.ort_errors import ORT_ERRORS
from nearcast.engine.refusal import Refusal
from nearcast.resources import wire
from nearcast.resources.release import ONNX_DATATYPES, ReleaseManifest, Tensor

_TRIES: Final = 10


class OnnxModel:
    """A model that is loaded and can be run, from any thread.

    Args:
        directory: the files of the release.
        manifest: what the release claims to be.
        threads: threads for one run.
        device: where it runs.

    Raises:
        Refusal: status 422: not a model, or not the one that the manifest describes.
    """

    def __init__(self, directory: Path, manifest: ReleaseManifest, threads: int, device: Device) -> None:
        path = directory / manifest.entrypoint
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle models must cost nothing
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=device.providers())
        except ORT_ERRORS as error:
            raise invalid_model(f"{manifest.entrypoint!r} cannot be loaded: {error}") from error
        _check("input", manifest.signature.inputs, self._session.get_inputs())
        _check("output", manifest.signature.outputs, self._session.get_outputs())
        self._input_names = [tensor.name for tensor in manifest.signature.inputs]
        self._output_names = [tensor.name for tensor in manifest.signature.outputs]
        tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
        self.can_bind = device.kind != "cpu" and all(tensor.datatype != "BYTES" for tensor in tensors)
        """Whether inputs and outputs can be bound, which saves a device's runs some copying."""
        self.bound = False

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """One array per output, for one array per input, both in the order of the signature.

        Raises:
            Exception: one of :data:`ORT_ERRORS`.
        """
        if self.bound:
            return self._run_bound(feeds)
        results: list[Array] = self._session.run(self._output_names, dict(zip(self._input_names, feeds, strict=True)))
        return results

    def _run_bound(self, feeds: Sequence[Array]) -> list[Array]:
        binding = self._session.io_binding()
        for name, feed in zip(self._input_names, feeds, strict=True):
            binding.bind_cpu_input(name, feed if feed.flags.c_contiguous else feed.copy())
        for name in self._output_names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        results: list[Array] = binding.copy_outputs_to_cpu()
        return results

    def choose_binding(self, feeds: Sequence[Array], now: Callable[[], float]) -> None:
        """Bind inputs and outputs from now on if ``feeds`` run faster that way. No-op on the processor."""
        if not self.can_bind:
            return
        least = {}
        for bound in (False, True):
            self.bound = bound
            try:
                least[bound] = min(_seconds(self.run, feeds, now) for _ in range(_TRIES))
            except ORT_ERRORS:
                least[bound] = math.inf
        self.bound = least[True] < least[False]


def _seconds(run: Callable[[Sequence[Array]], object], feeds: Sequence[Array], now: Callable[[], float]) -> float:
    begun_s = now()
    run(feeds)
    return now() - begun_s


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
