"""Every manifest in `examples/` is one that the fleet takes, and names only what its example releases."""

from pathlib import Path

import pytest
import yaml

from nearcast.resources.kinds import KINDS

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MANIFESTS = sorted(
    path for path in EXAMPLES.rglob("*.yaml") if path.parent.name != "twin"
)  # scenarios, run by the twin


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_manifest_is_accepted(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    for document in documents:
        KINDS[document["kind"]].model_validate(document)


def test_every_example_has_a_check_and_says_what_is_seen() -> None:
    folders = sorted(path for path in EXAMPLES.iterdir() if path.name[:2].isdigit())
    assert len(folders) >= 5
    for folder in folders:
        assert (folder / "run.py").is_file()
        assert (folder / "README.md").is_file()
        assert folder.name in (EXAMPLES / "README.md").read_text()
