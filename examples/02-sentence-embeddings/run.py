"""Check example 02 against a running fleet: embeddings through the openai client equal an independent computation.

python run.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from embed import embed
from model import write_release
from openai import BadRequestError
from reference import TEXTS, TOO_LONG, Reference

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet, expect

HERE = Path(__file__).resolve().parent


def refused(base_url: str, text: str) -> bool:
    """Whether the client is told that the request is wrong."""
    try:
        embed(base_url, [text])
    except BadRequestError:
        return True
    return False


def main() -> None:
    """Push, deploy to Ashburn, ask everywhere, compare."""
    fleet = Fleet()
    with tempfile.TemporaryDirectory() as scratch:
        release = write_release(Path(scratch) / "release")
        fleet.push("minilm", "1", release, "--task", "feature-extraction", "--max-tokens", "256")
    fleet.apply(HERE / "deployment.yaml", "minilm")
    reference = Reference()
    wanted = np.stack([reference.embed(text) for text in TEXTS])
    for name, url in fleet.gateways().items():
        vectors, site, reason = embed(f"{url}/v1", TEXTS)
        expect(vectors.shape == (len(TEXTS), 384), f"{name}: expected {len(TEXTS)} x 384 numbers, got {vectors.shape}")
        cosine = (vectors * wanted).sum(axis=1) / np.linalg.norm(vectors, axis=1)
        worst = int(np.argmin(cosine))
        expect(bool(cosine[worst] > 0.9999), f"{name}: cosine {cosine[worst]:.6f} for {TEXTS[worst][:50]!r}")
        expect(site == "ashburn", f"{name}: expected an answer from ashburn, got one from {site}")
        expect(refused(f"{url}/v1", TOO_LONG), f"{name}: a text of too many tokens was not refused")
        print(f"  {name}: smallest cosine {cosine[worst]:.7f}; computed at {site}: {reason}")
    print("02-sentence-embeddings: ok")


if __name__ == "__main__":
    main()
