"""``control``, ``agent``, ``join-token``: the processes of a fleet whose machines are many."""

import importlib
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from nearcast import logs
from nearcast.cli.completion import sites
from nearcast.cli.connect import connected
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.screen import note, show_document, show_lines
from nearcast.cli.session import Session
from nearcast.cli.waiting import seconds_of
from nearcast.control.settings import DATABASE_VARIABLE, REPOSITORY_VARIABLE
from nearcast.control.settings import Settings as ControlSettings
from nearcast.errors import InvalidInput

DEFAULTS: Final = ControlSettings(Path())
COMMANDS: Final = {name: application() for name in ("control", "agent", "join-token")}


@command(
    COMMANDS["join-token"],
    "join-token",
    examples=("join-token frankfurt", "join-token frankfurt --ttl 10m"),
)
def join_token(
    session: Session,
    site: Annotated[
        str, typer.Argument(metavar="SITE", help="The site that the node will belong to.", autocompletion=sites)
    ],
    ttl: Annotated[str, typer.Option(help="How long the token is good for: a number with ms, s, m or h.")] = "1h",
    output: Output = Format.TABLE,
) -> None:
    """Make a token that lets one node join a site.

    It carries the hashes of everything that the node will trust, and a secret: whoever holds it may join, once.
    """
    with connected(session) as client:
        token = client.join_token(site, ttl_s=seconds_of(ttl))
        url = client.target.url
    if output is not Format.TABLE:
        show_document({"site": site, "control": url, "token": token}, output)
        return
    show_lines(token)
    note(f"on the node: nearcast agent --data-dir DIR --control {url} --join-file FILE")


@command(
    COMMANDS["control"],
    "control",
    examples=(
        "control --data-dir /var/lib/nearcast --host 0.0.0.0 --port 7643 --advertise control.example",
        "control --data-dir ./control --repository s3://models/nearcast",
        "control --data-dir ./one --database postgresql://nearcast@db/nearcast --secrets /etc/nearcast/secrets",
    ),
)
def control(
    session: Session,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULTS.host,
    port: Annotated[int, typer.Option(help="0: that of the last run, else a free one.", max=65535)] = DEFAULTS.port,
    advertise: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name or address for clients; several times.")
    ] = None,
    publish_interval: Annotated[
        str, typer.Option(help="Changes within this time are published together.")
    ] = f"{DEFAULTS.publish_interval_s:g}s",
    plan_interval: Annotated[
        str, typer.Option(help="Between two passes of the planner.")
    ] = f"{DEFAULTS.plan_interval_s:g}s",
    placement_hold: Annotated[
        str, typer.Option(help="How long a site keeps a model that the planner no longer needs there.")
    ] = f"{DEFAULTS.placement_hold_s:g}s",
    demand_fall: Annotated[
        str, typer.Option(help="In which the planner forgets demand that ended, by 63 %.")
    ] = f"{DEFAULTS.demand_fall_s:g}s",
    node_timeout: Annotated[
        str, typer.Option(help="A node that is silent for longer counts as disconnected.")
    ] = f"{DEFAULTS.node_timeout_s:g}s",
    certificate_lifetime: Annotated[
        str, typer.Option(help="How long a node's certificate is honoured; renewed after a third of it.")
    ] = f"{DEFAULTS.certificate_lifetime_s / 3600:g}h",
    fleet: Annotated[str | None, typer.Option(help="Trust domain, a DNS name; only the first start chooses.")] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="URL", help="Object store of releases; default: a folder in the directory.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"postgresql://…, for several replicas; better by {DATABASE_VARIABLE}, since it holds a password. "
            "Default: SQLite in the directory.",
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(help="Keys and admin token, shared by replicas; default: the directory.", file_okay=False),
    ] = None,
) -> None:
    """Run a control plane in the foreground.

    --data-dir holds everything that it owns. Its URL, admin token and authority then lie there: commands with the same
    --data-dir find them.
    """
    settings = ControlSettings(
        data_dir=own_directory(session),
        host=host,
        port=port,
        advertise=tuple(advertise or ()),
        publish_interval_s=seconds_of(publish_interval),
        plan_interval_s=seconds_of(plan_interval),
        placement_hold_s=seconds_of(placement_hold),
        demand_fall_s=seconds_of(demand_fall),
        node_timeout_s=seconds_of(node_timeout),
        certificate_lifetime_s=seconds_of(certificate_lifetime),
        fleet=fleet,
        repository=repository or os.environ.get(REPOSITORY_VARIABLE) or None,
        database=database or os.environ.get(DATABASE_VARIABLE) or None,
        secrets=secrets.expanduser().absolute() if secrets else None,
    )
    logs.set_up()
    # The server pulls in the web framework: only whoever serves pays for it.
    importlib.import_module("nearcast.control.server").serve(settings)


