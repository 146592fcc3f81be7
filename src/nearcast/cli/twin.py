"""``twin run``: a scenario of the digital twin under several policies, as a table, as JSON, and as a page of plots."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nearcast.cli.completion import policies
from nearcast.cli.connect import connected
from nearcast.cli.files import check_target, decoded, read_named, write_named
from nearcast.cli.options import FoldedOutput, Form, application, command
from nearcast.cli.progress import Seldom
from nearcast.cli.screen import note, show_document, size
from nearcast.cli.session import Session
from nearcast.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from nearcast.resources.kinds import AnyResource
    from nearcast.twin.compare import Comparison
    from nearcast.twin.compare import Progress as Tell
    from nearcast.twin.files import Loaded

COMMANDS: Final = {"twin": application(help="Ask the digital twin what would happen.", no_args_is_help=True)}
SNAPSHOT_S: Final = 120.0
"""How long a snapshot's fleet is simulated."""
TELL_S: Final = 10.0
"""Between two lines on progress where standard error is no terminal."""


@COMMANDS["twin"].callback()
def _group() -> None:
    """Keeps the group a group."""


@command(
    COMMANDS["twin"],
    "run",
    examples=(
        "twin run examples/twin/smart-cameras.yaml",
        "twin run voice.yaml --policy nearcast --policy central --load 0.9 --report voice.html",
        "twin run voice.yaml --seed 7 -o json",
        "twin run --from fleet.json --change deployment.yaml",
    ),
)
def run(
    session: Session,
    scenario: Annotated[
        Path | None, typer.Argument(metavar="SCENARIO", help="File of the scenario (YAML).", show_default=False)
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy to run; repeat for several. Default: all.", show_default=False, autocompletion=policies
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all dice, instead of the scenario's.")] = None,
    load: Annotated[
        float | None, typer.Option(min=0.001, max=100, help="Demand as a part of what the fleet could serve at most.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="Seconds to simulate, instead of the scenario's.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the data files that the scenario names, besides its own. Env: NEARCAST_TWIN_DATA.",
            show_default=False,
            file_okay=False,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file.", show_default=False, dir_okay=False)
    ] = None,
    snapshot_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Instead of a scenario: a snapshot of a running fleet (twin snapshot), under nearcast.",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    change: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --from: manifests whose application is run beside the fleet as it is.",
            show_default=False,
            dir_okay=False,
        ),
    ] = None,
    output: FoldedOutput = Form.TABLE,
) -> None:
    """Run a scenario under several policies, over the same requests, on a virtual clock.

    The policy nearcast is the planning code of this very version. The bound is what no policy can beat. The same
    scenario and seed give the same figures.
    """
    if report is not None:
        check_target(report)
    if snapshot_file is not None:
        loaded, found = _of_snapshot(snapshot_file, scenario, policy, change, seed, load, duration)
    else:
        loaded, found = _of_scenario(scenario, policy, change, seed, load, duration, data)
    if report is not None:
        from nearcast.twin.page import page

        write_named(report, page(loaded, found).encode())
        note(f"wrote {report}")
    from nearcast.cli.comparison import document, show

    if output.document is not None:
        show_document(document(loaded, found), output.document)
        return
    show(loaded, found, "wide" if output is Form.WIDE else "fold")


