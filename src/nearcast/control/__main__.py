"""``python -m nearcast.control``: the control plane as a process of its own, for a supervisor to run."""

import argparse
import os
import sys
from pathlib import Path

from nearcast import logs
from nearcast.control.server import serve
from nearcast.control.settings import DATABASE_VARIABLE, REPOSITORY_VARIABLE, Settings
from nearcast.errors import NearcastError, meaning_of


def settings_of(arguments: list[str]) -> Settings:
    """The settings that a command line asks for."""
    defaults = Settings(Path())
    parser = argparse.ArgumentParser(
        prog="python -m nearcast.control", description="Serve the control plane of a fleet."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="holds all that it owns")
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=defaults.port, help="0: that of the last run, else a free one")
    parser.add_argument(
        "--advertise", action="append", default=[], metavar="NAME", help="host name or address for clients; repeatable"
    )
    parser.add_argument("--publish-interval-s", type=float, default=defaults.publish_interval_s, metavar="S")
    parser.add_argument("--plan-interval-s", type=float, default=defaults.plan_interval_s, metavar="S")
    parser.add_argument("--placement-hold-s", type=float, default=defaults.placement_hold_s, metavar="S")
    parser.add_argument("--demand-fall-s", type=float, default=defaults.demand_fall_s, metavar="S")
    parser.add_argument("--node-timeout-s", type=float, default=defaults.node_timeout_s, metavar="S")
    parser.add_argument("--certificate-lifetime-s", type=float, default=defaults.certificate_lifetime_s, metavar="S")
    parser.add_argument("--fleet", help="trust domain, a DNS name; only the first start may choose it")
    parser.add_argument("--repository", help="URL of an object store (default: a folder in the data directory)")
    parser.add_argument(
        "--database", metavar="URL", help=f"postgresql://… (default: {DATABASE_VARIABLE}, else SQLite in the directory)"
    )
    parser.add_argument("--secrets", type=Path, metavar="DIR", help="keys and admin token, shared by replicas")
    given = parser.parse_args(arguments)
    return Settings(
        data_dir=given.data_dir.expanduser().absolute(),
        host=given.host,
        port=given.port,
        advertise=tuple(given.advertise),
        publish_interval_s=given.publish_interval_s,
        plan_interval_s=given.plan_interval_s,
        placement_hold_s=given.placement_hold_s,
        demand_fall_s=given.demand_fall_s,
        node_timeout_s=given.node_timeout_s,
        certificate_lifetime_s=given.certificate_lifetime_s,
        fleet=given.fleet,
        repository=given.repository or os.environ.get(REPOSITORY_VARIABLE) or None,
        database=given.database or os.environ.get(DATABASE_VARIABLE) or None,
        secrets=given.secrets.expanduser().absolute() if given.secrets else None,
    )


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; the exit code says who must act if it could not."""
    logs.set_up()
    try:
        serve(settings_of(sys.argv[1:] if arguments is None else arguments))
    except NearcastError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n" if error.hint else f"{error.message}\n")
        return meaning_of(error).exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
