"""Two replicas over one PostgreSQL, one folder of secrets, one repository: nothing is lost, doubled or rolled back."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from fleets.three_sites import World
from nearcast.control.plane import open_control_plane
from nearcast.control.tables import Leadership
from nearcast.errors import Conflict, InvalidInput, Unavailable
from nearcast.registry.objects import FolderObjects

Fleet = Any
Make = Any
HOUR = timedelta(hours=1)


@pytest.fixture
def replicas(tmp_path: Path, postgresql: Any, fleet_type: Any) -> Iterator[tuple[Fleet, Fleet]]:
    """The first one leads."""
    url, shared = postgresql.database(), tmp_path / "shared"
    made = [
        fleet_type(tmp_path / name, url, secrets=shared / "secrets", repository=str(shared / "repository"))
        for name in ("one", "two")
    ]
    made[1].releaser, made[1].root_key = made[0].releaser, made[0].root_key
    for each in made:  # FastAPI makes its routes at the first request, not for threads, of which a server has one
        assert each.call("GET", "/no/such/route").status_code == 404
    yield made[0], made[1]
    for each in made:
        each.plane.close()


def expire(fleet: Fleet) -> None:
    """As if the leader had been silent for longer than its lease."""
    with fleet.plane.database.write() as session:
        session.execute(update(Leadership).values(expires_s=0.0))


def version(fleet: Fleet, site: str) -> int:
    plan = fleet.plane.plans.latest(site)
    return 0 if plan is None else int(plan.version)


def test_what_one_replica_took_the_other_has(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    one, two = replicas
    one.applied(make.site("fra"))
    document = two.call("GET", "/v1/resources/sites/fra")
    assert document.status_code == 200
    changed = make.site("fra", "FR")
    assert two.call("PUT", "/v1/resources/sites/fra", json=changed).status_code == 200
    stale = {"if-match": document.headers["etag"]}
    assert one.call("PUT", "/v1/resources/sites/fra", json=make.site("fra"), headers=stale).status_code == 409
    two.start_releases()
    one.push("m", "1")
    assert two.apply(make.deployment("m", "1")).status_code == 200
    assert [item["action"] for item in one.call("GET", "/v1/resources/sites/fra/revisions").json()["items"]] == [
        "put",
        "put",
    ]


def test_many_writers_at_both_replicas_lose_nothing(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    def write(fleet: Fleet, prefix: str) -> None:
        for number in range(8):
            assert fleet.apply(make.site(f"{prefix}-{number}")).status_code == 200

    writers = [
        threading.Thread(target=write, args=(fleet, f"r{n}{m}")) for n, fleet in enumerate(replicas) for m in "ab"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
    for fleet in replicas:
        snapshot = fleet.plane.store.snapshot()
        assert len(snapshot.held) == 32
        assert snapshot.sequence == 32


def test_a_token_is_used_once_whoever_is_asked(replicas: tuple[Fleet, Fleet], make: Make, node_type: Any) -> None:
    one, two = replicas
    one.applied(make.site("fra"))
    one.start_releases()
    token = one.token("fra")
    candidates = [node_type(fleet, "fra", f"n{number}") for number, fleet in enumerate([one, two] * 3)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda each: answers.append(each.ask(token).status_code), args=(each,))
        for each in candidates
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [200, 401, 401, 401, 401, 401]


def test_of_two_releases_at_once_one_is_accepted(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    one, two = replicas
    one.start_releases()
    one.push("m", "1")
    first, second = one.proposal("m", "2"), two.proposal("m", "3")
    assert one.call("POST", "/v1/releases", json=first).status_code == 201
    assert two.call("POST", "/v1/releases", json=second).status_code == 409
    assert two.call("POST", "/v1/releases", json=first).status_code == 201  # the same again is no second one
    assert set(two.plane.index.entries()) == {("m", "1"), ("m", "2")}


def test_a_node_may_talk_to_any_replica(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    one, two = replicas
    one.applied(make.site("fra"))
    one.start_releases()
    node = one.join("fra")
    node.fleet = two
    assert node.report().status_code == 200  # at once, though the other one let it in
    one.plane.follower.follow()
    (seen,) = one.plane.nodes.views()
    assert seen.connected
    assert seen.status is not None
    assert seen.status.gateway.peer_address == "192.0.2.1:7443"
    assert one.call("DELETE", "/v1/nodes/fra/n1").status_code == 204
    two.plane.follower.follow()
    assert node.report().status_code == 401
    assert two.call("GET", "/v1/nodes").json()["items"] == []


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_reports_of_one_moment_both_keep_the_one_that_was_written_last(
    replicas: tuple[Fleet, Fleet], make: Make, first: int
) -> None:
    """The clock stands: whoever hears the node, at whichever replica, all show the same status."""
    one, _ = replicas
    one.applied(make.site("fra"))
    one.start_releases()
    node = one.join("fra")
    for number, fleet in enumerate((replicas[first], replicas[1 - first], replicas[first])):
        node.fleet = fleet
        assert node.report(plan_version=number).status_code == 200
    for _ in range(2):
        for fleet in replicas:
            fleet.plane.follower.follow()
        versions = {view.status.plan_version for fleet in replicas for view in fleet.plane.nodes.views()}
        assert versions == {2}


def test_a_report_that_is_not_told_yet_stands_against_one_of_its_moment(
    replicas: tuple[Fleet, Fleet], make: Make
) -> None:
    one, _ = replicas
    one.applied(make.site("fra"))
    one.start_releases()
    node = one.join("fra")
    for load in (0.1, 0.2):  # the second one says nothing new besides the load, so it is told later
        assert node.report(load={"application_utilization": load}).status_code == 200
    one.plane.nodes.absorb()
    (view,) = one.plane.nodes.views()
    assert view.status.load.application_utilization == 0.2


def test_a_node_that_only_polls_stays_connected_for_both(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    one, two = replicas
    one.applied(make.site("fra"))
    one.start_releases()
    node = one.join("fra")
    for fleet in (one, two):
        fleet.pass_time(50)
    node.fleet = two
    node.get("/repository/plans/fra/metadata/timestamp.json")
    two.plane.follower.follow()
    one.plane.follower.follow()
    for fleet in (one, two):
        fleet.pass_time(50)
        assert [view.connected for view in fleet.plane.nodes.views()] == [True]


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
def test_replicas_whose_clocks_disagree_agree_about_who_is_silent(
    tmp_path: Path, postgresql: Any, fleet_type: Any, make: Make, monkeypatch: pytest.MonkeyPatch, off: timedelta
) -> None:
    """Each hears a node of its own; both see both, and so does a third that starts later."""
    url, shared = postgresql.database(), tmp_path / "shared"

    class OnItsOwnClock(fleet_type):  # type: ignore[misc]
        def open(self) -> Any:
            return open_control_plane(self.settings)

    def opened(name: str, ahead: timedelta) -> Any:
        monkeypatch.setattr("nearcast.control.plane._wall", lambda: datetime.now(UTC) + ahead)
        return OnItsOwnClock(tmp_path / name, url, secrets=shared / "secrets", repository=str(shared / "repository"))

    def connected(fleet: Any) -> dict[str, bool]:
        fleet.plane.follower.follow()
        return {view.site: view.connected for view in fleet.plane.nodes.views()}

    planes = [opened("one", timedelta()), opened("two", off)]
    try:
        one, two = planes
        one.now = datetime.now(UTC)
        one.start_releases()
        one.applied(make.site("fra"), make.site("iad", "US"))
        for fleet, site in ((one, "fra"), (two, "iad")):
            assert fleet.join(site).report().status_code == 200
            fleet.plane.follower.follow()
        planes.append(opened("three", -off))
        for fleet in planes:
            assert connected(fleet) == {"fra": True, "iad": True}
            assert all(abs(view.seen_at - datetime.now(UTC)) < HOUR / 2 for view in fleet.plane.nodes.views())
        monkeypatch.setattr(
            "nearcast.control.database.Database.now_s", lambda *_: (datetime.now(UTC) + HOUR).timestamp()
        )
        one.plane.leader.hold()
        assert connected(one) == {"fra": False, "iad": False}, "an hour has passed, by the clock that they share"
    finally:
        for fleet in planes:
            fleet.plane.close()


def test_one_publishes_and_the_next_one_goes_on(replicas: tuple[Fleet, Fleet], make: Make) -> None:
    one, two = replicas
    two.applied(make.site("fra"))
    assert two.controllers.step() == ()
    assert one.controllers.step() == ("fra",)
    assert two.plane.leader.hold() is False
    expire(one)
    assert two.plane.leader.hold()
    assert two.plane.leader.term == one.plane.leader.term + 1
    two.applied(make.site("fra", "FR"))
    assert two.controllers.step() == ("fra",)
    assert version(two, "fra") == 2
    with pytest.raises(Unavailable, match="another replica"):
        one.plane.publisher.publish(one.observer.plans(one.plane.store.snapshot()))
    assert not one.plane.leader.hold()
    assert one.controllers.step() == ()
    assert one.call("GET", "/v1/resources/sites/fra").json()["status"]["details"]["planVersion"] == 2


def test_both_replicas_show_the_same_decisions_and_the_next_leader_goes_on_from_the_record(
    replicas: tuple[Fleet, Fleet], make: Make
) -> None:
    one, two = replicas
    world = World(one, make, {"auto": {}})
    world.report("frankfurt", frankfurt=70.0)
    assert world.pass_on()
    decided = one.plane.decisions.in_force
    assert not two.planner.step(), "who does not lead decides nothing"
    for each in replicas:
        each.plane.follower.follow()
    shown = [each.call("GET", "/v1/decisions").json() for each in replicas]
    assert shown[0] == shown[1]
    assert [item["id"] for item in shown[0]["items"]] == [decided.id]
    assert two.plane.decisions.in_force == decided
    assert len({each.call("GET", f"/v1/decisions/{decided.id}").text for each in replicas}) == 1
    expire(one)
    assert two.plane.leader.hold()
    two.pass_time(5.0)
    assert not two.planner.step(), "the same fleet, and the plan of the record: nothing changes"
    assert two.plane.decisions.in_force.guidance == decided.guidance
    with pytest.raises(Unavailable, match="another replica"):
        one.plane.decisions.add(one.plane.decisions.record(), one.plane.leader)


def test_a_leader_that_slept_in_the_middle_changes_nothing(
    replicas: tuple[Fleet, Fleet], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has announced and signed; just before its last write it stops, another takes over, and it goes on."""
    one, two = replicas
    one.applied(make.site("fra"))
    assert one.controllers.step() == ("fra",)
    one.applied(make.site("fra", "FR"))
    swap = FolderObjects.swap
    slept: list[str] = []

    def sleepy(store: Any, path: str, data: bytes, before: Any) -> bool:
        if path == "plans/fra/metadata/timestamp.json" and not slept:
            slept.append(path)
            expire(two)
            assert two.plane.leader.hold()
            two.applied(make.site("fra"))  # what is wanted now is what was published before: nothing seems to change
            assert two.controllers.step() == ("fra",)  # yet it is published anew, since the other may still be writing
        return bool(swap(store, path, data, before))

    monkeypatch.setattr(FolderObjects, "swap", sleepy)
    with pytest.raises((Conflict, Unavailable)):
        one.controllers.step()
    monkeypatch.undo()
    plan = two.plane.plans.latest("fra")
    assert plan is not None
    assert plan.site.country == "DE"
    assert plan.version == 3
    assert two.controllers.step() == ()


