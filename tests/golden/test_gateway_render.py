"""Site plan, sockets and route table -> Envoy files. Each case is a pair in tests/golden/gateway/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from nearcast.gateway.render import GatewayInputs, Listen, LocalModel, render
from nearcast.gateway.render.lua import MODEL_OF_REQUEST
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources.plan import SitePlan
from nearcast.resources.status import Share

CASES = Path(__file__).parent / "gateway"


def inputs_of(case: dict[str, Any]) -> GatewayInputs:
    shares = {
        model: tuple(Share(percent=row["percent"], order=tuple(row["order"])) for row in rows)
        for model, rows in case["routes"].items()
    }
    return GatewayInputs(
        plan=msgspec.convert(case["plan"], SitePlan),
        node="n1",
        listen=Listen("127.0.0.1", 8080, "0.0.0.0", 8443),
        run_dir="/run",
        envoy_dir="/envoy",
        local=tuple(LocalModel(**local) for local in case["local"]),
        active=case["active"],
        routes=RouteTable(models={model: ModelRoute("routed", rows) for model, rows in shares.items()}),
    )


@pytest.mark.parametrize("path", sorted(CASES.glob("*.input.yaml")), ids=lambda path: path.name.split(".")[0])
def test_render(path: Path, golden: Callable[[Path, str], None]) -> None:
    case = yaml.safe_load(path.read_text())
    files = render(inputs_of(case))
    parts = {
        "bootstrap": files.bootstrap,
        "clusters": files.clusters.resources,
        "listeners": files.listeners.resources,
        **{f"routes {name}": document.resources for name, document in files.routes.items()},
    }
    shown = {name: parts[name] for name in case["show"]}
    plain = msgspec.to_builtins(shown)
    text = yaml.safe_dump(_without_script(plain), sort_keys=False, width=120)
    golden(path.with_name(path.name.replace("input", "output")), text)


def _without_script(value: Any) -> Any:
    """The Lua has tests of its own; here its place is enough."""
    if isinstance(value, dict):
        return {key: _without_script(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_script(item) for item in value]
    return "(the script of render/lua.py)" if value == MODEL_OF_REQUEST else value
