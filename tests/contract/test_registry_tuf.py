"""What we rely on in python-tuf beyond its public interface; a new version that breaks one of these fails here."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import tuf
from securesystemslib.signer import CryptoSigner
from tuf.ngclient import FetcherInterface, Updater

from nearcast.registry.mirror import set_reference_time
from nearcast.registry.plans import new_plans_root


def test_the_version_is_the_one_that_was_read() -> None:
    assert tuf.__version__ == "7.0.1"


def test_the_moment_of_judgement_can_be_set(tmp_path: Path) -> None:
    class Nothing(FetcherInterface):
        def _fetch(self, url: str):  # type: ignore[no-untyped-def]
            raise AssertionError

    signer = CryptoSigner.generate_ed25519()
    then = datetime(2001, 1, 1, tzinfo=UTC)
    root = new_plans_root(root_signers=[signer], online_key=signer.public_key, now=then)
    updater = Updater(str(tmp_path), "metadata/", fetcher=Nothing(), bootstrap=root)
    before = updater._trusted_set.reference_time
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=5)
    set_reference_time(updater, then)
    assert updater._trusted_set.reference_time == then
    assert (tmp_path / "root_history" / "1.root.json").read_bytes() == root
