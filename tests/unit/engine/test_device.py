"""Which device is chosen, with fakes for what a machine has; and what really works here."""

import ctypes
import logging

import numpy as np
import pytest

from nearcast.engine import device as devices
from nearcast.engine.device import CPU_PROVIDER, CUDA_PROVIDER, Device, choose, compute_on, device_memory
from nearcast.errors import InvalidInput, Unavailable
from nearcast.resources.device import parse_device

WITH_CUDA = [CUDA_PROVIDER, CPU_PROVIDER]


class Attempts:
    """Says what it is told to say, and remembers which devices were tried."""

    def __init__(self, trouble: str = "") -> None:
        self.tried: list[str] = []
        self._trouble = trouble

    def __call__(self, device: Device) -> str:
        self.tried.append(str(device))
        return self._trouble


@pytest.mark.parametrize(
    ("text", "meant"), [("auto", ("auto", 0)), ("cpu", ("cpu", 0)), ("cuda", ("cuda", 0)), ("cuda:3", ("cuda", 3))]
)
def test_devices_have_names(text: str, meant: tuple[str, int]) -> None:
    assert parse_device(text) == meant


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "auto:1", "cuda:1 ", "CUDA", "cuda:x\n"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a device of auto, cpu, cuda or cuda:INDEX"):
        parse_device(text)


def test_auto_takes_cuda_where_it_works() -> None:
    attempts = Attempts()
    chosen = choose("auto", memory_limit_bytes=7, available=WITH_CUDA, attempt=attempts)
    assert chosen == Device(kind="cuda", index=0, memory_limit_bytes=7)
    assert attempts.tried == ["cuda:0"]


@pytest.mark.parametrize(("available", "trouble"), [([CPU_PROVIDER], ""), (WITH_CUDA, "no driver")])
def test_auto_takes_the_processor_elsewhere_and_says_why(
    available: list[str], trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nearcast.engine"):
        chosen = choose("auto", memory_limit_bytes=0, available=available, attempt=Attempts(trouble))
    assert chosen == Device()
    assert (trouble or f"no {CUDA_PROVIDER}") in caplog.text


@pytest.mark.parametrize(("available", "trouble"), [([CPU_PROVIDER], ""), (WITH_CUDA, "no driver")])
def test_cuda_that_was_demanded_and_does_not_work_is_an_error(available: list[str], trouble: str) -> None:
    with pytest.raises(Unavailable, match=trouble or f"no {CUDA_PROVIDER}") as failure:
        choose("cuda:1", memory_limit_bytes=0, available=available, attempt=Attempts(trouble))
    assert "cuda:1 does not work" in failure.value.message
    assert "nearcast[cuda]" in failure.value.hint


def test_the_processor_is_taken_without_a_look_at_cuda() -> None:
    attempts = Attempts()
    assert choose("cpu", memory_limit_bytes=0, available=WITH_CUDA, attempt=attempts) == Device()
    assert attempts.tried == []


def test_providers_carry_the_device_and_its_bound() -> None:
    (name, options), cpu = Device(kind="cuda", index=2, memory_limit_bytes=1 << 30).providers()
    assert name == CUDA_PROVIDER
    assert (options["device_id"], options["gpu_mem_limit"]) == ("2", str(1 << 30))
    assert cpu == (CPU_PROVIDER, {})
    assert "gpu_mem_limit" not in Device(kind="cuda").providers()[0][1]
    assert Device().providers() == [cpu]


def test_the_processor_can_compute() -> None:
    assert compute_on(Device()) == ""


class Session:
    """A session of ONNX Runtime whose CUDA provider was left out, as it does where a library is missing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def run(self, *_: object) -> list[object]:
        return [np.array([2.0], np.float32)]

    def get_providers(self) -> list[str]:
        return [CPU_PROVIDER]


def test_a_provider_that_was_silently_left_out_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(devices.onnxruntime, "preload_dlls", lambda: None, raising=False)
    assert "could not be initialised" in compute_on(Device(kind="cuda"))


def test_the_processor_has_no_memory_of_its_own_and_a_missing_driver_tells_of_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert device_memory(Device()) is None

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(devices.ctypes, "CDLL", missing)
    assert device_memory(Device(kind="cuda")) is None
