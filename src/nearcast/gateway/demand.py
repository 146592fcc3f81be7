"""What clients have asked at the public listener, by model, out of Envoy's statistics. Pure; the agent asks Envoy.

Decides which requests are demand. Those that were answered are, and those that nobody could take (full places, no
place ready, callers that gave up): they would have been work. Those that the caller must change first (other 4xx) are
not, nor are requests for models that nobody deployed, which have no route of a model's name. One request is one,
however many places Envoy tried: its access logger counts when the request has ended. What peers send comes in
elsewhere. The totals only rise, until Envoy is started anew; what rates they are is decided in `agent.demand`.
Source of the form: Prometheus, "Exposition formats".
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple

from nearcast.gateway.metrics import code_class
from nearcast.gateway.render.telemetry import parted

PATTERN: Final = r"^nearcast\.public_(requests|sized|received_bytes|sent_bytes)\."
"""The statistics that are asked for, in Prometheus' form."""

_LINE: Final = re.compile(
    r"^envoy_nearcast_public_(?P<name>requests|sized|received_bytes|sent_bytes)(?:_total)?"
    r"\{(?P<labels>.*)\} (?P<value>\d+)$",
    re.MULTILINE,
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TOO_MANY_REQUESTS: Final = "429"


class Asked(NamedTuple):
    """Totals of one model.

    ``received_bytes`` and ``sent_bytes`` are bodies of ``sized`` requests, a sample of those that were answered.
    """

    requests: int = 0
    sized: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


def asked(text: str) -> dict[str, Asked]:
    """Model -> totals, from the statistics of :data:`PATTERN` in Prometheus' text format. Cost: O(lines)."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in _LINE.finditer(text):
        labels = parted(dict(_LABEL.findall(line["labels"])))
        model = labels.get("model", "-")
        if model in {"", "-"} or (line["name"] == "requests" and not _is_demand(labels)):
            continue
        found[model][line["name"]] += int(line["value"])
    return {model: Asked(**totals) for model, totals in found.items()}


def _is_demand(labels: Mapping[str, str]) -> bool:
    return labels.get("code") == _TOO_MANY_REQUESTS or code_class(labels) != "4xx"
