"""Documents on disk of yesterday, of today and of tomorrow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nearcast.agent.layout import layout_of
from nearcast.agent.main import main as agent
from nearcast.cli.fleet import FleetFile, LocalPaths
from nearcast.cli.supervisor import main as supervisor
from nearcast.documents import FORMAT, TooNew, refuse_newer


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"format": 1}',
        '{"format": {"version": "1"}}',  # a model of that name in last_good.json
        '{"format": "two"}',
        "[]",
        '{"format": ',
        "\udcff",
    ],
)
def test_what_is_of_today_or_yesterday_or_damaged_passes(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, errors="surrogateescape")
    refuse_newer(tmp_path / "absent.json", file)


def test_what_is_of_tomorrow_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"sites": 3, "format": FORMAT + 1}))
    with pytest.raises(TooNew) as raised:
        refuse_newer(file)
    assert str(file) in raised.value.message
    assert f"format {FORMAT + 1}" in raised.value.message
    assert f"understands format {FORMAT}" in raised.value.message
    assert "newer" in raised.value.hint


DOCUMENTS = sorted(path.relative_to("/x").as_posix() for path in layout_of(Path("/x")).documents)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_agent_refuses_each_of_its_documents(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("os._exit", _exit)
    layout = layout_of(tmp_path / "node")
    layout.make()
    (layout.data_dir / name).write_text('{"format": 7}')
    with pytest.raises(SystemExit) as ended:
        agent(["--data-dir", str(layout.data_dir)])
    assert ended.value.code == 5
    assert f"{name} is of format 7" in capsys.readouterr().err
    assert (layout.data_dir / name).read_text() == '{"format": 7}'


def _exit(code: int) -> None:
    raise SystemExit(code)


def _newer(file: Path) -> None:
    document = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document | {"format": 2}))


@pytest.mark.parametrize("which", [lambda paths: paths.fleet, lambda paths: paths.processes])
def test_a_supervisor_starts_nothing(
    tmp_path: Path, which: Callable[[LocalPaths], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = LocalPaths(tmp_path)
    paths.write_fleet(FleetFile(control_port=1))
    _newer(which(paths))
    monkeypatch.setattr("sys.argv", ["supervisor", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit, match="of format 2"):
        supervisor()
    assert not paths.control.exists()