@command(
    COMMANDS["agent"],
    "agent",
    examples=(
        "agent --data-dir /var/lib/nearcast --control https://control.example:7643 --join-file token",
        "agent --data-dir /var/lib/nearcast",
        "agent --data-dir ./node --public 0.0.0.0:8080 --peer 0.0.0.0:8443 --advertise-peer 203.0.113.7:8443",
        "agent --data-dir /var/lib/nearcast --public 0.0.0.0:443 --public-tls-cert tls.pem --public-tls-key tls.key",
        "agent --data-dir /var/lib/nearcast --metrics 127.0.0.1:9464 --otlp-endpoint http://127.0.0.1:4318",
    ),
)
def agent(
    session: Session,
    join: Annotated[str | None, typer.Option(metavar="TOKEN", help="Join token, for the first start.")] = None,
    join_file: Annotated[
        Path | None, typer.Option(help="The same in a file; better, since others see command lines.", dir_okay=False)
    ] = None,
    node: Annotated[str | None, typer.Option(metavar="NAME", help="Name in its site; default: the host's.")] = None,
    public: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="For clients; default: loopback, a free port that stays.")
    ] = None,
    public_tls_cert: Annotated[
        Path | None,
        typer.Option(help="Certificate chain for clients (PEM); taken up again when it changes.", dir_okay=False),
    ] = None,
    public_tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", dir_okay=False)] = None,
    peer: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="For peer sites; default: loopback, a free port that stays.")
    ] = None,
    advertise_peer: Annotated[
        str | None, typer.Option(metavar="IP[:PORT]", help="What peers connect to, if that is not --peer.")
    ] = None,
    poll: Annotated[str | None, typer.Option(help="Between two looks for a new plan. Default: 5s.")] = None,
    status: Annotated[str | None, typer.Option(help="Between two reports without news. Default: 60s.")] = None,
    model_bytes: Annotated[
        int | None, typer.Option(min=1, help="Disk that models may take together; default: no bound.")
    ] = None,
    engine_threads: Annotated[
        int | None, typer.Option(min=0, help="Threads per run; default: 0, one per core.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. Env: NEARCAST_LOG_LEVEL. Default: info.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="IP:PORT", help="Serve /metrics of agent, gateway and engine there; default: nowhere."),
    ] = None,
    access_log: Annotated[
        str | None, typer.Option(help="Requests that get a line: off, errors (from status 400), all. Default: errors.")
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="OTLP/HTTP collector of traces. Env: OTEL_EXPORTER_OTLP_ENDPOINT."),
    ] = None,
    trace_ratio: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Share of requests to trace; a caller's decision counts first. Default: 1."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where models run: auto, cpu, cuda or cuda:INDEX. Default: auto.")
    ] = None,
    max_body: Annotated[
        int | None, typer.Option(help="Largest body or gRPC message, in bytes. Default: 64 MiB.")
    ] = None,
    device_memory: Annotated[
        int | None, typer.Option(min=0, help="Device bytes that each model may take; default: no bound.")
    ] = None,
) -> None:
    """Run the agent of a node in the foreground.

    It runs one gateway and one engine, fetches its plan from --control, and serves on when nobody can be reached.
    --data-dir holds everything that the node owns; a node that joined before needs nothing else.
    """
    given = {
        "--control": session.control,
        "--join": join,
        "--join-file": join_file,
        "--node": node,
        "--public": public,
        "--public-tls-cert": public_tls_cert,
        "--public-tls-key": public_tls_key,
        "--peer": peer,
        "--advertise-peer": advertise_peer,
        "--poll-s": seconds_of(poll) if poll else None,
        "--status-s": seconds_of(status) if status else None,
        "--model-bytes": model_bytes,
        "--engine-threads": engine_threads,
        "--device": device,
        "--device-memory": device_memory,
        "--max-body": max_body,
        "--log-level": log_level,
        "--metrics": metrics,
        "--access-log": access_log,
        "--otlp-endpoint": otlp_endpoint,
        "--trace-ratio": trace_ratio,
    }
    arguments = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    importlib.import_module("nearcast.agent.main").main(["--data-dir", str(own_directory(session)), *arguments])


def own_directory(session: Session) -> Path:
    """The directory of a process that stands alone; it must be named, since the default one belongs to `up`.

    Raises:
        InvalidInput: it was not.
    """
    if session.is_default_dir:
        raise InvalidInput("expected a directory for what this process owns", hint="name it with --data-dir")
    return session.data_dir
