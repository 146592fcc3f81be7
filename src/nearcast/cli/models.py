"""``model push``, ``model ls``, ``model inspect``: releases of models."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.text import Text

from nearcast.cli.completion import models
from nearcast.cli.connect import connected
from nearcast.cli.naming import unknown_among
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.push import Push, push_release
from nearcast.cli.screen import note, show_document, show_lines, show_pairs, show_table, size
from nearcast.cli.session import Session
from nearcast.client import FleetStatus, ReleaseView, SiteModelView
from nearcast.errors import InvalidInput
from nearcast.resources.names import NAME_RULE, VERSION_RULE, is_name, is_version
from nearcast.resources.release import ReleaseManifest, Tensor, release_digest

COMMANDS: Final = {
    "model": application(help="Push releases of models, list them, look into them.", no_args_is_help=True)
}


@COMMANDS["model"].callback()
def _group() -> None:
    """Keeps the group a group."""


@command(
    COMMANDS["model"],
    "push",
    examples=(
        "model push magika --version 3.3 ./magika",
        "model push minilm --version 1 ./minilm --task feature-extraction --max-tokens 256",
        "model push iris --version 2 iris.onnx --label licence=CC0 --label author=me",
    ),
)
def push(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.", autocompletion=models)],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A model file, or a folder that holds it.")],
    version: Annotated[str, typer.Option(help="Name of this release; it never changes once pushed.")],
    runtime: Annotated[str, typer.Option(help="What runs it.")] = "onnx",
    task: Annotated[str | None, typer.Option(help="Hugging Face pipeline tag; default: by the model.")] = None,
    entrypoint: Annotated[str | None, typer.Option(help="File of the folder that the runtime opens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest input of a text model, in tokens.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Free label; several times.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="The releaser's signing key; default: the one of the data directory.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a release of a model: describe its files, upload what is missing, sign, publish.

    Pushing the same files again changes nothing. Other files under the same version are refused.
    """
    if not is_name(name):
        raise InvalidInput(f"expected a name of a model ({NAME_RULE}), got {name!r}")
    if not is_version(version):
        raise InvalidInput(f"expected a version ({VERSION_RULE}), got {version!r}")
    if runtime != "onnx":
        raise InvalidInput(f"expected the runtime onnx, got {runtime!r}", hint="other runtimes are not built in yet")
    wanted = Push(
        model=name,
        version=version,
        path=path,
        task=task,
        entrypoint=entrypoint,
        max_tokens=max_tokens,
        labels=labels_of(label or []),
    )
    with connected(session) as client:
        pushed = push_release(client, session, wanted, key)
    manifest = pushed.manifest
    if output is Format.TABLE:
        note(
            f"{'pushed' if pushed.created else 'unchanged:'} {name}@{version}: {len(manifest.files)} "
            f"file{'s' if len(manifest.files) != 1 else ''}, {size(manifest.size_bytes)}, {release_digest(manifest)}"
        )
        return
    document = {"model": name, "version": version, "digest": release_digest(manifest)}
    show_document({**document, "action": "created" if pushed.created else "unchanged"}, output)


@command(COMMANDS["model"], "ls", examples=("model ls", "model ls magika", "model ls -o json"))
def ls(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this model.", autocompletion=models)] = None,
    output: Output = Format.TABLE,
) -> None:
    """List releases."""
    with connected(session) as client:
        entries = [entry for entry in client.releases() if name in {None, entry.model}]
    if output is not Format.TABLE:
        show_document({"releases": [_listed(entry) for entry in entries]}, output)
        return
    if not entries:
        note("there are no releases yet: nearcast model push NAME --version V PATH")
        return
    show_table(
        ("model", "version", "task", ">size", "created at", "digest"),
        ((e.model, e.version, e.task or "–", size(e.size_bytes), e.created_at, _short(e.digest)) for e in entries),
    )


