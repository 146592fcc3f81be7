"""From a path to a release: which files, which of them is opened, what goes in and what comes out.

Everything is read from the model itself, by the runtime that will serve it, so a model that cannot be loaded is
refused before anybody signs for it. Hidden files are left out; symlinks that lead out of the folder are refused.

Not decided here: signing (:mod:`release_list`), uploading (the client), where it runs (a deployment).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from nearcast.errors import InvalidInput
from nearcast.registry.blobs import Progress, digest_of_file
from nearcast.registry.onnx_files import external_files
from nearcast.resources.names import NAME_RULE, VERSION_RULE, is_name, is_version
from nearcast.resources.release import ONNX_DATATYPES, File, ReleaseManifest, Runtime, Signature, Tensor

TOKENIZER = "tokenizer.json"
MOST_TOKENS = 1_000_000
"""Tokenizer files say 1e30 for "no limit"; beyond this, a number is not one."""

LOAD_ERRORS: tuple[type[Exception], ...] = (
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoModel,
    native.NoSuchFile,
    native.NotImplemented,
    native.EPFail,
    native.RuntimeException,
    RuntimeError,
    ValueError,
    MemoryError,
)
"""What a load may raise: the runtime's own errors have no type in common."""


@dataclass(frozen=True, slots=True)
class Described:
    """A manifest, and where each of its files lies on this machine (manifest path -> file)."""

    manifest: ReleaseManifest
    files: dict[str, Path]


