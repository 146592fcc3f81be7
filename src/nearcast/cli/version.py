"""``version``: of this command, and of the control plane where one answers."""

import platform
from typing import Annotated, Final

import typer

from nearcast import __version__
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.session import Session

COMMANDS: Final = {"version": application()}


@command(COMMANDS["version"], "version", examples=("version", "version --client", "version -o json"))
def version(
    session: Session,
    client: Annotated[bool, typer.Option("--client", help="Only of this command; ask nobody.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Print the versions of this command and of the control plane, if one answers."""
    found = {"nearcast": __version__, "python": platform.python_version()}
    if not client and (session.control or (session.data_dir / "fleet.json").exists()):
        found |= _of_control(session)
    if output is Format.TABLE:
        typer.echo("\n".join(f"{name} {value}" for name, value in found.items()))
        return
    # Imported here: the plain form should start as fast as it looks.
    from nearcast.cli.screen import show_document

    show_document(found, output)


def _of_control(session: Session) -> dict[str, str]:
    from nearcast.cli.connect import connected
    from nearcast.errors import NearcastError

    try:
        with connected(session) as control:
            status = control.status()
    except NearcastError as error:
        return {"control": f"does not answer ({error.message})"}
    return {"control": status.control.version or "unknown", "control_url": status.control.url}
