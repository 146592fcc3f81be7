"""Other keys for releases: what a releaser signs so that the fleet believes in new keys and no longer in old ones.

Pure, on bytes: the next root, signed by the root keys before and after the change, and the same list of releases once
more, signed by the new releaser. Where the old releaser's key is at hand it signs the list as well, so that there is no
moment at which a site cannot believe in it. Putting both in force is :meth:`ReleasesRepository.change_keys`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Targets

from nearcast.errors import IntegrityError, InvalidInput
from nearcast.registry.release_list import PREFIX
from nearcast.registry.trust import Lifetimes, first_root, latest_root, next_root, signed_bytes, verified, version_of


@dataclass(frozen=True, slots=True)
class Keys:
    """Signers before and after a change of keys. Equal ones stay.

    Attributes:
        root, next_root: of the root.
        releaser: of the list; None where the key is lost.
        releaser_id: id of that key, which the root names.
        next_releaser: of the list from now on.
    """

    root: Signer
    next_root: Signer
    releaser: Signer | None
    releaser_id: str
    next_releaser: Signer


def newest_root(known: bytes, published: Sequence[bytes]) -> bytes:
    """The last root of ``published`` (all versions, from the first) that follows from ``known``, the reader's own.

    Raises:
        IntegrityError: the versions after ``known`` are not signed each by its predecessor.
    """
    later = published[version_of(known) :]
    latest_root([known, *later], PREFIX)
    return later[-1] if later else known


def rotated_root(root: bytes, keys: Keys, *, now: datetime, lifetimes: Lifetimes | None = None) -> bytes:
    """The root after ``root``, with the keys that ``keys`` names for its own role and for the list.

    Other releasers' keys stay.

    Raises:
        InvalidInput: several signatures are needed, which one command cannot give; or ``keys`` are not the root's.
    """
    judge = first_root(root, PREFIX)
    for role, before in ((Root.type, keys.root.public_key.keyid), (Targets.type, keys.releaser_id)):
        if judge.roles[role].threshold != 1:
            raise InvalidInput(f"expected a root that one {role} key signs for, this one wants several signatures")
        if before not in judge.roles[role].keyids:
            raise InvalidInput(
                f"expected a {role} key of version {judge.version} of the fleet's root, got {before}",
                hint="these keys were replaced by a rotation with another copy of the folder: take that copy",
            )
    others = [judge.keys[keyid] for keyid in judge.roles[Targets.type].keyids if keyid != keys.releaser_id]
    signers = {signer.public_key.keyid: signer for signer in (keys.root, keys.next_root)}
    roots = [judge.keys[keyid] for keyid in judge.roles[Root.type].keyids if keyid != keys.root.public_key.keyid]
    return next_root(
        root,
        [*signers.values()],
        now=now,
        lifetime=(lifetimes or Lifetimes()).root,
        targets_keys=[*others, keys.next_releaser.public_key],
        root_keys=[*roots, keys.next_root.public_key],
    )


def resigned_list(
    targets: bytes, roots: Sequence[bytes], keys: Keys, *, now: datetime, lifetimes: Lifetimes | None = None
) -> bytes:
    """The list of releases once more: version + 1, the same releases, signed by the new releaser (and the old one).

    Args:
        targets: the list in force.
        roots: of which one believes in it: the root before the change, or after it.
        keys: old and new.
        now: the time.
        lifetimes: how long the list is valid.

    Raises:
        IntegrityError: none of ``roots`` believes in ``targets``.
    """
    signed = _believed(targets, roots)
    signed.version += 1
    signed.expires = now + (lifetimes or Lifetimes()).targets
    signers = [keys.next_releaser, *([keys.releaser] if keys.releaser is not None else [])]
    return signed_bytes(signed, [*{signer.public_key.keyid: signer for signer in signers}.values()])


def _believed(targets: bytes, roots: Sequence[bytes]) -> Targets:
    for root in roots[1:]:
        try:
            return verified(Targets, targets, first_root(root, PREFIX), PREFIX)
        except IntegrityError:
            continue
    return verified(Targets, targets, first_root(roots[0], PREFIX), PREFIX)
