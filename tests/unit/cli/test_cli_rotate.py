"""`releaser rotate`: cut short at any write, it is finished by the next one, and never with keys that no root names."""

import base64
import contextlib
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from nearcast.cli import releaser as releasers
from nearcast.cli.main import main
from nearcast.cli.releaser import begin_releases, rotate_keys
from nearcast.client.views import Targets, Trust
from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound
from nearcast.registry.blobs import BlobStore
from nearcast.registry.keys import load_signer
from nearcast.registry.objects import open_objects
from nearcast.registry.plans import new_plans_root
from nearcast.registry.release_list import propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.trust import version_of
from nearcast.resources.release import File, ReleaseManifest, Signature, encode_release
from nearcast.resources.revision import digest_of


class Cut(Exception):
    """The command dies here."""


@dataclass
class Control:
    """The calls of a control plane that `releaser` makes, over a repository in memory."""

    conflicts: int = 0
    online: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)

    def __post_init__(self) -> None:
        objects = open_objects("memory:")
        self.blobs = BlobStore(objects)
        self.releases = ReleasesRepository(objects, self.blobs, self.online, lambda: datetime.now(UTC))
        self.plans_root = new_plans_root(
            root_signers=[self.online], online_key=self.online.public_key, now=datetime.now(UTC)
        )

    def trust(self) -> Trust:

        root = self.releases.root()
        return Trust(
            fleet="f",
            ca_pem="",
            plans_root=base64.b64encode(self.plans_root).decode(),
            releases_root=None if root is None else base64.b64encode(root).decode(),
        )

    def start_releases(self, root: bytes, targets: bytes) -> None:
        self.releases.initialise(root, targets)

    def releases_roots(self) -> list[bytes]:
        return [*self.releases.roots()]

    def releases_targets(self) -> Targets:
        return Targets(*self.releases.targets())

    def change_release_keys(self, root: bytes, targets: bytes) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("somebody else was first")
        self.releases.change_keys(root, targets)

    def release(self, folder: Path, version: str) -> None:
        content = b"weights"
        self.blobs.put(digest_of(content), [content])
        manifest = ReleaseManifest(
            model="m",
            version=version,
            runtime="onnx",
            task="tensor",
            entrypoint="model.onnx",
            files=(File(path="model.onnx", digest=digest_of(content), size_bytes=len(content)),),
            signature=Signature(inputs=(), outputs=()),
            created_at="2026-03-01T00:00:00Z",
        )
        root = (folder / "releases.root.json").read_bytes()
        targets, number = self.releases.targets()
        proposal = propose(root, targets, manifest, load_signer(folder / "releaser.pem"), now=datetime.now(UTC))
        self.releases.accept(proposal, encode_release(manifest), number)


@pytest.fixture
def control(tmp_path: Path) -> Any:
    made = Control()
    assert begin_releases(made, tmp_path)  # type: ignore[arg-type]
    return made


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_new_keys_are_in_place_and_the_old_ones_are_kept(control: Any, tmp_path: Path) -> None:
    control.release(tmp_path, "1")
    old = (tmp_path / "releaser.pem").read_bytes()
    root = (tmp_path / "root.pem").read_bytes()
    assert rotate_keys(control, tmp_path, with_root=False, lost=None) == 2
    assert (tmp_path / "retired" / "1.releaser.pem").read_bytes() == old
    assert (tmp_path / "root.pem").read_bytes() == root
    assert rotate_keys(control, tmp_path, with_root=True, lost=None) == 3
    assert (tmp_path / "retired" / "2.root.pem").read_bytes() == root
    assert names(tmp_path) == {
        "releaser.pem",
        "root.pem",
        "releases.root.json",
        *(f"retired/{name}" for name in ("1.releaser.pem", "2.releaser.pem", "2.root.pem")),
    }
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.pem")} == {0o600}
    control.release(tmp_path, "2")
    assert len(control.releases.list()) == 2