@command(
    COMMANDS["model"],
    "inspect",
    examples=("model inspect magika", "model inspect magika@3.3", "model inspect magika --version 3.3 -o json"),
)
def inspect(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the model; @VERSION may follow.", autocompletion=models)
    ],
    version: Annotated[str | None, typer.Option(help="Which release; default: the newest.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Look into a release: inputs and outputs, files, labels, and the sites that serve it."""
    name, at, inline = name.partition("@")
    if at and version not in {None, inline}:
        raise InvalidInput(f"expected one version, got {inline!r} and {version!r}", hint="write NAME@VERSION")
    version = inline if at else version
    with connected(session) as client:
        entry = _entry(client.releases(), name, version)
        manifest = entry.manifest
        served = sites_serving(client.status(), name, entry.version)
    if output is not Format.TABLE:
        document = msgspec.to_builtins(manifest)
        show_document({**document, "digest": entry.digest, "sites": served}, output)
        return
    _show_release(manifest, entry.digest, served)


def _show_release(manifest: ReleaseManifest, digest: str, served: list[str]) -> None:
    """Print a release, and the sites that serve it."""
    show_pairs(
        [
            ("Model", manifest.model),
            ("Version", manifest.version),
            ("Digest", digest),
            ("Runtime", f"{manifest.runtime}, opens {manifest.entrypoint}"),
            ("Task", manifest.task),
            *([("Tokenizer", _tokenizer(manifest))] if manifest.tokenizer else []),
            ("Size", size(manifest.size_bytes)),
            ("Created at", manifest.created_at),
            *((f"Label {key}", value) for key, value in sorted(manifest.labels.items())),
            ("Served at", ", ".join(served) or "no site"),
        ]
    )
    show_lines("")
    signature = manifest.signature
    rows = [*(_tensor_row("input", each) for each in signature.inputs)]
    rows += [*(_tensor_row("output", each) for each in signature.outputs)]
    show_table(("direction", "name", "datatype", "shape"), rows, title="Signature")
    show_lines("", Text("-1 stands for any size.", style="dim"), "")
    files = ((file.path, size(file.size_bytes), _short(file.digest)) for file in manifest.files)
    show_table(("path", ">size", "digest"), files, title="Files")


def labels_of(texts: list[str]) -> dict[str, str]:
    """Labels out of ``KEY=VALUE``.

    Raises:
        InvalidInput: there is no ``=``, or a key comes twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or key in labels:
            raise InvalidInput(f"expected each --label once, as KEY=VALUE; got {text!r}")
        labels[key] = value
    return labels


def sites_serving(status: FleetStatus, model: str, version: str) -> list[str]:
    """The sites at which that release is ready."""
    return [site.name for site in status.sites if f"{model}@{version}" in ready_models(site.models)]


def ready_models(models: tuple[SiteModelView, ...]) -> list[str]:
    """``model@version`` of those of a site's models that are ready."""
    return [f"{each.model}@{each.version}" for each in models if each.state == "ready"]


def _listed(entry: ReleaseView) -> dict[str, Any]:
    """A release for programs, without its manifest: `inspect` prints that."""
    document: dict[str, Any] = msgspec.to_builtins(entry)
    return {key: value for key, value in document.items() if key != "manifest"}


def _entry(entries: list[ReleaseView], name: str, version: str | None) -> ReleaseView:
    own = [entry for entry in entries if entry.model == name]
    if not own:
        raise unknown_among("released model", name, (entry.model for entry in entries))
    if version is None:
        return max(own, key=lambda entry: (entry.created_at, entry.version))
    found = next((entry for entry in own if entry.version == version), None)
    if found is None:
        raise unknown_among(f"version of {name} called", version, (entry.version for entry in own))
    return found


def _short(digest: str) -> str:
    """A digest for people, as long as they compare; documents have it whole."""
    return f"{digest[:19]}…"


def _tokenizer(manifest: ReleaseManifest) -> str:
    limit = f", at most {manifest.max_tokens} tokens" if manifest.max_tokens else ""
    return f"{manifest.tokenizer}{limit}"


def _tensor_row(direction: str, tensor: Tensor) -> tuple[str, str, str, str]:
    return direction, tensor.name, tensor.datatype, f"[{', '.join(str(n) for n in tensor.shape)}]"
