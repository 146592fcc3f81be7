"""``infer``: ask a model through a gateway, and see who answered, why there, and where the time went."""

import json
import ssl
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.text import Text

from nearcast.cli.completion import models, sites
from nearcast.cli.connect import connected
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.gateway import Answer, Gateway
from nearcast.cli.listen import trust_in
from nearcast.cli.naming import unknown_among
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import Cell, milliseconds, show_document, show_lines, show_pairs
from nearcast.cli.session import Session
from nearcast.cli.tensors import fill
from nearcast.errors import InvalidInput, Unavailable
from nearcast.resources import wire

COMMANDS: Final = {"infer": application()}
SHOWN: Final = 8
WORDS: Final = {
    "local": "the site's own engine",
    "nearest": "the place from which the answer comes soonest",
    "balance": "the place asked serves it, too; this share of requests goes elsewhere",
    "spill": "nearer places have no room",
}


def transport_to(url: str) -> httpx.BaseTransport | None:
    """What carries requests to a gateway; None for the network. A seam for tests."""
    return None


@command(
    COMMANDS["infer"],
    "infer",
    examples=(
        "infer magika --site singapore --input bytes=@tokens.npy",
        "infer iris --site frankfurt --input '[[5.1, 3.5, 1.4, 0.2]]'",
        "infer iris --input measurements='[[5.1, 3.5, 1.4, 0.2]]'",
        "infer minilm --site ashburn --text 'deploy once, ask any site'",
        "infer magika --json request.json -o json",
    ),
)
def infer(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", autocompletion=models)],
    site: Annotated[
        str | None, typer.Option(help="Whose gateway to ask; default: the first ready one.", autocompletion=sites)
    ] = None,
    gateway: Annotated[str | None, typer.Option(metavar="URL", help="Ask this gateway; no fleet is looked up.")] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="[NAME=]VALUE", help="JSON, @file.json or @file.npy; once per input."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text to embed, for models with a tokenizer.")] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The whole request as JSON; - for standard input.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Ask a model through a gateway; see who answered, why, and how fast.

    Exactly one of --input, --text and --json says what is asked.
    """
    if sum(bool(given) for given in (input_, text, json_)) != 1:
        raise InvalidInput(
            "expected exactly one of --input, --text and --json", hint="nearcast model inspect MODEL shows the inputs"
        )
    url = gateway or gateway_of(session, site)
    asked = Gateway(url, transport=transport_to(url), trust=trust_to(session, url))
    try:
        answer = _ask(asked, model, input_ or [], text or [], json_)
    finally:
        asked.close()
    if output is Format.TABLE:
        show_answer(answer)
    else:
        show_document(document_of(answer, url), output)


def gateway_of(session: Session, site: str | None) -> str:
    """The URL of a site's gateway: from the files of a local fleet, else from the control plane.

    Raises:
        NotFound: there is no such site.
        Unavailable: it has no gateway yet, or none is ready.
    """
    fleet = LocalPaths(session.data_dir).read_fleet() if session.control is None else None
    if fleet is not None and site in fleet.sites:
        return fleet.gateway_url(site)
    with connected(session) as client:
        sites = client.status().sites
    if site is not None:
        found = next((each for each in sites if each.name == site), None)
        if found is None:
            raise unknown_among("site", site, (each.name for each in sites))
    else:
        found = next((each for each in sites if each.ready), None)
    if found is None or not found.gateway_url:
        raise Unavailable(
            f"the gateway of {site} has not reported yet" if site else "no gateway is ready", hint="nearcast status"
        )
    return found.gateway_url


def trust_to(session: Session, url: str) -> ssl.SSLContext | None:
    """How a gateway of the session's local fleet is known; None for any other."""
    fleet = LocalPaths(session.data_dir).read_fleet() if session.control is None else None
    is_own = fleet is not None and any(fleet.gateway_url(site) == url.rstrip("/") for site in fleet.sites)
    return trust_in(fleet) if fleet is not None and is_own else None


def document_of(answer: Answer, url: str) -> dict[str, Any]:
    """An answer for programs."""
    return {
        "gateway_url": url,
        "site": answer.site,
        "model": answer.model,
        "reason": answer.reason,
        "timings_ms": answer.timings_ms,
        "answer": answer.document,
    }


def show_answer(answer: Answer) -> None:
    """Print the outputs, then who computed them, why there, and the times."""
    show_pairs(_outputs(answer.document))
    show_lines(
        "",
        Text.assemble(
            "computed at ", (answer.site or "?", "bold"), f" by {answer.model or '?'}; why there: ", _why(answer)
        ),
        _times(answer.timings_ms),
    )


def _ask(gateway: Gateway, model: str, inputs: list[str], texts: list[str], file: Path | None) -> Answer:
    if texts:
        return gateway.post(wire.EMBEDDINGS_PATH, {"model": model, "input": texts})
    if file is not None:
        return gateway.post(wire.infer_path(model), _request_in(file))
    return gateway.infer(model, fill(inputs, gateway.signature(model).inputs))


def _request_in(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"expected --json to name a file, cannot read {str(file)!r}: {error.strerror}",
            hint="--json - reads standard input",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected {file} to be UTF-8 text: {error}") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"expected JSON in {file}: {error}") from error
    if not isinstance(document, dict) or "inputs" not in document:
        raise InvalidInput(
            f"expected an inference request with `inputs` in {file}",
            hint='such as {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]}]}',
        )
    return document


def _outputs(document: dict[str, Any]) -> list[tuple[str, Cell]]:
    if "data" in document:  # embeddings
        return [
            (f"embedding {item['index']}", f"FP32[{len(item['embedding'])}] {_beginning(item['embedding'])}")
            for item in document["data"]
        ]
    return [
        (output["name"], f"{output['datatype']}{output['shape']} {_beginning(output['data'])}{_highest(output)}")
        for output in document["outputs"]
    ]


def _beginning(data: Any) -> str:
    """The first values of a tensor."""
    flat = _flat(data)
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in flat[:SHOWN])
    return f"{shown}, …" if len(flat) > SHOWN else shown


def _highest(output: dict[str, Any]) -> str:
    """Where the highest value stands, for one row of scores that is too long to be read."""
    flat = _flat(output["data"])
    if len(flat) <= SHOWN or output["shape"][0] != 1 or not all(isinstance(value, float) for value in flat):
        return ""
    index = max(range(len(flat)), key=flat.__getitem__)
    return f"; highest: {flat[index]:.6g} at {index}"


def _flat(data: Any) -> list[Any]:
    return [value for inner in data for value in _flat(inner)] if isinstance(data, list) else [data]


def _why(answer: Answer) -> str:
    reason, _, rest = answer.reason.partition(";")
    words = f"{reason} ({WORDS[reason]})" if reason in WORDS else reason or "?"
    attempt = rest.partition("attempt=")[2]
    return f"{words}, attempt {attempt}" if attempt not in {"", "1"} else words


def _times(timings: dict[str, float]) -> Text:
    """``total = gateway + upstream (network + queue + compute)``, as far as it is known."""
    text = Text.assemble((f"{milliseconds(timings['total'])} ms in total", "bold"))
    names = [name for name in ("gateway", "upstream", "network", "queue", "compute") if name in timings]
    if names:
        text.append(": " + ", ".join(f"{name} {milliseconds(timings[name])}" for name in names))
    return text
