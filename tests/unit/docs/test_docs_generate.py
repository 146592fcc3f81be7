"""The generator of the reference pages says what the code says, and notices where pages or packages differ."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_generate"] = module
    spec.loader.exec_module(module)
    return module


def test_resources_page_has_every_field_with_its_type_default_and_limits(generate: ModuleType) -> None:
    page = generate.resources_page()
    for line in (
        "| `spec.placement.tiers` | list of `device`, `edge`, `regional`, `cloud` |",
        "| `spec.objective` | `realtime`, `interactive`, `batch` | `interactive` |",
        "| `spec.location.latitude` | number from -90 to 90 | required |",
        "| `spec.emulate.roundTripMs` | map to number from 0 to 10000 |",
        "| `status.conditions[].lastTransitionTime` | string | required |",
    ):
        assert line in page


def test_command_section_has_usage_examples_and_options_but_not_the_shared_ones(generate: ModuleType) -> None:
    main = importlib.import_module("nearcast.cli.main")
    shared: dict[str, object] = {}
    ((path, command),) = generate.leaves("route", main.real_command("route"))
    section = generate.command_section(path, command, shared)
    assert "## nearcast route explain" in section
    assert "nearcast route explain MODEL [OPTIONS]" in section
    assert "| `--site` | " in section
    assert "nearcast route explain magika --site singapore" in section
    assert "--data-dir" not in section
    assert "--data-dir" in shared


def test_a_package_that_nobody_listed_or_asked_for_is_noticed(generate: ModuleType) -> None:
    text = generate.DEPENDENCIES.read_text()
    assert generate.unlisted_dependencies(text) == []
    changed = text.replace("| `numpy` |", "| `left-pad` |")
    assert generate.unlisted_dependencies(changed) == ["missing: numpy", "not asked for: left-pad"]


def test_a_committed_page_that_differs_is_noticed(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"errors.md": generate.errors_page})
    (tmp_path / "errors.md").write_text(generate.errors_page())
    assert generate.differences() == []
    (tmp_path / "errors.md").write_text(generate.errors_page().replace("| 409 |", "| 408 |"))
    assert any("408" in line for line in generate.differences())


def test_the_table_of_failures_names_tests_that_are_there(generate: ModuleType, tmp_path: Path) -> None:
    page = "before\n<!-- failures: written -->\nold\n<!-- end of failures -->\nafter\n"
    row = dict.fromkeys(generate.FAILURE, "word") | {
        "test": "tests/unit/docs/test_docs_generate.py::test_the_table_of_failures_names_tests_that_are_there"
    }
    source = tmp_path / "some.yaml"
    source.write_text(generate.yaml.safe_dump([row]))
    made = generate.failure_modes(page, tmp_path)
    assert "### Some" in made
    assert "| word | word | word | word | word | `test_docs_generate.py::test_the_table" in made
    assert "old" not in made
    assert generate.failure_modes(made, tmp_path) == made
    source.write_text(generate.yaml.safe_dump([row | {"test": "tests/x.py::gone"}]))
    with pytest.raises(ValueError, match="not there"):
        generate.failure_modes(page, tmp_path)