def describe(
    path: Path,
    *,
    model: str,
    version: str,
    now: datetime,
    runtime: Runtime = "onnx",
    task: str | None = None,
    entrypoint: str | None = None,
    max_tokens: int | None = None,
    labels: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Described:
    """The manifest of the model at ``path``.

    Args:
        path: an ``.onnx`` file, or a folder with one and whatever belongs to it.
        model, version: the name of the release.
        now: when it is made.
        runtime: which runtime of the engine shall load it.
        task: a Hugging Face pipeline tag; None for ``feature-extraction`` with a tokenizer, else ``tensor``.
        entrypoint: which file to open; None for ``model.onnx``, or the only ``.onnx`` file.
        max_tokens: longest input in tokens; None to read it from the tokenizer's files.
        labels: free text.
        progress: told (bytes read, bytes in all).

    Returns:
        The manifest and its files. Costs a read of all bytes and one load of the model into memory.

    Raises:
        InvalidInput: not a model that we can serve; the message says what was expected and what came.
    """
    _check_asked(model, version, runtime)
    files = _files_at(path)
    opened = _entrypoint(path, files, entrypoint)
    tokenizer = _tokenizer(files, opened)
    _check_external(files, opened)
    signature = read_signature(files[opened])
    if max_tokens is None and tokenizer is not None:
        max_tokens = _max_tokens(files, tokenizer)
    if max_tokens is not None and max_tokens < 1:
        raise InvalidInput(f"expected max_tokens to be at least 1, got {max_tokens}")
    manifest = ReleaseManifest(
        model=model,
        version=version,
        runtime=runtime,
        task=task or ("tensor" if tokenizer is None else "feature-extraction"),
        entrypoint=opened,
        files=_digests(files, progress),
        signature=signature,
        created_at=now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        labels=dict(sorted((labels or {}).items())),
    )
    return Described(manifest, files)


def _check_asked(model: str, version: str, runtime: str) -> None:
    if not is_name(model):
        raise InvalidInput(f"expected the name of a model ({NAME_RULE}), got {model!r}")
    if not is_version(version):
        raise InvalidInput(f"expected a version ({VERSION_RULE}), got {version!r}")
    if runtime not in get_args(Runtime):
        raise InvalidInput(f"expected a runtime, one of {', '.join(get_args(Runtime))}, got {runtime!r}")


def same_content(one: ReleaseManifest, other: ReleaseManifest) -> bool:
    """Whether two manifests differ in nothing but ``created_at``: pushing the second is then a no-op."""
    return msgspec.structs.replace(one, created_at=other.created_at) == other


def read_signature(model: Path) -> Signature:
    """Inputs and outputs of an ONNX model, as its runtime sees them. Raises :class:`InvalidInput`."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except LOAD_ERRORS as error:
        raise InvalidInput(f"expected an ONNX model that loads, {model.name} does not: {_one_line(error)}") from error
    return Signature(
        inputs=tuple(_tensor(node, "input") for node in session.get_inputs()),
        outputs=tuple(_tensor(node, "output") for node in session.get_outputs()),
    )


def _tensor(node: "onnxruntime.NodeArg", role: str) -> Tensor:
    datatype = ONNX_DATATYPES.get(node.type)
    if datatype is None:
        hint = "convert with the option zipmap=False" if "map(" in node.type else ""
        raise InvalidInput(
            f"expected {role} {node.name!r} to be a tensor of {', '.join(ONNX_DATATYPES.values())}, got {node.type}",
            hint=hint,
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return Tensor(name=node.name, datatype=datatype, shape=shape)


def _files_at(path: Path) -> dict[str, Path]:
    """Manifest path -> file, in path order."""
    if path.is_dir():
        inside = path.resolve()
        found = {}
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if any(part.startswith(".") for part in relative.parts):
                continue
            if file.is_dir():
                if file.is_symlink():
                    raise InvalidInput(
                        f"{relative} is a link to a folder, which would be left out", hint="copy its contents: cp -rL"
                    )
                continue
            if not file.is_file():
                raise InvalidInput(f"expected files below {path}, {relative} is none, or a link to nothing")
            if not file.resolve().is_relative_to(inside):
                raise InvalidInput(
                    f"{relative} is a link that leads out of {path}", hint="copy it with its contents: cp -rL"
                )
            found[relative.as_posix()] = file
        if not found:
            raise InvalidInput(f"expected a model below {path}, the folder holds no files")
        return _checked_names(found)
    if not path.is_file():
        raise InvalidInput(f"expected a model file or folder, there is nothing at {path}")
    found = {path.name: path}
    for name in external_files(path):
        beside = path.parent / name
        if beside.is_file() and beside.resolve().is_relative_to(path.parent.resolve()):
            found[name] = beside
    return _checked_names(dict(sorted(found.items())))


def _checked_names(files: dict[str, Path]) -> dict[str, Path]:
    for name in files:
        if not name.isprintable() or "\\" in name:
            raise InvalidInput(f"expected file names of printable characters without '\\', got {name!r}")
    return files


def _entrypoint(path: Path, files: Mapping[str, Path], wanted: str | None) -> str:
    models = [name for name in files if name.endswith(".onnx")]
    if wanted is not None:
        if wanted not in files:
            raise InvalidInput(f"expected the entrypoint {wanted!r} among the files, got {', '.join(files)}")
        return wanted
    if "model.onnx" in files:
        return "model.onnx"
    if len(models) == 1:
        return models[0]
    if not models:
        raise InvalidInput(f"expected an .onnx file at {path}, got {', '.join(list(files)[:8])}")
    raise InvalidInput(
        f"expected one .onnx file, or one named model.onnx, at {path}; got {', '.join(models[:8])}",
        hint="say which one with --entrypoint, or push a folder that holds one",
    )


def _check_external(files: Mapping[str, Path], entrypoint: str) -> None:
    folder = entrypoint.rpartition("/")[0]
    for name in external_files(files[entrypoint]):
        if (f"{folder}/{name}" if folder else name) not in files:
            raise InvalidInput(f"{entrypoint} keeps weights in {name!r}, which is not among the files")


def _tokenizer(files: Mapping[str, Path], entrypoint: str) -> str | None:
    folder = entrypoint.rpartition("/")[0]
    return next((name for name in (f"{folder}/{TOKENIZER}", TOKENIZER) if name in files), None)


def _max_tokens(files: Mapping[str, Path], tokenizer: str) -> int | None:
    """What the files beside the tokenizer say, the most specific first."""
    folder = tokenizer.removesuffix(TOKENIZER)
    places = (
        ("sentence_bert_config.json", ("max_seq_length",)),
        ("tokenizer_config.json", ("model_max_length",)),
        (TOKENIZER, ("truncation", "max_length")),
        ("config.json", ("max_position_embeddings",)),
    )
    for name, keys in places:
        file = files.get(folder + name)
        if file is None:
            continue
        try:
            value = json.loads(file.read_bytes())
        except ValueError as error:
            raise InvalidInput(f"expected JSON in {folder + name}: {error}") from error
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= MOST_TOKENS:
            return int(value)
    return None


def _digests(files: Mapping[str, Path], progress: Progress | None) -> tuple[File, ...]:
    total, done = sum(file.stat().st_size for file in files.values()), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return tuple(
        File(path=name, digest=digest_of_file(file, tell), size_bytes=file.stat().st_size)
        for name, file in files.items()
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
