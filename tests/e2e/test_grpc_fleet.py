"""gRPC on a whole fleet, as the how-to page tells it: its snippets run as they stand, near a model and far from it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from e2e.local_fleet import LocalFleet
from e2e.tiny_models import adder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/call-by-grpc.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def deployed(fleet: LocalFleet) -> Iterator[LocalFleet]:
    fleet.push("adder", "grpc", adder(fleet.data_dir / "models" / "grpc", 1.0))
    fleet.deploy("adder", "grpc", "frankfurt")
    yield fleet
    fleet.run("delete", "deployment", "adder")


@pytest.mark.parametrize("site", ["frankfurt", "singapore"])
def test_the_snippets_of_the_page_work(deployed: LocalFleet, site: str, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = SNIPPET.findall(PAGE.read_text())
    assert len(snippets) == 2
    for snippet in snippets:
        assert "127.0.0.1:8080" in snippet
        names: dict[str, object] = {}
        exec(snippet.replace("127.0.0.1:8080", deployed.gateway(site)), names)  # noqa: S102  (our own page)
        names.get("client", names.get("channel")).close()  # type: ignore[union-attr]
    assert capsys.readouterr().out.splitlines() == ["[[2. 2. 2. 2.]]", "frankfurt"]


def test_an_unknown_model_is_not_found_at_every_site(deployed: LocalFleet) -> None:
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    for site in deployed.status()["sites"]:
        with triton.InferenceServerClient(deployed.gateway(site["name"])) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match="no deployment has a model named nope") as raised:
                client.infer("nope", [x])
            assert raised.value.status() == "StatusCode.NOT_FOUND"
