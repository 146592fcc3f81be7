"""A fleet at work whose repository is forged for one of its sites, file by file.

Whatever is forged: that site goes on with what it last verified and answers every request, the fleet's status says what
was refused and why, the other site follows the plan all the while, and once the repository is honest again so does the
one that was lied to. The attacker stands where a mirror or a cache would: between the repository and one site.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet, eventually, resource
from e2e.tiny_models import adder
from e2e.traffic import load
from nearcast.cli.connect import connected
from nearcast.cli.session import Session
from nearcast.client import Document
from nearcast.durable import write_whole

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

LIED_TO, OTHER = "lisbon", "madrid"
TOP = "timestamp.json"
Forge = Callable[[bytes], bytes]


class Mirror:
    """A copy of the fleet's repository in a folder, kept up to date; files that match are forged on their way."""

    def __init__(self, honest: Path, folder: Path) -> None:
        self.honest, self.folder = honest, folder
        self.forged: tuple[str, Forge] | None = None
        self.seen: dict[str, list[bytes]] = {}
        """Each content that a file had, oldest first."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def copy(self) -> None:
        """Bring the copy up to date. What names other files is read first and written last."""
        names = [str(path.relative_to(self.honest)) for path in self.honest.rglob("*") if path.is_file()]
        names = sorted((name for name in names if "/." not in f"/{name}"), key=lambda name: name.endswith(TOP))
        contents = {name: (self.honest / name).read_bytes() for name in reversed(names)}
        for name in names:
            known = self.seen.setdefault(name, [])
            if not known or known[-1] != contents[name]:
                known.append(contents[name])
            pattern, forge = self.forged or ("", bytes)
            served = forge(contents[name]) if pattern and re.fullmatch(pattern, name) else contents[name]
            target = self.folder / name
            if not target.exists() or target.read_bytes() != served:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole(target, served)

    def older(self, name: str) -> bytes:
        """What a file was before it was what it is."""
        return self.seen[name][-2]

    def _follow(self) -> None:
        while not self._stop.wait(0.2):
            self.copy()

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


@dataclass
class Stand:
    """The fleet, the mirror that one of its sites reads, and what version is wanted."""

    fleet: LocalFleet
    mirror: Mirror
    folder: Path
    version: int = 0

    def release(self) -> None:
        """One more version, for both sites."""
        self.version += 1
        self.fleet.push("m", str(self.version), adder(self.folder / str(self.version), float(self.version)))
        spec = {"model": "m", "version": str(self.version), "placement": {"sites": [LIED_TO, OTHER]}}
        self.fleet.apply(resource("Deployment", "m", spec))

    def site(self, name: str) -> Document:
        """What ``nearcast status`` shows of a site."""
        with connected(Session(self.fleet.data_dir)) as client:
            return next(site for site in client.status_document()["sites"] if site["name"] == name)

    def serves(self, site: str) -> str:
        """The version that is ready there."""
        return ",".join(model["version"] for model in self.site(site)["models"] if model["state"] == "ready")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("attack")
    fleet = LocalFleet(folder / "data")
    sites = folder / "sites.yaml"
    sites.write_text("\n---\n".join(json.dumps(resource("Site", name, {"country": "PT"})) for name in (LIED_TO, OTHER)))
    with ExitStack() as stack:
        stack.callback(fleet.run, "down", check=False)
        fleet.run("up", "--detach", "--file", str(sites))
        mirror = Mirror(fleet.data_dir / "control" / "repository", folder / "mirror")
        made = Stand(fleet, stack.enter_context(mirror), folder / "models")
        made.release()
        fleet.run("wait", "deployment/m", "--for", "ready", "--timeout", "60s")
        mirror.copy()
        node = fleet.data_dir / "sites" / LIED_TO / "identity" / "node.json"
        node.write_text(json.dumps(json.loads(node.read_text()) | {"repository": mirror.folder.as_uri()}))
        fleet.kill(LIED_TO, "agent")  # the next one reads the mirror, and adopts gateway and engine
        made.release()
        eventually(lambda: made.serves(LIED_TO) == "2", "a version that came by the mirror")
        yield made


def flipped(data: bytes) -> bytes:
    """One bit is another one."""
    middle = len(data) * 2 // 3
    return data[:middle] + bytes([data[middle] ^ 2]) + data[middle + 1 :]


PLANS, RELEASES = f"plans/{LIED_TO}", "releases"
POSITIONS = {
    (PLANS, "timestamp"): rf"{PLANS}/metadata/timestamp\.json",
    (PLANS, "snapshot"): rf"{PLANS}/metadata/\d+\.snapshot\.json",
    (PLANS, "targets"): rf"{PLANS}/metadata/\d+\.targets\.json",
    (PLANS, "plan"): rf"{PLANS}/targets/.*",
    (RELEASES, "timestamp"): r"releases/metadata/timestamp\.json",
    (RELEASES, "snapshot"): r"releases/metadata/\d+\.snapshot\.json",
    (RELEASES, "targets"): r"releases/metadata/\d+\.targets\.json",
    (RELEASES, "manifest"): r"releases/targets/.*",
    (RELEASES, "blob"): r"blobs/.*",
}


@pytest.mark.parametrize(("repository", "role"), POSITIONS, ids=lambda part: str(part).partition("/")[0])
def test_what_is_forged_is_told_and_the_last_good_version_serves(stand: Stand, repository: str, role: str) -> None:
    """A timestamp is rolled back to an older one that was true; of any other file one bit is flipped."""
    forge: Forge = flipped
    if role == "timestamp":
        older = stand.mirror.older(f"{repository}/metadata/timestamp.json")
        forge = lambda _data: older  # noqa: E731 - the other one has a name
    with load(stand.fleet.gateway(LIED_TO), "m", pause_s=0.05) as running:
        stand.mirror.forged = (POSITIONS[repository, role], forge)
        stand.release()
        newest = str(stand.version)
        eventually(lambda: refusal(stand, repository, newest).endswith(f"({role})"), f"a refused {role}")
        eventually(lambda: stand.serves(OTHER) == newest, "the other site to follow")
        good = stand.serves(LIED_TO)
        assert good not in {"", newest}
        running.fresh()
        eventually(lambda: running.outcome.total > 20, "some answers")
        stand.mirror.forged = None
        if repository == PLANS:
            eventually(lambda: stand.serves(LIED_TO) == newest, "the honest plan to be followed")
    assert running.outcome.failures == []
    assert (LIED_TO, 1.0 + float(good)) in running.outcome.answers


def refusal(stand: Stand, repository: str, newest: str) -> str:
    """What the fleet's status says was refused: the words up to the role, such as ``rollback (timestamp)``."""
    site = stand.site(LIED_TO)
    conditions = [each["message"] for each in site["conditions"] if each["status"] == "False"]
    models = [each["message"] for each in site["models"] if (each["version"], each["state"]) == (newest, "failed")]
    words = re.search(r"[a-z ]+ \([a-z]+\)", " ".join(conditions if repository == PLANS else models))
    return words[0] if words else ""


def test_an_honest_repository_is_believed_again(stand: Stand) -> None:
    """Whatever of the releases was refused is fetched by itself, after a pause that grows with each refusal."""
    stand.mirror.forged = None
    eventually(lambda: stand.serves(LIED_TO) == str(stand.version), "the newest version")
    assert {condition["status"] for condition in stand.site(LIED_TO)["conditions"]} == {"True"}
