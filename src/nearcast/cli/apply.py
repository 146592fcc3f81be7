"""``apply``: manifests from files, folders or standard input, all of them or none."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from nearcast.cli.conditions import condition_of
from nearcast.cli.connect import connected
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import coloured, note, show_document, show_lines, show_table
from nearcast.cli.session import Session
from nearcast.client import Applied, ControlClient
from nearcast.errors import InvalidInput
from nearcast.resources.kinds import PLURALS, Deployment, Weights, to_document
from nearcast.resources.manifest import ParsedManifest, parse_manifests
from nearcast.resources.problems import ManifestError, Problem

COMMANDS: Final = {"apply": application()}
SUFFIXES: Final = (".yaml", ".yml", ".json")


@command(
    COMMANDS["apply"],
    "apply",
    examples=(
        "apply -f deployment.yaml",
        "apply -f manifests/ --dry-run",
        "get deployments -o json | nearcast apply -f -",
    ),
)
def apply(
    session: Session,
    files: Annotated[
        list[str], typer.Option("--file", "-f", metavar="FILE|DIR|-", help="Manifests; may be given several times.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make the fleet hold what manifests say: all of them, or none where one is refused.

    What is as written already stays untouched. A folder stands for the manifests in it and below.
    """
    parsed = read_manifests(files)
    documents = [to_document(each.resource, with_status=False) for each in parsed]
    with connected(session) as client:
        results = client.apply(documents, dry_run=dry_run)
        warnings = [] if dry_run else [*_not_accepted(client, results), *_weightless(client, parsed)]
    if output is Format.TABLE:
        show_results(results, dry_run=dry_run)
    else:
        show_document({"dry_run": dry_run, "resources": [_plain(result) for result in results]}, output)
    for warning in warnings:
        note(Text.assemble(("warning: ", "bold yellow"), warning))


def read_manifests(sources: Iterable[str]) -> list[ParsedManifest]:
    """The manifests in ``sources``: files, folders, or ``-`` for standard input.

    Raises:
        InvalidInput: there is nothing to read; or manifests are wrong, and then every problem of every file is named.
    """
    parsed: list[ParsedManifest] = []
    problems: list[Problem] = []
    for name, text in _texts(sources):
        try:
            parsed += parse_manifests(text, name)
        except ManifestError as error:
            problems += error.problems
    if problems:
        raise ManifestError(problems, hint="nearcast schema KIND prints what is allowed; nothing was changed")
    return parsed


def show_results(results: Iterable[Applied], *, dry_run: bool) -> None:
    """Print one row per resource, and with ``dry_run`` the change itself."""
    results = list(results)
    if dry_run:
        for result in results:
            if result.diff:
                show_lines(*(_coloured_line(line) for line in result.diff.rstrip("\n").split("\n")))
        counts = Counter(result.action for result in results)
        note(
            "dry run, nothing was changed: "
            + ", ".join(
                f"{counts[word]} would be {word}" for word in ("created", "updated", "unchanged") if counts[word]
            )
        )
        return
    show_table(
        ("resource", "action"),
        ((f"{result.kind.lower()}/{result.name}", coloured(result.action)) for result in results),
    )


def _weightless(client: ControlClient, parsed: Iterable[ParsedManifest]) -> list[str]:
    """Weights of deployments that change nothing, since no site says what they weigh."""
    weighed = [item.resource for item in parsed if isinstance(item.resource, Deployment)]
    weighed = [item for item in weighed if item.spec.weights != Weights()]
    if not weighed:
        return []
    rates = [document["spec"].get("rates", {}) for document in client.resources(PLURALS["Site"])]
    needed = {"price": ("price",), "energy": ("energy",), "carbon": ("carbon", "energy")}
    idle = {
        name: " and ".join(f"rates.{of}" for of in of_site)
        for name, of_site in needed.items()
        if not any(all(rate.get(of, 0) > 0 for of in of_site) for rate in rates)
    }
    return [
        f"deployment/{item.name}: weights.{name} changes nothing: no site has {missing}"
        for item in weighed
        for name, missing in idle.items()
        if getattr(item.spec.weights, name) > 0
    ]


def _not_accepted(client: ControlClient, results: Iterable[Applied]) -> list[str]:
    """What is written down and cannot be done yet, and why: a deployment whose release nobody pushed, say, or one that
    asks for more sites than may run it."""
    found = []
    for result in results:
        if result.kind == "Deployment":
            document = client.resource(PLURALS[result.kind], result.name).document
            accepted, min_sites = condition_of(document, "Accepted"), condition_of(document, "MinSites")
            if accepted is not None and accepted.status == "False":
                found.append(f"deployment/{result.name}: {accepted.message}")
            if min_sites is not None and min_sites.reason == "TooFewSites":
                found.append(f"deployment/{result.name}: {min_sites.message}")
    return found


def _texts(sources: Iterable[str]) -> Iterable[tuple[str, str]]:
    for source in sources:
        if source == "-":
            yield "standard input", sys.stdin.read()
            continue
        path = Path(source)
        found = _manifests_below(path) if path.is_dir() else [path]
        if not found:
            raise InvalidInput(f"expected manifests ({', '.join(SUFFIXES)}) in {path}, found none")
        for each in found:
            yield str(each), _read(each)


def _manifests_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidInput(f"expected a file, folder or - after -f, there is no {path}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected {path} to be UTF-8 text: {error}") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error


def _coloured_line(line: str) -> Text:
    if line.startswith(("+++", "---")):
        return Text(line, style="bold")
    return Text(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))


def _plain(result: Applied) -> dict[str, str]:
    return {
        "kind": result.kind,
        "name": result.name,
        "action": result.action,
        "revision": result.revision,
        "diff": result.diff,
    }
