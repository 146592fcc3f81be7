"""A way to run the command against a control plane in memory, without a socket."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from unit.cli.fake_control import TOKEN, URL, FakeControl


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of the command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def run(
    control: FakeControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run ``nearcast ARGUMENTS`` in this process, on the fake control plane and an empty data directory."""
    from nearcast.cli import connect, waiting
    from nearcast.cli.main import main

    monkeypatch.setattr(waiting, "PAUSE_S", 0.0)

    monkeypatch.setattr(connect, "transport_of", lambda _target: httpx.MockTransport(control.handle))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NEARCAST_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEARCAST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NEARCAST_CONTROL", URL)
    monkeypatch.setenv("NEARCAST_TOKEN", TOKEN)

    def run_(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run_