@command(
    COMMANDS["twin"], "snapshot", examples=("twin snapshot -o snapshot.json", "twin snapshot | gzip > fleet.json.gz")
)
def snapshot(
    session: Session,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here; default: standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Take the running fleet as planning sees it: resources, nodes with profiles, demand, measured round trips.

    It holds no keys, tokens or addresses, and can be sent to whoever shall look at it.
    """
    if file is not None:
        check_target(file)
    with connected(session) as client:
        data = client.snapshot()
    _warn_if_idle(data)
    if file is None:
        sys.stdout.write(data.decode() + "\n")
        return
    write_named(file, data)
    note(f"the fleet of this moment is in {file}: {size(len(data))}")


def _warn_if_idle(data: bytes) -> None:
    """A snapshot without demand says nothing of a change: tell it now, while another one can be taken."""
    from nearcast.planning.fleet.snapshot import decode_snapshot

    if not any(seen.rate_per_s > 0 for seen in decode_snapshot(data).demand):
        note("nobody asks at this moment: twin run --from needs demand, take another snapshot while clients ask")


def _of_scenario(
    scenario: Path | None,
    policy: list[str] | None,
    change: list[Path] | None,
    seed: int | None,
    load: float | None,
    duration: float | None,
    data: Path | None,
) -> tuple["Loaded", "Comparison"]:
    """Read and run a scenario."""
    from nearcast.twin.compare import compare, set_up
    from nearcast.twin.files import load as load_files
    from nearcast.twin.names import NAMES, check_names

    if scenario is None:
        raise InvalidInput(
            "expected a SCENARIO, or --from with a snapshot; got neither", hint="examples/twin/ has some"
        )
    if change:
        raise InvalidInput("--change says what would be applied to a fleet: it goes with --from, not with a scenario")
    if not scenario.exists():
        raise NotFound(f"expected a scenario in {scenario}; there is no such file", hint="examples/twin/ has some")
    names = check_names(policy or NAMES)
    folder = _data_folder(data)
    loaded = load_files(scenario, folder)
    if duration is not None:
        loaded = _shortened(loaded, duration)
    for text in loaded.notes:
        note(text)
    stage = set_up(loaded, seed=seed, load=load)
    with _telling(names) as tell:
        return loaded, compare(stage, names, tell)


def _of_snapshot(
    file: Path,
    scenario: Path | None,
    policy: list[str] | None,
    change: list[Path] | None,
    seed: int | None,
    load: float | None,
    duration: float | None,
) -> tuple["Loaded", "Comparison"]:
    """Run a fleet as its snapshot has it and, where there is a change, as it would be."""
    from nearcast.planning.fleet.snapshot import decode_snapshot
    from nearcast.twin.files import Loaded
    from nearcast.twin.whatif import CHANGED, NOW, as_scenario, changed, live_stage, unreleased, what_if
    from nearcast.twin.world import Data

    if scenario is not None or policy:
        raise InvalidInput("--from runs nearcast over the snapshot's fleet: leave SCENARIO and --policy out")
    before = decoded(file, _snapshot_bytes(file), decode_snapshot)
    dice, lasts_s = (1 if seed is None else seed), (duration or SNAPSHOT_S)
    stage = after = None
    notes: tuple[str, ...] = ()
    if change:
        wanted = changed(before, _resources(change))
        notes = tuple(f"{name} is not released: it is left out" for name in unreleased(wanted))
        after = live_stage(wanted, dice, lasts_s, load)
    try:
        stage = live_stage(before, dice, lasts_s, load)
    except InvalidInput as error:
        if after is None:
            hint = error.hint or "--change FILE runs the fleet as it would be with other manifests"
            raise InvalidInput(error.message, hint=hint) from error
        notes += (f"the fleet as it is cannot be run, only the change is shown: {error.message}",)
    for text in notes:
        note(text)
    with _telling((NOW, CHANGED)) as tell:
        found = what_if(stage, after, tell)
    return Loaded(as_scenario(found.stage, before.fleet), Data(), notes), found


def _resources(files: list[Path]) -> list["AnyResource"]:
    """What the manifests in ``files`` hold, in their order."""
    from nearcast.resources.manifest import parse_manifests

    found = []
    for path in files:
        text = read_named(path, "manifests", "name the file that you would apply").decode(errors="replace")
        found += [item.resource for item in parse_manifests(text, str(path))]
    return found


def _snapshot_bytes(file: Path) -> bytes:
    """A snapshot, packed by gzip or not."""
    from nearcast.twin.files import read_file

    if file.suffix == ".gz" and file.is_file():
        return read_file(file)
    return read_named(file, "the snapshot of a fleet", "nearcast twin snapshot -o FILE writes one")


def _data_folder(given: Path | None) -> Path | None:
    """Where data files may lie.

    Raises:
        NotFound: a folder was named that is not there.
    """
    named = os.environ.get("NEARCAST_TWIN_DATA")
    folder = given or (Path(named) if named else None)
    if folder is not None and not folder.is_dir():
        told = "--data" if given else "NEARCAST_TWIN_DATA"
        raise NotFound(f"expected a folder of data files in {told} {folder}; there is none")
    return folder


def _shortened(loaded: "Loaded", duration_s: float) -> "Loaded":
    """The scenario over another time; the warm-up is at most a quarter of it, which is noted."""
    from dataclasses import replace

    spec = loaded.scenario.spec
    warm_up_s = min(spec.warm_up_s, duration_s / 4)
    changed = {"duration_s": duration_s, "warm_up_s": warm_up_s}
    scenario = loaded.scenario.model_copy(update={"spec": spec.model_copy(update=changed)})
    notes = loaded.notes
    if warm_up_s < spec.warm_up_s:
        notes += (f"the warm-up is {warm_up_s:g} s, a quarter of --duration, instead of {spec.warm_up_s:g} s",)
    return replace(loaded, scenario=scenario, notes=notes)


@contextmanager
def _telling(names: tuple[str, ...]) -> Iterator["Tell"]:
    """One bar for all policies; where standard error is no terminal, a line now and then."""
    if not sys.stderr.isatty():
        lines = Seldom(TELL_S)
        yield lambda name, part: lines.tell(f"{name}, {names.index(name) + 1} of {len(names)}: {part:.0%}")
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("drawing requests", total=float(len(names)))

        def tell(name: str, part: float) -> None:
            bar.update(task, description=name, completed=names.index(name) + part)

        yield tell
