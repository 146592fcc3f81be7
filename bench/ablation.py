"""Where a microsecond goes: the gateway's own configuration with one part taken away at a time.

Each variant is an Envoy of its own with the rendered configuration of a site less one part; all run at once, and rounds
go through them in turn, so that what the machine does meanwhile falls on all alike. What a part costs is what is saved
without it. The parts need not add up: they share caches and branches. Some variants answer wrongly in cases that are
not asked here; none is for use.
"""

import copy
import json
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import envoys
from bench.gateway import HEADERS, chat
from bench.load import wrk
from bench.ports import free_port
from bench.running import Running, mock
from bench.upstream import MODEL
from nearcast.gateway.render import render
from nearcast.resources import wire

ROUNDS = 9
SECONDS = 1.0
CONNECTIONS = 16
PLAIN, WHOLE = "plain Envoy", "nearcast"
Config = dict[str, Any]
_NAMED = f'function envoy_on_request(handle) handle:headers():replace("{wire.MODEL}", "{MODEL}") end'
_HELD = _NAMED.replace("handle:headers", "handle:body() handle:headers")


def run(folder: Path) -> dict[str, Any]:
    """All variants at 1 KB, the model first in the body; returns raw CPU per request and medians."""
    site = envoys.place(folder, "site")
    whole = render(envoys.inputs(site, MODEL)).flattened()
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        stack.enter_context(mock(site.socket(MODEL), site.status_socket))
        running = {PLAIN: stack.enter_context(envoys.plain(folder, site.socket(MODEL)))}
        for name, without in {WHOLE: _nothing, **PARTS}.items():
            config = _public_only(whole)
            without(config)
            running[name] = stack.enter_context(envoys.static(folder, f"variant{len(running)}", config))
        cpu: dict[str, list[float]] = {name: [] for name in running}
        for number in range(ROUNDS):
            for name, one in running.items():
                cpu[name].append(_cpu(name, one))
            print(f"  {number + 1}/{ROUNDS}: {cpu[WHOLE][-1]:.1f} us, plain {cpu[PLAIN][-1]:.1f} us", file=sys.stderr)
    median = {name: statistics.median(found) for name, found in cpu.items()}
    return {
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
        "cpu_us_per_request": cpu,
        "median": median,
        "saved_us": {
            name: statistics.median(a - b for a, b in zip(cpu[WHOLE], cpu[name], strict=True)) for name in PARTS
        },
    }


def _cpu(name: str, one: Running) -> float:
    point = wrk(
        f"http://127.0.0.1:{one.port}/v1/chat/completions",
        pid=one.pid,
        connections=CONNECTIONS,
        seconds=SECONDS,
        body=chat(1024, model_first=True),
        headers=HEADERS,
        core=1 if (os.cpu_count() or 1) > 1 else None,
    )
    if point.errors or not point.requests:
        raise RuntimeError(f"{name}: {point.errors} of {point.requests} requests failed")
    return point.cpu_us_per_request


def _public_only(whole: Config) -> Config:
    """The same without admin, peer and probe listener, on another port: they would collide."""
    config: Config = json.loads(json.dumps({key: value for key, value in whole.items() if key != "admin"}))
    (public,) = [item for item in config["static_resources"]["listeners"] if item["name"] == "public"]
    public["address"]["socket_address"]["port_value"] = free_port()
    config["static_resources"]["listeners"] = [public]
    return config


# --- the parts -------------------------------------------------------------------------------------------------------


def _manager(config: Config) -> Config:
    (public,) = config["static_resources"]["listeners"]
    found: Config = public["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def _route(config: Config) -> Config:
    (host,) = _manager(config)["route_config"]["virtual_hosts"]
    found: Config = host["matcher"]["matcher_tree"]["exact_match_map"]["map"][MODEL]["action"]["typed_config"]
    forward: Config = found["routes"][-1] if "routes" in found else found
    return forward


def _clusters(config: Config) -> list[Config]:
    found: list[Config] = config["static_resources"]["clusters"]
    return found


def _nothing(config: Config) -> None:
    """All of it."""


def _without(*names: str) -> Callable[[Config], None]:
    """Without these fields of the connection manager."""

    def take(config: Config) -> None:
        for name in names:
            _manager(config).pop(name, None)

    return take


def _script(text: str) -> Callable[[Config], None]:
    """With another script."""

    def take(config: Config) -> None:
        (lua,) = [item for item in _manager(config)["http_filters"] if item["name"].endswith(".lua")]
        lua["typed_config"]["default_source_code"]["inline_string"] = text

    return take


def _no_model(config: Config) -> None:
    """Without script and matcher: one route for everything."""
    manager, forward = _manager(config), copy.deepcopy(_route(config))
    manager["http_filters"] = [item for item in manager["http_filters"] if not item["name"].endswith(".lua")]
    (host,) = manager["route_config"]["virtual_hosts"]
    del host["matcher"]
    host["routes"] = [forward]


def _no_size_limit(config: Config) -> None:
    manager = _manager(config)
    manager["http_filters"] = [item for item in manager["http_filters"] if "body_size" not in item["name"]]


def _no_answer_headers(config: Config) -> None:
    for name in ("response_headers_to_add", "response_headers_to_remove"):
        _route(config).pop(name, None)


def _no_retries(config: Config) -> None:
    _route(config)["route"].pop("retry_policy")
    _route(config).pop("request_body_buffer_limit", None)


def _no_outliers(config: Config) -> None:
    for cluster in _clusters(config):
        cluster.pop("outlier_detection", None)
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            options.pop("outlier_detection", None)


def _no_health_checks(config: Config) -> None:
    for cluster in _clusters(config):
        cluster.pop("health_checks", None)


def _no_statistics(config: Config) -> None:
    manager = _manager(config)
    manager["access_log"] = [item for item in manager["access_log"] if "stats" not in item["name"]]


def _no_log(config: Config) -> None:
    manager = _manager(config)
    manager["access_log"] = [item for item in manager["access_log"] if "stats" in item["name"]]


def _no_request_ids(config: Config) -> None:
    _without("request_id_extension", "always_set_request_id_in_response")(config)
    _manager(config)["generate_request_id"] = False


def _no_overload(config: Config) -> None:
    config.pop("overload_manager", None)


PARTS: dict[str, Callable[[Config], None]] = {
    "script, second look at the routes, map of models": _no_model,
    "… of which all but setting one header": _script(_NAMED),
    "… of which reading the body": _script(_HELD),
    "statistics by model, site, reason and code": _no_statistics,
    "request ids": _no_request_ids,
    "answer headers: site, reason, timing": _no_answer_headers,
    "access log of errors": _no_log,
    "removing headers that clients must not set": _without("early_header_mutation_extensions"),
    "limit of the body": _no_size_limit,
    "retries and their buffer": _no_retries,
    "outlier detection": _no_outliers,
    "health checks": _no_health_checks,
    "shapes of errors": _without("local_reply_config"),
    "paths made normal": _without("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"),
    "time limits": _without("stream_idle_timeout", "request_headers_timeout"),
    "overload manager": _no_overload,
}
"""What is taken away -> how."""
