"""A release: one immutable, signed version of a model. The manifest is the TUF target; the weights are blobs.

The manifest says everything that an engine needs to serve the model and everything that a site needs to judge it. It
does not say where the model runs: that is a deployment.
"""

from typing import Final, Literal

import msgspec

from nearcast.resources.revision import canonical_json, digest_of

SCHEMA: Final = "nearcast.dev/release/v1alpha1"

Runtime = Literal["onnx"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip
"""Tensor datatypes of the Open Inference Protocol v2."""

ONNX_DATATYPES: Final[dict[str, Datatype]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""Names that ONNX Runtime has for element types, and ours for the same."""


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a release. ``path`` is relative, with '/' and no '..'; ``digest`` names the blob."""

    path: str
    digest: str
    size_bytes: int


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output. ``shape`` has -1 where any size will do; dimension 0 is the batch when it is -1."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes in and what comes out, read from the model itself."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ReleaseManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed description of one version of a model.

    Attributes:
        model: name of the model.
        version: name of this release; immutable once pushed.
        runtime: which runtime of the engine loads it.
        task: a Hugging Face pipeline tag (``feature-extraction``, ``text-classification``, …) or ``tensor``.
        entrypoint: path of the file that the runtime opens, one of ``files``.
        files: everything that is needed, in path order.
        signature: inputs and outputs of the entrypoint.
        tokenizer: path of a ``tokenizer.json`` (Hugging Face tokenizers) among ``files``, or None. A model with a
            tokenizer and a float32[batch, dimensions] output serves OpenAI's embeddings API.
        max_tokens: longest input in tokens for a model with a tokenizer, or None.
        created_at: RFC 3339, UTC.
        labels: free text for people and selectors (licence, source, author).
    """

    model: str
    version: str
    runtime: Runtime
    task: str
    entrypoint: str
    files: tuple[File, ...]
    signature: Signature
    created_at: str
    tokenizer: str | None = None
    max_tokens: int | None = None
    labels: dict[str, str] = {}
    schema: str = SCHEMA

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def target_path(self) -> str:
        """Path of this manifest as a TUF target of the releases repository."""
        return target_path(self.model, self.version)


def target_path(model: str, version: str) -> str:
    """Path of a release's manifest among the targets of the releases repository."""
    return f"{model}/{version}.json"


def encode_release(manifest: ReleaseManifest) -> bytes:
    """The bytes that are signed; their digest identifies the release."""
    return canonical_json(manifest)


def release_digest(manifest: ReleaseManifest) -> str:
    """The content address of the release: the digest of its encoded manifest."""
    return digest_of(encode_release(manifest))


_decoder = msgspec.json.Decoder(ReleaseManifest, strict=True)


def decode_release(data: bytes) -> ReleaseManifest:
    """The manifest in ``data``.

    Raises:
        msgspec.ValidationError: it is not a manifest of :data:`SCHEMA`; the message names the field.
    """
    manifest = _decoder.decode(data)
    if manifest.schema != SCHEMA:
        raise msgspec.ValidationError(f"expected schema {SCHEMA!r}, got {manifest.schema!r}")
    names = {file.path for file in manifest.files}
    if manifest.entrypoint not in names:
        raise msgspec.ValidationError(f"entrypoint {manifest.entrypoint!r} is not one of the files {sorted(names)}")
    for path in names:
        if path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
            raise msgspec.ValidationError(f"file path {path!r} is not relative and plain")
    return manifest
