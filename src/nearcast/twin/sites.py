"""The sites of a simulated fleet: cities of the table, by population, and those that a scenario names.

Decides which cities are sites, what they are called, and how many nodes each has. Pure: the table comes in.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nearcast.resources.jurisdiction import groups_of
from nearcast.resources.plan import SiteFacts
from nearcast.twin.scenario import Cities, Misfit, ScenarioSpec, SiteGroup


@dataclass(frozen=True, slots=True)
class City:
    """One row of the table of cities."""

    name: str
    country: str
    latitude: float
    longitude: float
    population: float


@dataclass(frozen=True, slots=True)
class TwinSite:
    """One site as the scenario means it."""

    facts: SiteFacts
    latitude: float
    longitude: float
    population: float
    demand: bool
    node: str
    nodes: int
    bytes_per_s: float


def sites_of(spec: ScenarioSpec, cities: Sequence[City], continents: Mapping[str, str]) -> tuple[TwinSite, ...]:
    """All sites of a scenario, group by group.

    Args:
        spec: the scenario.
        cities: the most populous first.
        continents: country -> continent.

    Raises:
        Misfit: too few such cities, a site named twice, or no place where clients enter.
    """
    found: list[TwinSite] = []
    for number, group in enumerate(spec.sites):
        found.extend(_by_cities(group, number, cities, continents, {site.facts.name for site in found}))
        found.extend(_by_name(group))
    names = [site.facts.name for site in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Misfit(("sites",), f"expected each site once; named twice: {', '.join(twice)}")
    if not any(site.demand for site in found):
        raise Misfit(("sites",), "expected at least one site where clients enter; every group says demand: false")
    return tuple(found)


def _by_name(group: SiteGroup) -> list[TwinSite]:
    named = group.named or ()
    shares = _nodes(group, [site.population for site in named])
    return [
        _site(
            group,
            nodes,
            site.population,
            (site.location.latitude, site.location.longitude),
            SiteFacts(
                name=site.name,
                tier=group.tier,
                country=site.country,
                jurisdictions=tuple(sorted({*site.jurisdictions, *groups_of(site.country)})),
            ),
        )
        for site, nodes in zip(named, shares, strict=True)
    ]


def _site(group: SiteGroup, nodes: int, population: float, at: tuple[float, float], facts: SiteFacts) -> TwinSite:
    """One site of ``group``; ``at`` are its latitude and longitude."""
    return TwinSite(
        facts=facts,
        latitude=at[0],
        longitude=at[1],
        population=population,
        demand=group.demand,
        node=group.node,
        nodes=nodes,
        bytes_per_s=group.mbps * 1e6 / 8,
    )


def _by_cities(
    group: SiteGroup, number: int, cities: Sequence[City], continents: Mapping[str, str], taken: set[str]
) -> list[TwinSite]:
    if group.cities is None:
        return []
    chosen = _chosen(group.cities, number, cities, continents, taken)
    shares = _nodes(group, [city.population for _, city in chosen])
    return [
        _site(
            group,
            nodes,
            city.population,
            (city.latitude, city.longitude),
            SiteFacts(name=name, tier=group.tier, country=city.country, jurisdictions=groups_of(city.country)),
        )
        for (name, city), nodes in zip(chosen, shares, strict=True)
    ]


def _chosen(
    wanted: Cities, number: int, cities: Sequence[City], continents: Mapping[str, str], taken: set[str]
) -> list[tuple[str, City]]:
    """The first of ``cities`` that are ``wanted``, with names that nobody has ``taken``, which are taken then.

    Raises:
        Misfit: there are fewer.
    """
    chosen: list[tuple[str, City]] = []
    per_country: dict[str, int] = {}
    for city in cities:
        if len(chosen) == wanted.count:
            break
        if wanted.countries and city.country not in wanted.countries:
            continue
        if wanted.continents and continents.get(city.country) not in wanted.continents:
            continue
        name = _slug(city)
        if per_country.get(city.country, 0) >= wanted.per_country or name in taken:
            continue
        per_country[city.country] = per_country.get(city.country, 0) + 1
        taken.add(name)
        chosen.append((name, city))
    if len(chosen) < wanted.count:
        raise Misfit(
            ("sites", number, "cities", "count"),
            f"expected {wanted.count} cities; the table has {len(chosen)} such",
            hint="Ask for fewer, or widen continents, countries or perCountry.",
        )
    return chosen


def _nodes(group: SiteGroup, populations: Sequence[float]) -> list[int]:
    if not group.nodes_by_population:
        return [group.nodes] * len(populations)
    mean = sum(populations) / max(1, len(populations))
    return [max(1, round(group.nodes * people / mean)) for people in populations]


def _slug(city: City) -> str:
    plain = unicodedata.normalize("NFKD", city.name).encode("ascii", "ignore").decode().lower()
    return (re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "city")[:59] + f"-{city.country.lower()}"