def test_a_leader_that_ends_in_order_is_followed_at_once(replicas: tuple[Fleet, Fleet]) -> None:
    one, two = replicas
    one.plane.leader.resign()
    assert two.plane.leader.hold()


def test_a_replica_with_other_secrets_is_refused(
    replicas: tuple[Fleet, Fleet], tmp_path: Path, fleet_type: Any
) -> None:
    one, _ = replicas
    settings = replace(one.settings, data_dir=tmp_path / "three", secrets=None)
    with pytest.raises(InvalidInput, match="is missing in"):
        fleet_type(settings.data_dir, settings.database, repository=settings.repository)
    token = one.settings.admin_token_file
    held = token.read_text()
    token.write_text("nca_" + "x" * 43)
    with pytest.raises(InvalidInput, match="not those of the fleet"):
        fleet_type(tmp_path / "four", settings.database, secrets=one.settings.secrets, repository=settings.repository)
    token.write_text(held)


def test_the_password_of_the_database_is_told_to_nobody(tmp_path: Path, fleet_type: Any, caplog: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        fleet_type(tmp_path / "c", "postgresql://tester:hush-hush@127.0.0.1:1/none")
    assert "hush-hush" not in caught.value.message + caplog.text
    assert "tester:***@127.0.0.1:1" in caught.value.message
    for url in ("mysql://tester:hush-hush@localhost/x", "hush-hush"):
        with pytest.raises(InvalidInput) as refused:
            fleet_type(tmp_path / "d", url)
        assert "hush-hush" not in refused.value.message
