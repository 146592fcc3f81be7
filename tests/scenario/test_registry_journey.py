"""How releases and plans get from their signers to a node, and what the repositories accept on the way."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unauthenticated, Unavailable
from nearcast.registry.objects import open_objects
from nearcast.registry.release_list import countersign, new_releases_root, new_targets, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.trust import version_of
from nearcast.resources.release import File, ReleaseManifest, Signature, encode_release, release_digest
from nearcast.resources.revision import digest_of
from scenario.registry_world import BEGIN, World


def test_a_release_and_a_plan_reach_a_node(world: World) -> None:
    manifest = world.push("1")
    plan = world.plan(1, manifest)
    world.plans.publish(plan)
    node = world.node()
    assert node.poll_plan() == plan
    assert node.release("m", "1", release_digest(manifest)) == manifest
    assert node.verified_plan() == plan
    assert node.verified_release("m", "1", release_digest(manifest)) == manifest
    assert world.releases.manifest("m", "1") == manifest
    assert [(e.model, e.version, e.size_bytes) for e in world.releases.list()] == [("m", "1", 7)]


@pytest.mark.parametrize("speaks_etag", [True, False])
def test_an_idle_poll_is_one_request(world: World, speaks_etag: bool) -> None:
    world.plans.publish(world.plan(1))
    world.mirror.speaks_etag = speaks_etag
    node = world.node()
    node.poll_plan()
    world.mirror.asked.clear()
    assert node.poll_plan() is None
    assert world.mirror.asked == ["plans/fra/metadata/timestamp.json"]


def test_a_known_release_is_answered_without_network_and_a_second_one_refreshes(world: World) -> None:
    one = world.push("1")
    node = world.node()
    node.release("m", "1", release_digest(one))
    world.mirror.asked.clear()
    node.release("m", "1", release_digest(one))
    assert world.mirror.asked == []
    two = world.push("2")
    assert node.release("m", "2", release_digest(two)) == two


def test_renewal_keeps_nodes_fresh_for_years_and_changes_no_plan(world: World) -> None:
    manifest = world.push("1")
    world.plans.publish(world.plan(1, manifest))
    node = world.node()
    node.poll_plan()
    for _ in range(250):
        world.now += timedelta(days=3)
        world.plans.renew(world.now)
        world.releases.renew(world.now)
        assert node.poll_plan() is None
        if world.now < BEGIN + timedelta(days=360):  # then a releaser has to sign again: any push does
            node.refresh_releases()
            assert node.release("m", "1", release_digest(manifest)) == manifest
    world.plans.publish(world.plan(2))
    fresh = node.poll_plan()
    assert fresh is not None
    assert fresh.version == 2


def test_pruning_keeps_what_nodes_read(world: World) -> None:
    for version in range(1, 9):
        world.plans.publish(world.plan(version))
    before = set(world.store.paths("plans"))
    assert world.plans.prune(keep=3) == 5 * 3
    assert len(set(world.store.paths("plans"))) == len(before) - 15
    assert world.node().poll_plan() == world.plan(8)
    assert world.plans.latest("fra") == world.plan(8)


def test_without_a_plan_the_node_waits(world: World) -> None:
    with pytest.raises(Unavailable, match="nothing published yet"):
        world.node().poll_plan()


def test_a_refused_credential_is_said(world: World) -> None:
    world.mirror.status = 401
    with pytest.raises(Unauthenticated):
        world.node().poll_plan()


def test_a_threshold_of_two_needs_two(world: World, tmp_path: Path) -> None:
    second = CryptoSigner.generate_ed25519()
    keys = [world.releaser, second]
    root = new_releases_root(
        root_signers=keys,
        releaser_keys=[key.public_key for key in keys],
        online_key=world.online.public_key,
        now=world.now,
        threshold=2,
    )
    repository = ReleasesRepository(open_objects("memory:"), world.blobs, world.online, world.clock)
    repository.initialise(root, new_targets(*keys, now=world.now))
    manifest = world.manifest("1")
    targets, version = repository.targets()
    one = propose(root, targets, manifest, world.releaser, now=world.now)
    with pytest.raises(IntegrityError, match="wrong signature"):
        repository.accept(one, encode_release(manifest), version)
    assert repository.accept(countersign(one, second), encode_release(manifest), version) == 2


def test_a_releaser_does_not_sign_a_list_that_the_control_plane_made_up(world: World) -> None:
    forged = new_targets(world.online, now=world.now)
    with pytest.raises(IntegrityError, match="wrong signature"):
        propose(world.releases_root, forged, world.manifest("1"), world.releaser, now=world.now)


def test_a_release_never_changes(world: World) -> None:
    world.push("1")
    targets, version = world.releases.targets()
    with pytest.raises(Conflict, match="released already"):
        propose(world.releases_root, targets, world.manifest("1", b"new"), world.releaser, now=world.now)
    other = world.manifest("1", b"other")
    forged = propose(world.releases_root, world.targets, other, world.releaser, now=world.now)
    forged = propose(world.releases_root, forged, world.manifest("2"), world.releaser, now=world.now)
    with pytest.raises(InvalidInput, match="never changes"):
        world.releases.accept(forged, encode_release(other), version)


def test_a_proposal_must_bring_its_blobs_and_its_own_manifest(world: World) -> None:
    manifest = world.manifest("1")
    absent = ReleaseManifest(
        model="m",
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="a",
        files=(File(path="a", digest=digest_of(b"never pushed"), size_bytes=12),),
        signature=Signature(inputs=(), outputs=()),
        created_at="x",
    )
    proposal = propose(world.releases_root, world.targets, absent, world.releaser, now=world.now)
    with pytest.raises(NotFound, match="is not in the store"):
        world.releases.accept(proposal, encode_release(absent), 1)
    with pytest.raises(IntegrityError, match="changed bytes"):
        world.releases.accept(proposal, encode_release(manifest), 1)
    with pytest.raises(InvalidInput, match="manifest is not valid"):
        world.releases.accept(proposal, b"{}", 1)
    assert world.releases.list() == ()


def test_an_accepted_proposal_again_is_a_no_op_and_a_late_one_a_conflict(world: World) -> None:
    manifest, late = world.manifest("1"), world.manifest("2")
    proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
    loser = propose(world.releases_root, world.targets, late, world.releaser, now=world.now)
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    assert world.releases.accept(proposal, encode_release(manifest), 1) == 2
    with pytest.raises(Conflict, match="version 2, not 1"):
        world.releases.accept(loser, encode_release(late), 1)


def test_two_releasers_at_once_one_wins(world: World) -> None:
    """Two control-plane processes over one store, so no lock in memory can help: the name of the list decides."""
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def release(version: str) -> None:
        repository = ReleasesRepository(world.store, world.blobs, world.online, world.clock)
        manifest = world.manifest(version)
        proposal = propose(world.releases_root, world.targets, manifest, world.releaser, now=world.now)
        barrier.wait(10)
        try:
            repository.accept(proposal, encode_release(manifest), 1)
            outcomes.append(version)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=release, args=(version,)) for version in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes, key=len)[1] == "conflict"
    assert [entry.version for entry in world.releases.list()] == [sorted(outcomes, key=len)[0]]


def test_initialising_twice(world: World) -> None:
    world.releases.initialise(world.releases_root, world.targets)
    other = new_releases_root(
        root_signers=[world.releaser],
        releaser_keys=[world.releaser.public_key],
        online_key=world.online.public_key,
        now=world.now,
    )
    with pytest.raises(Conflict, match="other keys"):
        world.releases.initialise(other, world.targets)


def test_a_root_for_another_online_key_is_refused(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = new_releases_root(
        root_signers=[world.releaser],
        releaser_keys=[world.releaser.public_key],
        online_key=evil.public_key,
        now=world.now,
    )
    repository = ReleasesRepository(open_objects("memory:"), world.blobs, world.online, world.clock)
    with pytest.raises(IntegrityError, match="does not let our online key"):
        repository.initialise(root, world.targets)
    assert repository.root() is None
    with pytest.raises(NotFound, match="no releases root"):
        repository.targets()


def test_publishing_an_older_plan_or_another_of_the_same_version_is_a_conflict(world: World) -> None:
    world.plans.publish(world.plan(5))
    world.plans.publish(world.plan(5))
    with pytest.raises(Conflict):
        world.plans.publish(world.plan(4))
    with pytest.raises(Conflict):
        world.plans.publish(world.plan(5, world.push("1")))
    assert world.plans.highest_version() == 5
    assert world.plans.sites() == ("fra",)


def test_the_version_is_read_off_any_metadata(world: World) -> None:
    assert version_of(world.targets) == 1
    with pytest.raises(IntegrityError):
        version_of(b"nothing")
