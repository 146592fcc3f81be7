"""The load report: how busy an engine is, in the field names of ORCA (Open Request Cost Aggregation).

Source of the names: ``xds/data/orca/v3/orca_load_report.proto`` (application_utilization, mem_utilization,
rps_fractional, eps, named_metrics). ORCA has no room for models, so each model's figures are named metrics
``<model>.<figure>``; :class:`ModelLoad` is their typed view. Model names may hold dots; figures never do.
"""

from typing import Final

import msgspec

from nearcast.errors import InvalidInput
from nearcast.resources.unreadable import UNREADABLE


class ModelLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How busy one model of one engine is.

    Attributes:
        wait_s: how long a request that arrives now waits beside its service, in seconds: for what this model has to do
            before it, and for other models that use the worker meanwhile.
        service_s: time of one request in the model, in seconds, as if no other model ran: moving average, from warm-up
            until traffic tells more.
        utilization: share of what the engine can do that the model took over the last seconds, 0 to 1.
        rate_per_s: requests answered per second.
        queue: requests waiting now.
        room: how many more the queue takes before the engine refuses.
    """

    wait_s: float
    service_s: float
    utilization: float
    rate_per_s: float
    queue: int
    room: int


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /-/load`` answers. Unknown fields are ignored: peers may be newer than we are.

    ``application_utilization`` is the share of what this engine can do that all its models took over the last seconds:
    1 means saturated, on whatever hardware.
    """

    application_utilization: float = 0.0
    mem_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    named_metrics: dict[str, float] = {}
    device: str = "cpu"
    """Where models run: ``cpu`` or ``cuda:INDEX``."""
    device_mem_utilization: float = 0.0
    """Share of that device's own memory that is taken, by whomever."""

    def of(self, model: str) -> ModelLoad | None:
        """The load of ``model``, or None where this engine does not report it."""
        metrics = self.named_metrics
        if f"{model}.service_s" not in metrics:
            return None

        def figure(name: str) -> float:
            return metrics.get(f"{model}.{name}", 0.0)

        return ModelLoad(
            wait_s=figure("wait_s"),
            service_s=figure("service_s"),
            utilization=figure("utilization"),
            rate_per_s=figure("rate_per_s"),
            queue=int(figure("queue")),
            room=int(figure("room")),
        )


MAX_REPORT_BYTES: Final = 512 * 1024
"""Some two thousand models."""
MAX_FIGURE: Final = 1e9
"""No time, rate or count of one engine is larger; what is was made up, or is broken."""

_reports: Final = msgspec.json.Decoder(LoadReport)


def parse_load(data: bytes) -> LoadReport:
    """A load report that another machine tells, held against what a load can be.

    Raises:
        InvalidInput: it is none, or a figure in it is negative or beyond all measure.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise InvalidInput(f"expected a load report of at most {MAX_REPORT_BYTES} bytes")
    try:
        report = _reports.decode(data)
    except (*UNREADABLE, UnicodeDecodeError) as error:
        raise InvalidInput(f"no load report: {error}") from error
    plain = {name: getattr(report, name) for name in report.__struct_fields__}
    figures = {name: figure for name, figure in plain.items() if isinstance(figure, int | float)}
    for name, figure in {**figures, **report.named_metrics}.items():
        if not 0.0 <= figure <= MAX_FIGURE:  # false for NaN, too
            raise InvalidInput(f"no load report: expected {name[:80]!r} from 0 to {MAX_FIGURE:g}, got {figure:g}")
    return report


def named_metrics(loads: dict[str, ModelLoad]) -> dict[str, float]:
    """The named metrics that carry ``loads`` (model name -> load): the inverse of :meth:`LoadReport.of`."""
    return {
        f"{model}.{field}": float(getattr(load, field))
        for model, load in loads.items()
        for field in load.__struct_fields__
    }
