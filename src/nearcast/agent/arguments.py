"""The command line of ``nearcast agent``, read once; what its values mean is in `settings`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nearcast import logs
from nearcast.agent.settings import LOOPBACK, Settings, address, collector
from nearcast.errors import InvalidInput
from nearcast.resources import wire
from nearcast.resources.device import DEVICE_RULE

ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
RATIO_VARIABLE: Final = "OTEL_TRACES_SAMPLER_ARG"


def parse(argv: Sequence[str]) -> Settings:
    """The settings in a command line.

    Raises:
        InvalidInput: a value is not what it should be.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    join: str | None = given.join
    if given.join_file is not None:
        try:
            join = given.join_file.read_text().strip()
        except OSError as error:
            parser.error(f"--join-file: {error}")
    return _settings(given, join)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nearcast agent", description="Run the agent of one node.")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="all that the node owns")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--join", metavar="TOKEN", help="join token, for the first start")
    token.add_argument("--join-file", type=Path, metavar="FILE", help="the same, in a file (better: others see it not)")
    parser.add_argument("--control", metavar="URL", help="https URL of the control plane")
    parser.add_argument("--node", metavar="NAME", help="name of this node in its site (default: the host's)")
    parser.add_argument("--public", default=str(LOOPBACK), metavar="IP:PORT", help="for clients; port 0: any free one")
    parser.add_argument("--public-tls-cert", type=Path, metavar="FILE", help="certificate chain for clients, PEM")
    parser.add_argument("--public-tls-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument("--peer", default=str(LOOPBACK), metavar="IP:PORT", help="for peer sites; port 0 as above")
    parser.add_argument("--advertise-peer", metavar="IP[:PORT]", help="what peers connect to, if not --peer")
    parser.add_argument("--poll-s", type=float, default=5.0, metavar="S", help="between two looks for a new plan")
    parser.add_argument("--status-s", type=float, default=60.0, metavar="S", help="between two reports without news")
    parser.add_argument("--model-bytes", type=int, metavar="N", help="disk that models may take together")
    parser.add_argument("--engine-threads", type=int, default=0, metavar="N", help="threads per run; 0: one per core")
    parser.add_argument("--log-level", default=logs.level_in(os.environ), choices=logs.LEVELS)
    parser.add_argument("--metrics", metavar="IP:PORT", help="serve /metrics there (default: nowhere)")
    parser.add_argument("--access-log", default="errors", choices=["off", "errors", "all"])
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or None
    parser.add_argument("--otlp-endpoint", default=endpoint, metavar="URL", help="collector of traces (default: none)")
    ratio = os.environ.get(RATIO_VARIABLE) or "1"
    parser.add_argument("--trace-ratio", default=ratio, type=float, metavar="R", help="share of requests to trace")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help=f"where models run: {DEVICE_RULE}")
    parser.add_argument("--device-memory", type=int, default=0, metavar="N", help="device bytes per model; 0: all")
    parser.add_argument(
        "--max-body", type=int, default=wire.BODY_BYTES, metavar="BYTES", help="largest body or gRPC message"
    )
    return parser


def _settings(given: argparse.Namespace, join: str | None) -> Settings:
    return Settings(
        data_dir=given.data_dir,
        join=join,
        control=given.control,
        node=given.node,
        public=address(given.public),
        public_tls=_pair(given.public_tls_cert, given.public_tls_key),
        peer=address(given.peer),
        advertise_peer=address(given.advertise_peer, port_required=False) if given.advertise_peer else None,
        poll_s=given.poll_s,
        status_s=given.status_s,
        model_bytes=given.model_bytes,
        engine_threads=given.engine_threads,
        device=given.device,
        device_memory_bytes=given.device_memory,
        max_body_bytes=given.max_body,
        log_level=given.log_level,
        metrics=address(given.metrics) if given.metrics else None,
        access_log=given.access_log,
        collector=collector(given.otlp_endpoint, given.trace_ratio) if given.otlp_endpoint else None,
    )


def _pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise InvalidInput("expected --public-tls-cert and --public-tls-key together, got one of them")
    return certificate.absolute(), key.absolute()
