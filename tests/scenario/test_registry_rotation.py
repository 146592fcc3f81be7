"""Other keys for releases, in order and after a loss, cut short between any two writes: sites follow and go on."""

import contextlib
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner, Signer

from nearcast.errors import Conflict, IntegrityError, InvalidInput
from nearcast.registry.client import TrustedRepository
from nearcast.registry.release_list import countersign, new_releases_root, new_targets, propose
from nearcast.registry.rotation import Keys, newest_root, resigned_list, rotated_root
from nearcast.registry.trust import next_root
from nearcast.resources.release import ReleaseManifest, encode_release, release_digest
from scenario.registry_world import PowerCut, Settled, World


def keys_of(world: World, *, with_root: bool = False, lost: bool = False) -> Keys:
    return Keys(
        root=world.root_keys,
        next_root=CryptoSigner.generate_ed25519() if with_root else world.root_keys,
        releaser=None if lost else world.releaser,
        releaser_id=world.releaser.public_key.keyid,
        next_releaser=CryptoSigner.generate_ed25519(),
    )


def made(world: World, keys: Keys) -> tuple[bytes, bytes]:
    root = rotated_root(world.releases.roots()[-1], keys, now=world.now)
    return root, resigned_list(world.releases.targets()[0], world.releases.roots(), keys, now=world.now)


def pushed(world: World, version: str, root: bytes, signer: Signer) -> ReleaseManifest:
    manifest = world.manifest(version)
    targets, number = world.releases.targets()
    proposal = propose(root, targets, manifest, signer, now=world.now)
    world.releases.accept(proposal, encode_release(manifest), number)
    return manifest


def installs(node: TrustedRepository, manifest: ReleaseManifest) -> bool:
    return node.release("m", manifest.version, release_digest(manifest)) == manifest


@pytest.mark.parametrize("with_root", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_sites_follow_and_the_old_key_is_refused(settled: Settled, with_root: bool, lost: bool) -> None:
    world, node, _ = settled
    keys = keys_of(world, with_root=with_root, lost=lost)
    before = [entry.digest for entry in world.releases.list()]
    root, targets = made(world, keys)
    assert world.releases.change_keys(root, targets) == world.releases.targets()[1]
    assert world.releases.change_keys(root, targets) == world.releases.targets()[1], "the same again is a no-op"
    assert [entry.digest for entry in world.releases.list()] == before

    three = pushed(world, "3", root, keys.next_releaser)
    assert installs(node, three)
    assert installs(world.node(folder="joined later, with the pins of its token"), three)

    manifest = world.manifest("4")
    held, number = world.releases.targets()
    with pytest.raises(IntegrityError, match="none of the releasers"):
        propose(root, held, manifest, world.releaser, now=world.now)
    with pytest.raises(IntegrityError):  # somebody who knows no newer root than the first
        propose(world.releases_root, held, manifest, world.releaser, now=world.now)
    forged = resigned_list(held, [root], keys_signed_by(keys, world.releaser), now=world.now)
    with pytest.raises(IntegrityError, match="wrong signature"):
        world.releases.accept(forged, encode_release(manifest), number)


def keys_signed_by(keys: Keys, signer: Signer) -> Keys:
    return Keys(keys.root, keys.next_root, None, keys.releaser_id, signer)


def test_the_next_change_needs_the_new_root_key(settled: Settled) -> None:
    world, node, _ = settled
    first = keys_of(world, with_root=True)
    world.releases.change_keys(*made(world, first))
    old, world.releaser = world.root_keys, first.next_releaser  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match=r"expected a root key of version \d+ of the fleet's root"):
        made(world, keys_of(world))
    stolen = next_root(world.releases.roots()[-1], [old], now=world.now, lifetime=timedelta(days=9))
    with pytest.raises(IntegrityError):
        world.releases.change_keys(stolen, world.releases.targets()[0])
    world.root_keys = first.next_root  # type: ignore[assignment]
    second = keys_of(world)
    root, targets = made(world, second)
    world.releases.change_keys(root, targets)
    assert newest_root(world.releases_root, world.releases.roots()) == root
    assert installs(node, pushed(world, "3", root, second.next_releaser))


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("writes", range(8))
def test_death_while_keys_change(settled: Settled, writes: int, lost: bool) -> None:
    """Meanwhile a site either sees what it can believe, or keeps what it has; saying it again finishes it."""
    world, node, _ = settled
    keys = keys_of(world, lost=lost)
    root, targets = made(world, keys)
    world.dying.writes_left = writes
    try:
        world.releases.change_keys(root, targets)
    except PowerCut:
        assert writes < 6
    world.restart()
    with contextlib.suppress(IntegrityError) if lost else contextlib.nullcontext():
        node.refresh_releases()
    assert node.verified_plan() is not None
    again = resigned_list(world.releases.targets()[0], (world.releases.roots()[0], root), keys, now=world.now)
    world.releases.change_keys(root, again)
    assert installs(node, pushed(world, "3", root, keys.next_releaser))


def test_a_change_of_keys_changes_nothing_else(settled: Settled) -> None:
    world, _, _ = settled
    keys = keys_of(world)
    root, targets = made(world, keys)
    manifest = world.manifest("3")
    held, _ = world.releases.targets()
    more = propose(world.releases_root, held, manifest, world.releaser, now=world.now)
    more = countersign(more, keys.next_releaser)
    with pytest.raises(InvalidInput, match="releases nothing"):
        world.releases.change_keys(root, more)
    with pytest.raises(IntegrityError):  # nobody that the root names has signed it
        world.releases.change_keys(root, world.releases.targets()[0])
    evil = CryptoSigner.generate_ed25519()
    forged = next_root(
        world.releases_root, [evil], now=world.now, lifetime=timedelta(days=9), targets_keys=[evil.public_key]
    )
    with pytest.raises(IntegrityError):
        world.releases.change_keys(forged, targets)
    assert len(world.releases.roots()) == 1
    world.push("5")
    with pytest.raises(Conflict, match="the list of releases is in version"):
        world.releases.change_keys(root, targets)
    world.releases.change_keys(*made(world, keys))
    another = rotated_root(world.releases_root, keys_of(world), now=world.now)  # by one who knows of no second root
    with pytest.raises(Conflict, match="expected version 3 of the root, got 2"):
        world.releases.change_keys(another, targets)


def test_several_signatures_are_more_than_one_command_can_give(world: World) -> None:
    second = CryptoSigner.generate_ed25519()
    root = new_releases_root(
        root_signers=[world.root_keys, second],
        releaser_keys=[world.releaser.public_key, second.public_key],
        online_key=world.online.public_key,
        now=world.now,
        threshold=2,
    )
    with pytest.raises(InvalidInput, match="several signatures"):
        rotated_root(root, keys_of(world), now=world.now)


def test_a_chain_with_a_gap_is_believed_by_nobody(world: World) -> None:
    keys = keys_of(world, with_root=True)
    second = rotated_root(world.releases_root, keys, now=world.now)
    third = next_root(second, [keys.next_root], now=world.now, lifetime=timedelta(days=9))
    assert newest_root(world.releases_root, [world.releases_root, second, third]) == third
    assert newest_root(second, [world.releases_root, second, third]) == third
    assert newest_root(third, [world.releases_root]) == third
    with pytest.raises(IntegrityError):
        newest_root(world.releases_root, [world.releases_root, third])
    with pytest.raises(IntegrityError):
        resigned_list(new_targets(CryptoSigner.generate_ed25519(), now=world.now), [second], keys, now=world.now)
