"""Ask gateways the same question again and again, and keep count of the answers.

    python load.py GATEWAY_URL… [--seconds S]

One thread and one connection per gateway. Whatever is not a 200 counts as failed; nothing is asked again.
"""

import argparse
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

PATH: Final = "/v2/models/wine/infer"


@dataclass(slots=True)
class Tally:
    """What came back from one gateway. Answers are kept by who gave them: `model@version`."""

    answers: Counter[str] = field(default_factory=Counter)
    outputs: dict[str, set[tuple[float, ...]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    last: str = ""


def ask_until(stop: threading.Event, gateway_url: str, tensor: dict[str, Any], tally: Tally) -> None:
    """Ask until `stop` is set."""
    body = json.dumps({"inputs": [tensor]})
    headers = {"content-type": "application/json"}
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        while not stop.is_set():
            try:
                response = client.post(gateway_url + PATH, content=body, headers=headers)
            except httpx.HTTPError as error:
                tally.failures.append(repr(error))
                continue
            if response.status_code != httpx.codes.OK:
                tally.failures.append(f"{response.status_code} {response.text[:200]}")
                continue
            tally.last = response.headers.get("x-nearcast-model", "?")
            tally.answers[tally.last] += 1
            outputs = tuple(round(value, 5) for value in response.json()["outputs"][0]["data"])
            tally.outputs.setdefault(tally.last, set()).add(outputs)


class Load:
    """Load on several gateways, from `with` to the end of its block. `tallies`: gateway URL -> what came back."""

    def __init__(self, gateway_urls: list[str], tensor: dict[str, Any]) -> None:
        self.tallies = {url: Tally() for url in gateway_urls}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=ask_until, args=(self._stop, url, tensor, tally))
            for url, tally in self.tallies.items()
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)


def first_wine() -> dict[str, Any]:
    """The first wine of the data set, as a tensor."""
    from sklearn.datasets import load_wine  # noqa: PLC0415  (slow to import; --help should not wait for it)

    row = load_wine().data[0]
    return {"name": "measurements", "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}


def main() -> None:
    """Read the command line, ask, print."""
    parser = argparse.ArgumentParser(description="Ask gateways the same question again and again.")
    parser.add_argument("gateway_urls", nargs="+")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    with Load(arguments.gateway_urls, first_wine()) as load:
        time.sleep(arguments.seconds)
    for url, tally in load.tallies.items():
        print(f"{url}: {dict(tally.answers)}, {len(tally.failures)} failed {tally.failures[:3] or ''}")


if __name__ == "__main__":
    main()
