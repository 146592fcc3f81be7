"""How a model version comes into an engine: what is ordered, whether it can be, and its load, measured on the way.

Decides what of an order is refused before anything is read, and in which order a model is loaded, measured and given
its final form. Does not decide when it is loaded beside others, nor what is served then (`serving`).
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from nearcast.engine.costs import footprint_bytes, taken_bytes
from nearcast.engine.device import Device
from nearcast.engine.memory import available_bytes, check_fits, give_back
from nearcast.engine.profile import Profile, Runs, made_up, profile
from nearcast.engine.runtime import OnnxModel, invalid_model
from nearcast.engine.steady import steadied
from nearcast.engine.text import Embedder, is_token_model, load_embedder
from nearcast.resources.names import NAME_RULE, VERSION_RULE, is_name, is_version
from nearcast.resources.release import ReleaseManifest

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Order:
    """What to serve, and where."""

    directory: Path
    manifest: ReleaseManifest
    socket: Path
    queue: int

    @property
    def key(self) -> Key:
        """Model and version."""
        return self.manifest.model, self.manifest.version


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can be run, what it takes, and how long its load took."""

    model: Runs
    profile: Profile
    embedder: Embedder | None
    pad: bool
    footprint_bytes: int
    load_s: float


def check(manifest: ReleaseManifest) -> None:
    """Refuse what no engine can serve.

    Raises:
        Refusal: status 422: names or files of ``manifest`` are not what they should be.
    """
    if not is_name(manifest.model):
        raise invalid_model(f"model name {manifest.model!r}: expected {NAME_RULE}")
    if not is_version(manifest.version):
        raise invalid_model(f"version {manifest.version!r}: expected {VERSION_RULE}")
    if manifest.tokenizer is not None and manifest.tokenizer not in {file.path for file in manifest.files}:
        raise invalid_model(f"tokenizer {manifest.tokenizer!r} is not one of the files")


def load(order: Order, threads: int, device: Device) -> Loaded:
    """The model of ``order``, read, warmed and measured, with ``threads`` for one run. Takes seconds: on a thread.

    Raises:
        Refusal: it does not fit into memory, or cannot be served.
    """
    manifest, begun_s = order.manifest, perf_counter()
    check_fits(manifest, available_bytes())
    before = taken_bytes(device)
    pad = is_token_model(manifest.signature)
    embedder = load_embedder(order.directory, manifest)
    model = OnnxModel(order.directory, manifest, threads, device)
    measured = profile(model, manifest.signature, pad=pad, now=perf_counter, on_device=device.kind != "cpu")
    if measured.curve:
        model.choose_binding(made_up(manifest.signature, 1, measured.width), perf_counter)
    runs = model if device.kind == "cpu" else steadied(model, manifest.signature, measured, perf_counter)
    give_back()
    footprint = footprint_bytes(before, taken_bytes(device), manifest.size_bytes)
    return Loaded(runs, measured, embedder, pad, footprint, perf_counter() - begun_s)
