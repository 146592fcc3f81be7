"""Death between any two writes: what was acknowledged is there, what was not can be done again."""

from datetime import timedelta

import pytest

from nearcast.errors import Conflict, IntegrityError, Unavailable
from nearcast.registry.objects import open_objects
from nearcast.registry.release_list import propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.trust import Lifetimes
from nearcast.resources.release import encode_release, release_digest
from scenario.registry_world import Dying, PowerCut, World


@pytest.mark.parametrize("writes", range(5))
def test_death_while_publishing_a_plan(world: World, writes: int) -> None:
    world.plans.publish(world.plan(1))
    node = world.node()
    assert node.poll_plan() == world.plan(1)
    world.dying.writes_left = writes
    finished = True
    try:
        world.plans.publish(world.plan(2))
    except PowerCut:
        finished = False
    assert finished == (writes >= 4)
    seen = node.poll_plan()
    assert seen == (world.plan(2) if finished else None)
    world.restart()
    assert world.plans.latest("fra") == world.plan(2 if finished else 1)
    world.plans.publish(world.plan(3))
    assert node.poll_plan() == world.plan(3)


def test_another_plan_after_one_that_was_cut_short(world: World) -> None:
    """Files left behind carry the numbers that come next: they are stepped over, never pointed at."""
    world.plans.publish(world.plan(1))
    other = world.plan(2, world.push("1"))
    world.dying.writes_left = 3
    with pytest.raises(PowerCut):
        world.plans.publish(world.plan(2))
    left = {path: world.store.read(path) for path in world.store.paths("plans")}
    world.restart()
    world.plans.publish(other)
    assert world.node().poll_plan() == other
    del left["plans/fra/metadata/timestamp.json"]
    assert all(world.store.read(path) == data for path, data in left.items())


@pytest.mark.parametrize("part", ["1.root", "1.targets", "1.snapshot", "timestamp", "plan", "forged"])
def test_a_damaged_publication_is_made_anew_and_costs_no_other_site(world: World, part: str) -> None:
    """Whatever is cut short or replaced in the store: nodes that saw the old one take the new one."""
    world.plans.publish(world.plan(1))
    world.plans.publish(world.plan(2, site="sin"))
    node = world.node()
    assert node.poll_plan() == world.plan(1)
    for _ in range(3):  # timestamps run ahead of what the names of files tell
        world.now += timedelta(days=4)
        world.plans.renew(world.now)
    node.poll_plan()
    paths = {path.rpartition("/")[2].removesuffix(".json"): path for path in world.store.paths("plans/fra")}
    plan = next(path for path in paths.values() if "/targets/" in path)
    if part == "forged":
        evil = World(world.folder / "evil")
        evil.plans.publish(evil.plan(7))
        stolen = evil.store.read("plans/fra/metadata/timestamp.json")
        assert stolen is not None
        world.store.replace(paths["timestamp"], stolen)
    else:
        data = world.store.read(plan if part == "plan" else paths[part])
        assert data is not None
        world.store.replace(plan if part == "plan" else paths[part], data[:40])
    world.restart()
    with pytest.raises(IntegrityError):
        world.plans.latest("fra")
    assert world.plans.highest_version() >= 2
    world.now += timedelta(days=4)
    assert "sin" in world.plans.renew(world.now)
    world.plans.prune(keep=2)
    world.plans.publish(world.plan(3))
    assert world.plans.latest("fra") == world.plan(3)
    assert node.poll_plan() == world.plan(3)
    world.plans.publish(world.plan(4))
    assert node.poll_plan() == world.plan(4)


def test_an_old_list_that_was_damaged_does_not_stop_the_pruning(world: World) -> None:
    for version in range(1, 5):
        world.plans.publish(world.plan(version))
    world.store.replace("plans/fra/metadata/3.targets.json", b"{")
    world.plans.prune(keep=2)
    assert world.node().poll_plan() == world.plan(4)


@pytest.mark.parametrize("writes", range(5))
def test_death_while_publishing_the_first_plan(world: World, writes: int) -> None:
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.plans.publish(world.plan(1))
    with pytest.raises(Unavailable):
        world.node().poll_plan()
    world.restart()
    world.plans.publish(world.plan(1))
    assert world.node().poll_plan() == world.plan(1)


@pytest.mark.parametrize("writes", range(4))
def test_death_while_accepting_a_release(world: World, writes: int) -> None:
    node = world.node()
    manifest = world.manifest("1")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    node.refresh_releases()
    world.restart()
    world.now += timedelta(hours=1)
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    assert [entry.version for entry in world.releases.list()] == ["1"]
    assert node.release("m", "1", release_digest(manifest)) == manifest
    world.push("2")
    assert len(world.releases.list()) == 2


def test_a_proposal_that_was_cut_short_is_finished_by_whoever_comes_next(world: World) -> None:
    manifest, other = world.manifest("1"), world.manifest("2")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    rival = propose(world.releases_root, world.targets, other, world.releaser, now=world.now)
    world.dying.writes_left = 2
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    world.restart()
    with pytest.raises(Conflict):
        world.releases.accept(rival, encode_release(other), 1)
    assert [entry.version for entry in world.releases.list()] == ["1"]


def test_a_proposal_left_by_a_crash_that_has_become_invalid_blocks_nobody(world: World) -> None:
    manifest = world.manifest("1")
    short = Lifetimes(targets=timedelta(days=1))
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now, lifetimes=short)
    world.dying.writes_left = 2
    with pytest.raises(PowerCut):
        world.releases.accept(proposal, encode_release(manifest), 1)
    world.restart()
    world.now += timedelta(days=2)
    assert world.releases.list() == ()
    world.push("1")
    assert len(world.releases.list()) == 1


@pytest.mark.parametrize("writes", range(4))
def test_death_while_beginning(world: World, writes: int) -> None:
    store = open_objects("memory:")
    dying = Dying(store)
    dying.writes_left = writes
    with pytest.raises(PowerCut):
        ReleasesRepository(dying, world.blobs, world.online, world.clock).initialise(world.releases_root, world.targets)
    again = ReleasesRepository(store, world.blobs, world.online, world.clock)
    again.initialise(world.releases_root, world.targets)
    assert again.targets() == (world.targets, 1)


@pytest.mark.parametrize("writes", range(2))
def test_death_while_renewing(world: World, writes: int) -> None:
    world.plans.publish(world.plan(1))
    node = world.node()
    node.poll_plan()
    world.now += timedelta(days=20)
    world.dying.writes_left = writes
    with pytest.raises(PowerCut):
        world.plans.renew(world.now)
    world.restart()
    assert world.plans.renew(world.now) == ("fra",)
    assert node.poll_plan() is None
