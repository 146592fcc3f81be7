"""What every command knows: where the fleet's data lie, and how to reach a control plane elsewhere.

Decides which of option, environment and default counts. It opens nothing.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

DATA_DIR_VARIABLE = "NEARCAST_DATA_DIR"
CONTROL_VARIABLE = "NEARCAST_CONTROL"
TOKEN_VARIABLE = "NEARCAST_TOKEN"  # noqa: S105 - the name of a variable
CA_FILE_VARIABLE = "NEARCAST_CA_FILE"


@dataclass(frozen=True, slots=True)
class Given:
    """The options that every command takes, before or after its name; None where one was not given."""

    data_dir: Path | None = None
    control: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    def over(self, other: "Given") -> "Given":
        """These options, completed by ``other``."""
        return Given(
            data_dir=self.data_dir or other.data_dir,
            control=self.control or other.control,
            token=self.token or other.token,
            ca_file=self.ca_file or other.ca_file,
        )

    @classmethod
    def in_environment(cls, environment: Mapping[str, str]) -> "Given":
        """The options as the environment gives them; an empty variable is one that is not set."""
        data_dir, ca_file = environment.get(DATA_DIR_VARIABLE), environment.get(CA_FILE_VARIABLE)
        return cls(
            data_dir=Path(data_dir) if data_dir else None,
            control=environment.get(CONTROL_VARIABLE) or None,
            token=environment.get(TOKEN_VARIABLE) or None,
            ca_file=Path(ca_file) if ca_file else None,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command.

    Attributes:
        data_dir: absolute; holds a local fleet, or nothing yet.
        is_default_dir: whether nobody chose it.
        control: URL of a control plane elsewhere, or None for the one of ``data_dir``.
        token: what to show it, or None for the admin token of ``data_dir``.
        ca_file: its authority, or None.
    """

    data_dir: Path
    is_default_dir: bool = False
    control: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    def command(self, *arguments: str, program: str = "nearcast") -> str:
        """A command line for people that means the same fleet as this run."""
        where = () if self.is_default_dir else ("--data-dir", shlex.quote(str(self.data_dir)))
        return " ".join([program, *arguments, *where])


def session_of(given: Given, environment: Mapping[str, str]) -> Session:
    """The session that options and environment ask for; options win."""
    found = given.over(Given.in_environment(environment))
    data_dir = found.data_dir or Path(platformdirs.user_data_dir("nearcast", appauthor=False))
    return Session(
        data_dir=data_dir.expanduser().resolve(),
        is_default_dir=found.data_dir is None,
        control=found.control.rstrip("/") if found.control else None,
        token=found.token,
        ca_file=found.ca_file.expanduser() if found.ca_file else None,
    )
