"""Tell what kind of file each FILE is, by asking a gateway.

    python classify.py --site SITE FILE…             (a site of the fleet that `nearcast` talks to)
    python classify.py --gateway URL FILE… [--json]

The model wants 2048 tokens per file: 1024 of the beginning and 1024 of the end. This client computes them as magika
does (feature extraction v2), asks by the Open Inference Protocol v2, and applies magika's rules to the scores. Binary
tensors by default, plain JSON with `--json`.

It needs httpx and numpy. It does not import magika, only reads the two tables in its package.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fleet import Fleet

MODEL: Final = "magika"
Tokens = NDArray[np.int32]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rules:
    """Sizes, labels and thresholds of the model, as its configuration gives them."""

    beg_size: int
    end_size: int
    block_size: int
    padding_token: int
    min_file_size: int
    labels: tuple[str, ...]
    thresholds: dict[str, float]
    default_threshold: float
    overwrite: dict[str, str]
    text_labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the last block of a file; the same bytes where the file is smaller than a block."""

    head: bytes
    tail: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Scores `float32[files, labels]`, who computed them, why there, and how long the answer took."""

    scores: Scores
    site: str
    reason: str
    model: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is, and how sure the model was (1.0 where no model was needed)."""

    label: str
    score: float


def load_rules() -> Rules:
    """The rules in the installed package `magika`."""
    package = distribution("magika")

    def table(path: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(Path(str(package.locate_file(path))).read_text())
        return document

    config = table("magika/models/standard_v3_3/config.min.json")
    kinds = table("magika/config/content_types_kb.min.json")
    return Rules(
        beg_size=config["beg_size"],
        end_size=config["end_size"],
        block_size=config["block_size"],
        padding_token=config["padding_token"],
        min_file_size=config["min_file_size_for_dl"],
        labels=tuple(config["target_labels_space"]),
        thresholds=config["thresholds"],
        default_threshold=config["medium_confidence_threshold"],
        overwrite=config["overwrite_map"],
        text_labels=frozenset(name for name, facts in kinds.items() if facts["is_text"]),
    )


def read_ends(path: Path, rules: Rules) -> Ends:
    """The two ends of a file; what lies between is never read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        block = min(size, rules.block_size)
        file.seek(0)
        head = file.read(block)
        file.seek(size - block)
        return Ends(head=head, tail=file.read(block), size=size)


def features(ends: Ends, rules: Rules) -> Tokens:
    """The tokens `int32[2048]`: beginning and end without outer white space, padded towards the middle."""
    tokens = np.full(rules.beg_size + rules.end_size, rules.padding_token, dtype=np.int32)
    beg = ends.head.lstrip()[: rules.beg_size]
    end = ends.tail.rstrip()[-rules.end_size :]
    tokens[: len(beg)] = np.frombuffer(beg, np.uint8)
    tokens[len(tokens) - len(end) :] = np.frombuffer(end, np.uint8)
    return tokens


def known_without_model(ends: Ends, rules: Rules) -> Verdict | None:
    """The verdict on a file with too few bytes for the model, or None where the model must be asked."""
    if ends.size == 0:
        return Verdict("empty", 1.0)
    if ends.size >= rules.min_file_size and len(ends.head.lstrip()) >= rules.min_file_size:
        return None
    try:
        ends.head.decode("utf-8")
    except UnicodeDecodeError:
        return Verdict("unknown", 1.0)
    return Verdict("txt", 1.0)


def judge(scores: Scores, rules: Rules) -> Verdict:
    """The verdict that one row of scores means: below a label's threshold only text and binary are told apart."""
    best = int(np.argmax(scores))
    guess, score = rules.labels[best], float(scores[best])
    label = rules.overwrite.get(guess, guess)
    if score < rules.thresholds.get(guess, rules.default_threshold):
        label = "txt" if label in rules.text_labels else "unknown"
    return Verdict(label, score)


def ask_json(client: httpx.Client, gateway_url: str, tokens: Tokens) -> Answer:
    """Ask for the scores of `int32[files, 2048]`, tensors as JSON numbers."""
    tensor = {"name": "bytes", "datatype": "INT32", "shape": list(tokens.shape), "data": tokens.ravel().tolist()}
    response = client.post(f"{gateway_url}/v2/models/{MODEL}/infer", json={"inputs": [tensor]})
    _expect_ok(response)
    output = response.json()["outputs"][0]
    return _answer(response, np.array(output["data"], np.float32).reshape(output["shape"]))


def ask_binary(client: httpx.Client, gateway_url: str, tokens: Tokens) -> Answer:
    """Ask for the same with the protocol's binary tensors: 8 KB per file instead of some 10 KB of digits to parse."""
    data = tokens.astype("<i4").tobytes()
    size = {"binary_data_size": len(data)}
    tensor = {"name": "bytes", "datatype": "INT32", "shape": list(tokens.shape), "parameters": size}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    response = client.post(
        f"{gateway_url}/v2/models/{MODEL}/infer",
        content=header + data,
        headers={"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"},
    )
    _expect_ok(response)
    header_size = int(response.headers["inference-header-content-length"])
    output = json.loads(response.content[:header_size])["outputs"][0]
    scores = np.frombuffer(response.content[header_size:], "<f4")
    return _answer(response, scores.reshape(output["shape"]))


def _answer(response: httpx.Response, scores: Scores) -> Answer:
    headers = response.headers
    return Answer(
        scores=scores,
        site=headers.get("x-nearcast-site", "?"),
        reason=headers.get("x-nearcast-reason", "?"),
        model=headers.get("x-nearcast-model", "?"),
        took_ms=response.elapsed.total_seconds() * 1000,
    )


def _expect_ok(response: httpx.Response) -> None:
    """Go on when there is an answer; else stop with the gateway's own words."""
    if response.is_error:
        sys.exit(f"the gateway answered {response.status_code}: {response.text.strip()}")


def classify(gateway_url: str, paths: list[Path], *, binary: bool = True) -> tuple[list[Verdict], Answer | None]:
    """Verdicts in the order of `paths`, all files in one request, and the answer (None where none was needed)."""
    rules = load_rules()
    ends = [read_ends(path, rules) for path in paths]
    verdicts = [known_without_model(each, rules) for each in ends]
    unsure = [index for index, verdict in enumerate(verdicts) if verdict is None]
    answer = None
    if unsure:
        tokens = np.stack([features(ends[index], rules) for index in unsure])
        with httpx.Client(timeout=30.0, trust_env=False) as client:
            try:
                answer = (ask_binary if binary else ask_json)(client, gateway_url.rstrip("/"), tokens)
            except httpx.TransportError as error:
                sys.exit(f"no answer from {gateway_url}: {error}")
        for index, row in zip(unsure, answer.scores, strict=True):
            verdicts[index] = judge(row, rules)
    return [verdict for verdict in verdicts if verdict is not None], answer


def main() -> None:
    """Read the command line, ask, print."""
    parser = argparse.ArgumentParser(description="Tell what kind of file each FILE is, by asking a gateway.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--site", help="ask the gateway of this site")
    where.add_argument("--gateway", metavar="URL", help="ask this gateway")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="send plain JSON instead of binary tensors")
    arguments = parser.parse_args()
    if missing := [str(path) for path in arguments.files if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    url = arguments.gateway or Fleet().gateway(arguments.site)
    verdicts, answer = classify(url, arguments.files, binary=not arguments.json)
    for path, verdict in zip(arguments.files, verdicts, strict=True):
        print(f"{path}: {verdict.label} ({verdict.score:.3f})")
    if answer:
        print(f"computed at {answer.site} by {answer.model}; why there: {answer.reason} ({answer.took_ms:.0f} ms)")


if __name__ == "__main__":
    main()
