"""Embed TEXTs through OpenAI's own client, and say how near each is to the first.

python embed.py BASE_URL TEXT…            (BASE_URL: a gateway's URL followed by /v1)
"""

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray
from openai import APIError, OpenAI

MODEL: Final = "minilm"


def embed(base_url: str, texts: list[str]) -> tuple[NDArray[np.float32], str, str]:
    """Embeddings `float32[texts, 384]`, the site that computed them, and why it was asked."""
    with OpenAI(base_url=base_url, api_key="not-needed", max_retries=0, timeout=60.0) as client:
        response = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
        vectors = [item.embedding for item in response.parse().data]
    headers = response.headers
    return np.array(vectors, np.float32), headers.get("x-nearcast-site", "?"), headers.get("x-nearcast-reason", "?")


def main() -> None:
    """Read the command line, ask, print."""
    if len(sys.argv) < 3:
        sys.exit("usage: embed.py BASE_URL TEXT…")
    texts = sys.argv[2:]
    try:
        vectors, site, reason = embed(sys.argv[1], texts)
    except APIError as error:
        sys.exit(f"no embeddings from {sys.argv[1]}: {error}")
    for text, likeness in zip(texts, vectors @ vectors[0], strict=True):
        print(f"{likeness:6.3f}  {text}")
    print(f"computed at {site}; why there: {reason}")


if __name__ == "__main__":
    main()