def test_a_lost_key_is_named_by_its_id(control: Any, tmp_path: Path) -> None:
    keyid = load_signer(tmp_path / "releaser.pem").public_key.keyid
    (tmp_path / "releaser.pem").unlink()
    with pytest.raises(NotFound) as missing:
        rotate_keys(control, tmp_path, with_root=False, lost=None)
    assert "--lost" in missing.value.hint
    with pytest.raises(InvalidInput, match="expected a targets key"):
        rotate_keys(control, tmp_path, with_root=False, lost="none")
    assert rotate_keys(control, tmp_path, with_root=False, lost=keyid) == 2
    control.release(tmp_path, "1")


def test_others_who_publish_meanwhile_are_followed_and_not_for_ever(control: Any, tmp_path: Path) -> None:
    control.conflicts = 2
    assert rotate_keys(control, tmp_path, with_root=False, lost=None) == 2
    control.conflicts = 99
    with pytest.raises(Conflict, match="others published"):
        rotate_keys(control, tmp_path, with_root=False, lost=None)
    control.conflicts = 0
    assert rotate_keys(control, tmp_path, with_root=False, lost=None) == 3
    control.release(tmp_path, "1")


def test_a_folder_without_the_root_is_refused(control: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no .*releases\.root\.json"):
        rotate_keys(control, tmp_path / "elsewhere", with_root=False, lost=None)


@pytest.mark.parametrize("root_too", [False, True])
@pytest.mark.parametrize("step", range(12))
def test_a_rotation_that_was_cut_short_is_finished(
    control: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, root_too: bool
) -> None:
    """At each write, rename and removal of the command, and before and after its call."""
    left = step

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(releasers, "write_whole", counted(releasers.write_whole))
        patched.setattr(releasers, "load_or_create_signer", counted(releasers.load_or_create_signer))
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        patched.setattr(Control, "change_release_keys", counted(Control.change_release_keys))
        patched.setattr(releasers.shutil, "rmtree", counted(releasers.shutil.rmtree))
        with contextlib.suppress(Cut):
            rotate_keys(control, tmp_path, with_root=root_too, lost=None)
    assert rotate_keys(control, tmp_path, with_root=root_too, lost=None) in {2, 3}
    assert not (tmp_path / "next").exists()
    control.release(tmp_path, "1")
    assert version_of((tmp_path / "releases.root.json").read_bytes()) == len(control.releases.roots())
    assert rotate_keys(control, tmp_path, with_root=True, lost=None) == len(control.releases.roots())
    control.release(tmp_path, "2")


def test_keys_that_another_copy_replaced_are_told_with_the_way_out(control: Any, tmp_path: Path) -> None:
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(tmp_path, copy)
    rotate_keys(control, tmp_path, with_root=False, lost=None)
    with pytest.raises(InvalidInput, match=r"a targets key of version 2 of the fleet's root") as refused:
        rotate_keys(control, copy, with_root=False, lost=None)
    assert "another copy of the folder" in refused.value.hint


@pytest.mark.parametrize(("content", "said"), [(b"{", "arbitrary bytes"), (None, "do not follow")])
def test_a_broken_or_foreign_root_is_told_by_its_file(
    control: Any, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is None:
        other = tmp_path / "other"
        begin_releases(Control(), other)  # type: ignore[arg-type]
        rotate_keys(control, tmp_path, with_root=True, lost=None)
        content = (other / "releases.root.json").read_bytes()
    (tmp_path / "releases.root.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=said) as refused:
        rotate_keys(control, tmp_path, with_root=False, lost=None)
    assert str(tmp_path / "releases.root.json") in refused.value.message
    assert "another copy" in refused.value.hint


def test_a_rotation_is_told_to_programs(
    control: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(releasers, "connected", lambda _session: contextlib.nullcontext(control))
    with pytest.raises(SystemExit) as ended:
        main(["releaser", "rotate", "--root", "--keys", str(tmp_path), "-o", "json"])
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    signed = json.loads((tmp_path / "releases.root.json").read_text())["signed"]
    assert told["root_version"] == signed["version"] == 2
    assert [told["releaser_key_id"]] == signed["roles"]["targets"]["keyids"]
    assert [told["root_key_id"]] == signed["roles"]["root"]["keyids"]
    assert told["releaser_key"] == str(tmp_path / "releaser.pem")
