"""Text to token ids for models that carry a ``tokenizer.json``, and token ids to the feeds of such a model.

Decides which models are token models and how long an input may be. Nothing is ever cut silently: an input with more
tokens than the model takes is refused, as OpenAI's API does.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from nearcast.engine.datatypes import Array
from nearcast.engine.openai import EmbeddingRequest
from nearcast.engine.refusal import Refusal, invalid_request
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest, Signature

TOKEN_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
DEFAULT_MAX_TOKENS: Final = 8192
SHORTENABLE_LABEL: Final = "matryoshka"
"""Label of a release (value ``true``) whose embeddings keep their meaning when they are cut short."""


def is_token_model(signature: Signature) -> bool:
    """Whether rows of such a model may be padded: token ids and a mask in, nothing per token out."""
    names = {tensor.name for tensor in signature.inputs}
    return (
        {"input_ids", "attention_mask"} <= names <= set(TOKEN_INPUTS)
        and all(tensor.datatype == "INT64" and tensor.shape == (-1, -1) for tensor in signature.inputs)
        and all(-1 not in tensor.shape[1:] for tensor in signature.outputs)
    )


def embedding_output(signature: Signature) -> int | None:
    """Index of the output that holds one embedding per row (``float32[batch, dimensions]``), or None."""
    for index, tensor in enumerate(signature.outputs):
        if tensor.datatype == "FP32" and len(tensor.shape) == 2 and tensor.shape[1] != -1:
            return index
    return None


@dataclass(frozen=True, slots=True)
class Embedder:
    """What turns a request for embeddings into rows of a model.

    Attributes:
        tokenizer: without truncation and padding; both are decided here.
        max_tokens: longest input.
        vocabulary: number of token ids.
        input_names: inputs of the model, in the order of its signature.
        output: index of the output that holds the embeddings.
        dimensions: length of an embedding.
        shortenable: whether a caller may ask for fewer dimensions.
    """

    tokenizer: Tokenizer
    max_tokens: int
    vocabulary: int
    input_names: tuple[str, ...]
    output: int
    dimensions: int
    shortenable: bool

    def check_dimensions(self, wanted: int | None) -> None:
        """Refuse ``dimensions`` that this model cannot give.

        Raises:
            Refusal: status 400.
        """
        if wanted is None or wanted == self.dimensions:
            return
        if not self.shortenable:
            raise invalid_request(
                f"this model gives {self.dimensions} dimensions and was not trained to be cut short; got {wanted}",
                param="dimensions",
            )
        if not 1 <= wanted <= self.dimensions:
            raise invalid_request(f"expected dimensions from 1 to {self.dimensions}, got {wanted}", param="dimensions")

    def rows(self, request: EmbeddingRequest) -> list[list[int]]:
        """Token ids of every input. Costs about 1 us per byte of text; releases the GIL while it works.

        Raises:
            Refusal: status 400: too many tokens, or ids that the model does not know.
        """
        if request.texts:
            encodings: list[Any] = self.tokenizer.encode_batch_fast(request.texts)
            rows = [encoding.ids for encoding in encodings]
        else:
            rows = request.tokens
            for index, row in enumerate(rows):
                if not 0 <= min(row) <= max(row) < self.vocabulary:
                    raise invalid_request(
                        f"input {index}: expected token ids from 0 to {self.vocabulary - 1}, "
                        f"got {min(row)} to {max(row)}",
                        param="input",
                    )
        for index, row in enumerate(rows):
            if len(row) > self.max_tokens:
                message = f"input {index} has {len(row)} tokens, the model takes at most {self.max_tokens}"
                raise Refusal(400, wire.CODE_CONTEXT_LENGTH, message, param="input")
            if not row:
                raise invalid_request(f"input {index} has no tokens", param="input")
        return rows

    def feeds(self, row: list[int]) -> list[Array]:
        """The model's inputs for one row: ``int64[1, tokens]`` each."""
        ids = np.array([row], dtype=np.int64)
        made = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return [made[name] for name in self.input_names]


def load_embedder(directory: Path, manifest: ReleaseManifest) -> Embedder | None:
    """The embedder of a release, or None where the release serves no embeddings.

    Raises:
        Refusal: status 422: the tokenizer is broken.
    """
    output = embedding_output(manifest.signature)
    if manifest.tokenizer is None or output is None or not is_token_model(manifest.signature):
        return None
    path = directory / manifest.tokenizer
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core per request: others want theirs
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refusal(422, wire.CODE_INVALID_MODEL, f"tokenizer {manifest.tokenizer!r}: {error}") from error
    truncation = tokenizer.truncation
    own_limit = truncation["max_length"] if truncation else DEFAULT_MAX_TOKENS
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Embedder(
        tokenizer=tokenizer,
        max_tokens=manifest.max_tokens if manifest.max_tokens is not None else own_limit,
        vocabulary=tokenizer.get_vocab_size(),
        input_names=tuple(tensor.name for tensor in manifest.signature.inputs),
        output=output,
        dimensions=manifest.signature.outputs[output].shape[1],
        shortenable=manifest.labels.get(SHORTENABLE_LABEL) == "true",
    )
