"""What threads do at the same time: whoever is written last is believed, and nothing unwritten is forgotten."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nearcast.control.database import Database
from nearcast.control.tokens import METRICS_PREFIX, load_or_create_token
from nearcast.control.transitions import Transitions
from nearcast.errors import InvalidInput, Unavailable

Fleet = Any
Make = Any
BLOCKED_S = 0.5
"""How long the second of two is given to come in between where it can."""


@contextmanager
def after_the_next_commit(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> Iterator[None]:
    """Another thread does ``work`` once the next transaction is written, before its writer does anything else."""
    write, done = fleet.plane.database.write, threading.Thread(target=work, daemon=True)

    @contextmanager
    def watched() -> Iterator[Any]:
        with write() as session:
            yield session
        if done.ident is None:
            done.start()
            done.join(BLOCKED_S)

    monkeypatch.setattr(fleet.plane.database, "write", watched)
    yield
    done.join(30)
    assert not done.is_alive()


@pytest.mark.parametrize("change", ["drain", "undrain", "renew"])
def test_a_revocation_during_another_change_of_the_node_stands(
    fleet: Fleet, make: Make, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fleet.applied(make.site("fra"))
    fleet.start_releases()
    node = fleet.join("fra")
    members = fleet.plane.members
    issued = fleet.plane.authority.issue_node(node.csr(), "fra", "n1", fleet.now)
    with after_the_next_commit(fleet, monkeypatch, lambda: members.revoke("fra", "n1")):
        if change == "renew":
            members.renew("fra", "n1", issued)
        else:
            getattr(members, change)("fra", "n1", "admin")
    assert members.revoked(fleet.now) == (("fra", "n1"),)
    assert members.all()[0].revoked_at is not None
    assert fleet.plane.nodes.views() == ()


def test_the_time_of_a_condition_outlives_a_database_that_was_away(
    fleet: Fleet, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    transitions: Transitions = fleet.plane.transitions
    since = transitions.since("Site", "fra", "Ready", "True")

    def away() -> Any:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(fleet.plane.database, "write", away)
        with pytest.raises(Unavailable):
            transitions.flush()
    transitions.reload(keep_own=True)  # as a leader does when it hears of news
    transitions.flush()
    fleet.pass_time(100)
    fleet.restart()
    assert fleet.plane.transitions.since("Site", "fra", "Ready", "True") == since


def test_the_token_of_the_metrics_is_made_by_one_replica(tmp_path: Path, fleet_type: Any) -> None:
    """Where keys and admin token are there already, as after an upgrade: the folder is locked nevertheless."""
    made = fleet_type(tmp_path / "c")
    made.plane.close()
    token = made.settings.metrics_token_file
    token.unlink()
    (made.settings.keys_dir / ".lock").unlink(missing_ok=True)
    made.start()
    made.plane.close()
    assert (made.settings.keys_dir / ".lock").exists()
    assert load_or_create_token(token, METRICS_PREFIX) == made.plane.metrics_sha256


def test_a_folder_of_secrets_that_lacks_a_token_and_cannot_be_written(tmp_path: Path, fleet_type: Any) -> None:
    """As a secret that is mounted read-only."""
    made = fleet_type(tmp_path / "c")
    made.plane.close()
    made.settings.metrics_token_file.unlink()
    lock = made.settings.keys_dir / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # what nobody can open for writing, root neither
    with pytest.raises(InvalidInput, match=r"^metrics.token cannot be made"):
        made.start()
    lock.rmdir()
    made.start()
    made.plane.close()


@pytest.mark.parametrize("url", ["u@127.0.0.1:1/none?password=hush-hush", "u:hush-hush@127.0.0.1:1/none"])
def test_no_password_of_the_database_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable) as caught:
        Database(f"postgresql://{url}")
    assert "hush-hush" not in caught.value.message + caplog.text
    assert "127.0.0.1:1/none" in caught.value.message
