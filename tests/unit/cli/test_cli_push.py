"""``model push``: what is sent, what is signed, and what happens when somebody else pushes too."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from nearcast.registry.keys import load_or_create_signer
from nearcast.registry.release_list import new_releases_root, new_targets, propose
from nearcast.resources.release import ReleaseManifest

if TYPE_CHECKING:
    from unit.cli.conftest import Run
    from unit.cli.fake_control import FakeControl


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that gives back its input."""
    folder = tmp_path / "model"
    folder.mkdir()
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", sides[:1], sides[1:])
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(built, str(folder / "model.onnx"))
    (folder / "labels.txt").write_text("a\nb\n")
    return folder


@pytest.fixture(autouse=True)
def begun(control: "FakeControl", tmp_path: Path) -> None:
    """Releases were begun with the keys in the data directory."""
    keys = tmp_path / "data" / "releaser"
    now = datetime.now(UTC)
    root, releaser = load_or_create_signer(keys / "root.pem"), load_or_create_signer(keys / "releaser.pem")
    control.root = new_releases_root(
        root_signers=[root], releaser_keys=[releaser.public_key], online_key=root.public_key, now=now
    )
    control.targets = new_targets(releaser, now=now)


def push(run: "Run", model: Path, *more: str) -> tuple[int, str]:
    done = run("model", "push", "m", "--version", "1", str(model), *more)
    return done.code, done.err


def test_a_push_uploads_then_publishes(control: "FakeControl", run: "Run", model: Path) -> None:
    assert push(run, model, "--label", "licence=CC0")[0] == 0
    [entry] = control.releases
    assert entry["manifest"]["labels"] == {"licence": "CC0"}
    assert {file["path"] for file in entry["manifest"]["files"]} == {"model.onnx", "labels.txt"}
    assert len(control.blobs) == 2
    assert control.calls[-1] == "POST /v1/releases"


def test_the_same_content_again_changes_nothing_and_sends_nothing(
    control: "FakeControl", run: "Run", model: Path
) -> None:
    push(run, model)
    control.calls.clear()
    code, said = push(run, model)
    assert code == 0
    assert "unchanged" in said
    assert control.calls == ["GET /v1/releases"]


def test_other_content_under_the_same_version_is_a_conflict(control: "FakeControl", run: "Run", model: Path) -> None:
    push(run, model)
    (model / "labels.txt").write_text("c\n")
    code, said = push(run, model)
    assert code == 5
    assert "files differ: labels.txt" in said
    assert "another --version" in said
    assert len(control.releases) == 1


def test_a_blob_that_is_there_is_not_sent_again(control: "FakeControl", run: "Run", model: Path) -> None:
    push(run, model)
    control.calls.clear()
    assert run("model", "push", "n", "--version", "1", str(model)).code == 0
    assert not any(call.startswith("PUT") for call in control.calls)


def rival(control: "FakeControl", keys: Path, model: str, times: int) -> None:
    """Let somebody else release ``model`` under ever new versions, just before each of the next ``times`` proposals."""
    releaser = load_or_create_signer(keys / "releaser.pem")
    standing = msgspec.convert(control.releases[0]["manifest"], ReleaseManifest)

    def publish() -> None:
        nonlocal times
        if not times:
            return
        times -= 1
        other = msgspec.structs.replace(standing, model=model, version=f"1{'.0' * times}", task="other")
        control.targets = propose(control.root, control.targets, other, releaser, now=datetime.now(UTC))
        listed = {"model": model, "version": other.version, "created_at": "", "task": "other", "digest": "sha256:0"}
        control.releases.append(listed | {"size_bytes": 0, "manifest": msgspec.to_builtins(other)})

    control.before_release = publish


def test_outrun_by_another_push_the_list_is_read_and_signed_again(
    control: "FakeControl", run: "Run", model: Path, tmp_path: Path
) -> None:
    push(run, model)
    rival(control, tmp_path / "data" / "releaser", "other", times=2)
    control.calls.clear()
    assert run("model", "push", "n", "--version", "1", str(model)).code == 0
    assert control.calls.count("POST /v1/releases") == 3
    assert control.releases[-1]["model"] == "n"


def test_outrun_by_a_push_of_the_same_version_it_is_a_conflict(
    control: "FakeControl", run: "Run", model: Path, tmp_path: Path
) -> None:
    push(run, model)
    rival(control, tmp_path / "data" / "releaser", "n", times=1)
    done = run("model", "push", "n", "--version", "1", str(model))
    assert done.code == 5
    assert "n@1 is released already" in done.err


def test_outrun_again_and_again_it_gives_up(control: "FakeControl", run: "Run", model: Path, tmp_path: Path) -> None:
    push(run, model)
    rival(control, tmp_path / "data" / "releaser", "other", times=50)
    done = run("model", "push", "n", "--version", "1", str(model))
    assert done.code == 5
    assert "others published 5 times" in done.err


def test_labels_names_and_versions_are_checked_before_anything_is_sent(
    control: "FakeControl", run: "Run", model: Path
) -> None:
    assert push(run, model, "--label", "novalue")[0] == 2
    assert push(run, model, "--label", "a=1", "--label", "a=2")[0] == 2
    assert run("model", "push", "M M", "--version", "1", str(model)).code == 2
    assert run("model", "push", "m", "--version", "-", str(model)).code == 2
    assert control.calls == []


def test_without_the_releasers_key_the_way_out_is_named(run: "Run", model: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "releaser" / "releaser.pem").unlink()
    code, said = push(run, model)
    assert code == 4
    assert "--key" in said


def test_ls_and_inspect(control: "FakeControl", run: "Run", model: Path) -> None:
    push(run, model)
    serving = {"model": "m", "version": "1", "state": "ready"}
    site = {"name": "frankfurt", "country": "DE", "models": [serving]}
    control.status = {"fleet": "f", "control": {"url": "u"}, "sites": [site]}
    listed = json.loads(run("model", "ls", "-o", "json").out)["releases"]
    assert [(entry["model"], entry["version"]) for entry in listed] == [("m", "1")]
    assert "manifest" not in listed[0]
    found = json.loads(run("model", "inspect", "m", "-o", "json").out)
    assert found["sites"] == ["frankfurt"]
    assert found["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    table = run("model", "inspect", "m").out
    assert "[-1, 2]" in table
    assert "labels.txt" in table
    assert run("model", "inspect", "m@1").out == table, "as nearcast itself writes a release"
    assert run("model", "inspect", "m@2").code == 4
    assert "expected one version" in run("model", "inspect", "m@1", "--version", "2").err
    assert "Did you mean 'm'?" in run("model", "inspect", "mm").err
    assert run("model", "inspect", "m", "--version", "2").code == 4


def test_a_key_that_was_replaced_is_told_with_the_way_out(
    control: "FakeControl", run: "Run", model: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "data" / "releaser"
    (keys / "releaser.pem").unlink()
    load_or_create_signer(keys / "releaser.pem")
    code, said = push(run, model)
    assert code == 7
    assert "way out: where it was replaced (releaser rotate), sign with the new one" in said
