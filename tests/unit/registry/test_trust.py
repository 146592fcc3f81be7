"""The rules of the chain, on bytes alone."""

from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Snapshot, TargetFile, Targets, Timestamp

from nearcast.errors import IntegrityError, InvalidInput
from nearcast.registry.trust import (
    key_of,
    latest_root,
    meta_file,
    new_root,
    next_root,
    signed_bytes,
    stored_target,
    verify_chain,
    verify_target,
)
from nearcast.resources.revision import digest_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROOT, ONLINE, PEOPLE, OTHER = (CryptoSigner.generate_ed25519() for _ in range(4))


def root() -> bytes:
    return new_root(
        root_signers=[ROOT],
        targets_keys=[PEOPLE.public_key],
        online_key=ONLINE.public_key,
        now=NOW,
        lifetime=timedelta(days=100),
    )


def targets(days: int = 30, version: int = 1) -> bytes:
    listing = {"a/b.json": TargetFile.from_data("a/b.json", b"content", ["sha256"])}
    return signed_bytes(Targets(version=version, expires=NOW + timedelta(days=days), targets=listing), [PEOPLE])


def snapshot(listing: bytes, days: int = 20, version: int = 1, listed: int = 1) -> bytes:
    meta = {"targets.json": meta_file(listing, listed)}
    return signed_bytes(Snapshot(version=version, expires=NOW + timedelta(days=days), meta=meta), [ONLINE])


def timestamp(middle: bytes, days: int = 10, version: int = 1) -> bytes:
    return signed_bytes(
        Timestamp(expires=NOW + timedelta(days=days), snapshot_meta=meta_file(middle, version)), [ONLINE]
    )


def verify(bottom: bytes, middle: bytes, top: bytes, **options: object) -> str:
    return verify_chain([root()], top, middle, bottom, name="test", **options).targets.type  # type: ignore[arg-type]


def test_a_chain_that_fits() -> None:
    bottom = targets()
    middle = snapshot(bottom)
    assert verify(bottom, middle, timestamp(middle), at=NOW, sha256=digest_of(root())) == "targets"


@pytest.mark.parametrize(
    ("days", "role"),
    [(9, None), (11, "timestamp"), (21, "timestamp"), (101, "root")],
    ids=["none", "top", "two", "all"],
)
def test_expiry_counts_for_installing_and_not_for_serving(days: int, role: str | None) -> None:
    bottom = targets()
    middle = snapshot(bottom)
    at = NOW + timedelta(days=days)
    verify(bottom, middle, timestamp(middle), at=None)
    if role is None:
        verify(bottom, middle, timestamp(middle), at=at)
        return
    with pytest.raises(IntegrityError, match=f"freeze.*{role} expired"):
        verify(bottom, middle, timestamp(middle), at=at)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_expiry_of_the_lower_roles(role: str) -> None:
    bottom = targets(days=1 if role == "targets" else 30)
    middle = snapshot(bottom, days=1 if role == "snapshot" else 30)
    with pytest.raises(IntegrityError, match=f"{role} expired"):
        verify(bottom, middle, timestamp(middle), at=NOW + timedelta(days=2))


def test_files_that_are_each_signed_and_do_not_belong_together() -> None:
    bottom = targets()
    middle = snapshot(bottom)
    with pytest.raises(IntegrityError, match=r"changed bytes \(snapshot\)"):
        verify(bottom, snapshot(bottom, days=19), timestamp(middle))
    with pytest.raises(IntegrityError, match=r"changed bytes \(targets\)"):
        verify(targets(days=29), middle, timestamp(middle))


def test_a_version_other_than_the_one_vouched_for() -> None:
    bottom = targets(version=2)
    middle = snapshot(bottom, listed=1)
    with pytest.raises(IntegrityError, match=r"rollback .* or mix-and-match"):
        verify(bottom, middle, timestamp(middle))
    with pytest.raises(IntegrityError, match=r"rollback .* or mix-and-match"):
        verify(targets(), snapshot(targets()), timestamp(snapshot(targets()), version=2))


def test_a_role_may_not_stand_in_for_another() -> None:
    bottom = targets()
    middle = snapshot(bottom)
    with pytest.raises(IntegrityError, match="expected timestamp metadata, got snapshot"):
        verify(bottom, middle, middle)


def test_the_keys_of_one_role_do_not_sign_another() -> None:
    bottom = signed_bytes(Targets(expires=NOW + timedelta(days=9)), [ONLINE])
    middle = snapshot(bottom)
    with pytest.raises(IntegrityError, match=r"wrong signature \(targets\)"):
        verify(bottom, middle, timestamp(middle))


def test_another_root_than_the_pinned_one() -> None:
    bottom = targets()
    with pytest.raises(IntegrityError, match="foreign root"):
        verify(bottom, snapshot(bottom), timestamp(snapshot(bottom)), sha256=digest_of(b"other"))


def test_targets() -> None:
    bottom = targets()
    middle = snapshot(bottom)
    listing = verify_chain([root()], timestamp(middle), middle, bottom, name="test").targets
    assert verify_target(listing, "a/b.json", b"content", "test").length == 7
    with pytest.raises(IntegrityError, match="changed bytes"):
        verify_target(listing, "a/b.json", b"Content", "test")
    with pytest.raises(IntegrityError, match="unsigned"):
        verify_target(listing, "a/c.json", b"content", "test")
    assert stored_target("a/b.json", "00") == "a/00.b.json"
    assert stored_target("b.json", "00") == "00.b.json"


def test_roots_follow_one_another() -> None:
    first = root()
    second = next_root(first, [ROOT], now=NOW, lifetime=timedelta(days=9), online_key=OTHER.public_key)
    third = next_root(second, [ROOT], now=NOW, lifetime=timedelta(days=9), targets_keys=[OTHER.public_key])
    assert latest_root([first, second, third], "test").version == 3
    assert key_of(first, "timestamp") == ONLINE.public_key
    assert key_of(third, "timestamp") == key_of(third, "targets") == OTHER.public_key
    with pytest.raises(IntegrityError, match="expected version 2 of the root, got 3"):
        latest_root([first, third], "test")
    forged = next_root(first, [OTHER], now=NOW, lifetime=timedelta(days=9))
    with pytest.raises(IntegrityError, match="wrong signature"):
        latest_root([first, forged], "test")


def test_a_threshold_that_nobody_can_reach() -> None:
    for keys, threshold in (([], 1), ([PEOPLE.public_key], 2), ([PEOPLE.public_key] * 2, 2), ([PEOPLE.public_key], 0)):
        with pytest.raises(InvalidInput, match="threshold"):
            new_root(
                root_signers=[ROOT, OTHER],
                targets_keys=keys,
                online_key=ONLINE.public_key,
                now=NOW,
                lifetime=timedelta(days=1),
                threshold=threshold,
            )
