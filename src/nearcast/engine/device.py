"""Which device models run on: what was asked for, what there is, and what really works.

Decides between the processor and a CUDA device, once, when the engine starts: a provider counts only after it has
computed something, since a library that is installed may still miss a driver. Does not decide what a model costs there:
that is measured when it is loaded (:mod:`~nearcast.engine.profile`).
Source of the provider's options: ONNX Runtime, "CUDA Execution Provider".
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import onnxruntime

from nearcast.engine.ort_errors import ORT_ERRORS
from nearcast.errors import Unavailable
from nearcast.resources.device import parse_device

CUDA_PROVIDER: Final = "CUDAExecutionProvider"
CPU_PROVIDER: Final = "CPUExecutionProvider"
INSTALL_HINT: Final = "install nearcast[cuda] on a machine with an NVIDIA driver, or choose --device cpu"

_PROBE: Final = (
    b'\x08\t:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""The smallest model that computes: y = x + x, float32[1]."""

log = logging.getLogger("nearcast.engine")


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Where models run.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        index: which of several CUDA devices.
        memory_limit_bytes: of device memory that each model may take, scratch space included; 0 for as much as
            there is.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0
    memory_limit_bytes: int = 0

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """Execution providers of a session, the best first. What CUDA has no kernel for runs on the processor.

        TensorFloat-32 is off: a model must answer the same at every place, whatever the place runs it on.
        """
        cpu: tuple[str, dict[str, str]] = (CPU_PROVIDER, {})
        if self.kind == "cpu":
            return [cpu]
        options = {
            "device_id": str(self.index),
            "arena_extend_strategy": "kSameAsRequested",  # the default doubles, and keeps what it took
            "cudnn_conv_algo_search": "HEURISTIC",  # the default tries all of them for each new shape: seconds
            "use_tf32": "0",
        }
        if self.memory_limit_bytes:
            options["gpu_mem_limit"] = str(self.memory_limit_bytes)
        return [(CUDA_PROVIDER, options), cpu]


class DeviceMemory(msgspec.Struct, frozen=True):
    """A device's name and its memory, as its driver tells."""

    name: str
    total_bytes: int
    used_bytes: int


Attempt = Callable[[Device], str]
"""Computes something on a device; returns what went wrong, or the empty string."""


def choose(wish: str, *, memory_limit_bytes: int, available: Sequence[str], attempt: Attempt) -> Device:
    """The device for ``wish``.

    Args:
        wish: of :data:`~nearcast.resources.device.DEVICE_RULE`. ``auto`` takes CUDA where it works, else the processor.
        memory_limit_bytes: see :class:`Device`.
        available: the providers that ONNX Runtime was built with.
        attempt: computes something there.

    Raises:
        InvalidInput: not of :data:`~nearcast.resources.device.DEVICE_RULE`.
        Unavailable: CUDA was demanded, and does not work.
    """
    kind, index = parse_device(wish)
    if kind == "cpu":
        return Device()
    if CUDA_PROVIDER not in available:
        trouble = f"this ONNX Runtime has no {CUDA_PROVIDER}, only {', '.join(available)}"
    else:
        device = Device(kind="cuda", index=index, memory_limit_bytes=memory_limit_bytes)
        trouble = attempt(device)
        if not trouble:
            return device
    if kind == "cuda":
        raise Unavailable(f"cuda:{index} does not work: {trouble}", hint=INSTALL_HINT)
    log.info("models run on the processor: %s", trouble)
    return Device()


def open_device(wish: str, memory_limit_bytes: int = 0) -> Device:
    """The device for ``wish`` on this machine. Blocking; the first use of CUDA takes a second or more.

    Raises:
        NearcastError: as :func:`choose`.
    """
    available = onnxruntime.get_available_providers()
    return choose(wish, memory_limit_bytes=memory_limit_bytes, available=available, attempt=compute_on)


def compute_on(device: Device) -> str:
    """Compute one sum on ``device``; returns what went wrong, or the empty string."""
    if device.kind == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the libraries that NVIDIA's wheels carry; without them, the system's
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    x = np.ones(1, np.float32)
    try:
        session = onnxruntime.InferenceSession(_PROBE, options, providers=device.providers())
        got = session.run(None, {"x": x})[0]
    except ORT_ERRORS as error:
        return str(error)
    wanted = device.providers()[0][0]
    if session.get_providers()[0] != wanted:
        return f"{wanted} could not be initialised (its libraries, or the driver, are missing)"
    return "" if got[0] == 2.0 else f"1 + 1 gave {got[0]}"


def device_memory(device: Device) -> DeviceMemory | None:
    """The name and memory of a CUDA device (all processes together), or None where nobody tells."""
    if device.kind == "cpu":
        return None
    try:
        return _nvml(ctypes.CDLL("libnvidia-ml.so.1"), device.index)
    except (OSError, AttributeError):
        return None


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _nvml(library: ctypes.CDLL, index: int) -> DeviceMemory | None:
    """NVIDIA Management Library: ``nvmlDeviceGetMemoryInfo``. Every call returns 0 on success."""
    handle = ctypes.c_void_p()
    memory = _Memory()
    name = ctypes.create_string_buffer(96)
    failed = (
        library.nvmlInit_v2()
        or library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        or library.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name)))
    )
    if failed:
        return None
    return DeviceMemory(name.value.decode(errors="replace"), memory.total, memory.used)
