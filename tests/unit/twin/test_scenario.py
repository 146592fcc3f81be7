"""What users write: strict, with the line of each error; data files that are absent; the library of scenarios."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nearcast.errors import InvalidInput, NotFound
from nearcast.resources.problems import ManifestError
from nearcast.twin.compare import compare, set_up
from nearcast.twin.files import Loaded, load, load_data
from nearcast.twin.names import BOUND, NAMES, OURS
from nearcast.twin.page import page
from nearcast.twin.scenario import read_scenario
from unit.twin.tiny import document, loaded, model, named, stage

LIBRARY = Path(__file__).resolve().parents[3] / "examples" / "twin"
SHORT_S = 12.0


def refusal(value: dict[str, Any]) -> str:
    with pytest.raises(ManifestError) as caught:
        read_scenario(yaml.safe_dump(value), "s.yaml")
    return str(caught.value)


def test_an_unknown_field_is_named_with_its_line_and_what_was_meant() -> None:
    text = yaml.safe_dump(document()).replace("durationS: 20", "durationSeconds: 20")
    with pytest.raises(ManifestError) as caught:
        read_scenario(text, "s.yaml")
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "durationSeconds" in line)
    assert f"s.yaml:{line}:" in str(caught.value)
    assert "unknown field" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"demand": {}}, "exactly one of load, ratePerS"),
        ({"demand": {"load": 0.5, "ratePerS": 3}}, "exactly one of load, ratePerS"),
        ({"sites": [{"node": "box"}]}, "exactly one of cities, named"),
        ({"sites": [{"named": [named("berlin")], "node": "bx"}]}, "node class 'bx'"),
        ({"models": [model("a"), model("a")]}, "named twice"),
        ({"models": [{**model(), "service": {"box": [[2, 5]]}}]}, "begin with 1"),
        ({"models": [{**model(), "service": {"box": [[1, 5], [4, 3]]}}]}, "do not fall"),
        ({"failures": [{"atS": 1, "lastsS": 1}]}, "exactly one of sites, share, link, cutOff"),
        ({"warmUpS": 20}, "warmUpS below durationS"),
        (
            {"demand": {"load": 1, "crowds": [{"atS": 0, "lastsS": 1, "times": 2, "models": ["x"]}]}},
            "a crowd asks for x",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(spec: dict[str, Any], said: str) -> None:
    assert said in refusal(document(**spec))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("node: arena", "node: areena", "spec.sites[0].node: sites name the node class 'areena'"),
        ("{arena: [[1, 60]]", "{areena: [[1, 60]]", "spec.models[0].service.areena: model match"),
        ("{arena: [[1, 60]]", "{arena: [[2, 60]]", "spec.models[0].service.arena: model match"),
        ("warmUpS: 30", "warmUpS: 300", "spec.warmUpS: expected warmUpS below durationS"),
        ("where: {cont", "models: [mach], where: {cont", "spec.demand.crowds[0].models: a crowd asks for mach"),
        ("share: 0.1", "sites: [ohia]", "spec.failures[0].sites: a failure names sites that are not there"),
        ("share: 0.1", "link: [ohio, tokio]", "spec.failures[0].link: a failure names sites"),
        ("share: 0.1", "cutOff: {countries: [MT]}", "spec.failures[0].cutOff: expected a region with a site"),
        ("count: 24", "count: 5000", "spec.sites[0].cities.count: expected 5000 cities; the table has"),
        ("room: 6", "tiers: [device]", "spec.models[0]: no site can hold match"),
        ("workers: 2,", "workers: -2,", "spec.nodes.arena.workers: expected a whole number from 1 to 10000;"),
        ("[AS]", "[ASIA]", "Did you mean 'AS'?"),
        (
            "[AS]",
            "[AN]",
            "spec.demand.crowds[0].where: expected a region with a site in it; none has continents",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (LIBRARY / "matchmaking.yaml").read_text()
    assert old in text
    path = tmp_path / "s.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ManifestError) as caught:
        set_up(load(path))
    (problem,) = caught.value.problems
    assert said in str(problem)
    changed = "name: match" if problem.field == "spec.models[0]" else new
    assert changed in path.read_text().splitlines()[problem.line - 1]


def test_a_name_that_is_nearly_one_is_told() -> None:
    cities = {"named": [named("berlin")], "node": "bux"}
    assert "Did you mean 'box'?" in refusal(document(sites=[cities]))
    with pytest.raises(InvalidInput) as caught:
        stage(failures=[{"atS": 1, "lastsS": 1, "sites": ["pariss"]}])
    assert caught.value.hint == "Did you mean 'paris'?"


def test_a_wrong_item_does_not_make_its_list_too_short() -> None:
    value = document()
    value["spec"]["models"][0]["targetMS"] = value["spec"]["models"][0].pop("targetMs")
    said = refusal(value)
    assert "Did you mean 'targetMs'?" in said
    assert "got a list" not in said
    assert "targetMs: expected a number above 0; got nothing" in said


def test_one_document_is_expected() -> None:
    with pytest.raises(ManifestError, match="expected one scenario, got 0"):
        read_scenario("", "s.yaml")


def test_sites_that_no_failure_or_model_can_find_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not there: rome"):
        stage(failures=[{"atS": 1, "lastsS": 1, "sites": ["rome"]}])
    with pytest.raises(InvalidInput, match="no site can hold m"):
        stage(models=[model(tiers=["device"])])


def test_demand_that_no_place_may_answer_is_refused() -> None:
    rule = {"name": "r", "match": {"originCountries": ["DE"]}, "residency": {"countries": ["AT"]}}
    with pytest.raises(InvalidInput, match="no place may answer some requests for m"):
        stage(policies=[rule])


def test_a_missing_file_is_an_error_unless_the_scenario_says_what_else(tmp_path: Path) -> None:
    wanted = read_scenario(yaml.safe_dump(document(demand={"load": 0.5, "arrivals": "trace"})), "s.yaml")[0]
    with pytest.raises(NotFound, match=r"azure_llm_2023_conv\.csv\.gz") as caught:
        load_data(wanted, (tmp_path,))
    assert "demand.fallback: poisson" in caught.value.hint
    allowed = document(demand={"load": 0.5, "arrivals": "trace", "fallback": "poisson"})
    found = load_data(read_scenario(yaml.safe_dump(allowed), "s.yaml")[0], (tmp_path,))
    assert found.data.gaps_s is None
    assert "poisson instead" in found.notes[0]


def test_files_are_read_and_their_faults_named(tmp_path: Path) -> None:
    value = document(
        network={"roundTrips": "planetlab", "file": "rtt.txt"},
        demand={"load": 0.5, "arrivals": "trace", "file": "t.csv"},
    )
    (tmp_path / "rtt.txt").write_text("0 10 20\n10 0 30\n20 30 0\n")
    rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:50.99,396,109\n"
    (tmp_path / "t.csv").write_text(rows + "2023-11-16 18:15:51.22,879,55\n")
    scenario = read_scenario(yaml.safe_dump(value), "s.yaml")[0]
    found = set_up(load_data(scenario, (tmp_path,)))
    assert sorted(set(np.round(found.world.round_trip_s[np.triu_indices(3, 1)], 6))) == [0.01, 0.02, 0.03]
    (tmp_path / "rtt.txt").write_text("0 10\n10 0 3\n")
    with pytest.raises(InvalidInput, match="square matrix"):
        load_data(scenario, (tmp_path,))
    (tmp_path / "rtt.txt").write_text("0 1\n1 0\n")
    with pytest.raises(InvalidInput, match="too few for 3 sites"):
        set_up(load_data(scenario, (tmp_path,)))
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens\n2023,1\n")
    with pytest.raises(InvalidInput, match="ContextTokens,GeneratedTokens"):
        load_data(scenario, (tmp_path,))


def test_demand_follows_the_sun_crowds_and_the_load() -> None:
    crowd = {"atS": 10, "lastsS": 5, "times": 3, "risesS": 0, "where": {"countries": ["DE"]}}
    here = stage(demand={"load": 0.5, "dayNight": {"depth": 0.8, "startHourUtc": 14}, "crowds": [crowd]})
    rates = here.workload.rate_per_s
    calm = rates[:5].sum(axis=(1, 2)).mean()
    assert calm == pytest.approx(0.5 * here.world.capacity_per_s, rel=1e-3)
    assert rates[12, 0, 0] == pytest.approx(3 * rates[2, 0, 0], rel=1e-3)
    assert rates[12, 1, 0] == pytest.approx(rates[2, 1, 0], rel=1e-3)


def test_capacity_is_what_the_workers_can_do_at_the_best_batch() -> None:
    here = stage(models=[{**model(), "service": {"box": [[1, 10], [4, 20]]}, "noise": 0}])
    assert here.world.capacity_per_s == pytest.approx((2 + 2 + 4) / 0.005)


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_of_the_library_runs_under_every_policy(path: Path) -> None:
    whole = load(path)
    spec = whole.scenario.spec.model_copy(update={"duration_s": SHORT_S, "warm_up_s": 2.0, "failures": ()})
    scenario = whole.scenario.model_copy(update={"spec": spec})
    found = compare(set_up(Loaded(scenario, whole.data, whole.notes), load=0.1), NAMES)
    assert [one.policy for one in found.figures] == [name for name in NAMES if name != BOUND]
    assert all(one.violations == 0 and one.requests > 0 for one in found.figures)
    ours = next(one for one in found.figures if one.policy == OURS)
    assert ours.answered / ours.requests > 0.95
    text = path.read_text()
    assert text.startswith("# ")
    assert "Class" in text.partition("apiVersion")[0]


def test_the_page_is_whole_by_itself() -> None:
    value = loaded(document(failures=[{"atS": 5, "lastsS": 3, "sites": ["paris"]}], about="<b>bold</b>"))
    html = page(value, compare(set_up(value), NAMES))
    assert html.startswith("<!doctype html>")
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "<b>bold" not in html
    assert html.count("<svg") >= 6
    assert "clairvoyant (bound)" in html


def test_figures_count_what_was_not_answered_as_outside_the_target() -> None:
    here = stage(demand={"load": 3.0}, durationS=6, warmUpS=1)
    found = compare(here, ["nearest"]).figures[0]
    assert found.refused > 0.3
    assert found.within == pytest.approx(found.answered / found.requests)  # all of them were in time


def test_central_gets_the_capacity_of_the_whole_fleet() -> None:
    here = stage(demand={"load": 0.6})
    found = compare(here, ["central"]).figures[0]
    assert found.refused == 0
    assert found.utilization_mean == pytest.approx(0.6, rel=0.1)
    with pytest.raises(InvalidInput, match="needs a site of tier cloud"):
        compare(stage(sites=[{"named": [named("berlin")], "node": "box"}]), ["central"])
