"""What a writer of manifests is told: where, what was expected, what came, what is near."""

import pytest

from nearcast.errors import NotFound, meaning_of
from nearcast.resources.kinds import KINDS, Deployment, Site
from nearcast.resources.manifest import diff, parse_manifests, resource_from_document, schema, to_yaml
from nearcast.resources.problems import ManifestError, Problem

SMALLEST = """\
apiVersion: nearcast.dev/v1alpha1
kind: Deployment
metadata: {name: magika}
spec: {model: magika, version: "3.3", placement: {sites: [frankfurt]}}
"""


def site(spec: str, name: str = "frankfurt") -> str:
    return f"apiVersion: nearcast.dev/v1alpha1\nkind: Site\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def problems(text: str, source: str = "f.yaml") -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse_manifests(text, source)
    assert meaning_of(caught.value).http_status == 400
    return [str(problem) for problem in caught.value.problems]


def test_the_smallest_deployment() -> None:
    (parsed,) = parse_manifests(SMALLEST, "d.yaml")
    assert isinstance(parsed.resource, Deployment)
    assert parsed.resource.spec.version == "3.3"
    assert parsed.resource.spec.objective == "interactive"
    assert (parsed.source, parsed.line) == ("d.yaml", 1)


def test_several_documents_each_with_its_line() -> None:
    parsed = parse_manifests(f"# sites\n---\n{site('{country: DE}')}---\n---\n{SMALLEST}")
    assert [(item.resource.kind, item.line) for item in parsed] == [("Site", 3), ("Deployment", 9)]


def test_json_and_lists_of_manifests() -> None:
    one = '{{"apiVersion": "nearcast.dev/v1alpha1", "kind": "Model", "metadata": {{"name": "{}"}}}}'
    text = f"[{one.format('m')},\n {one.format('n')}]"
    assert [(item.resource.name, item.line) for item in parse_manifests(text, "m.json")] == [("m", 1), ("n", 2)]
    assert [item.resource.name for item in parse_manifests(text, "m.yaml")] == ["m", "n"]


def test_yaml_flow_style_is_not_taken_for_json() -> None:
    (parsed,) = parse_manifests("{apiVersion: nearcast.dev/v1alpha1, kind: Model, metadata: {name: m}}")
    assert parsed.resource.name == "m"


def test_a_status_is_dropped() -> None:
    (parsed,) = parse_manifests(site("{country: DE}") + "status: {anything: [1, 2]}\n")
    assert parsed.resource.status is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "{country: DE, tier: egde}",
            "f.yaml:4:27: spec.tier: expected one of device, edge, regional, cloud; got 'egde'. Did you mean 'edge'?",
        ),
        (
            "{country: NO}",
            "f.yaml:4:17: spec.country: expected text (ISO 3166-1 alpha-2 code of a country, upper case); got false."
            ' YAML reads NO as false: quote it, country: "NO"',
        ),
        (
            "{country: de}",
            "f.yaml:4:17: spec.country: expected text (ISO 3166-1 alpha-2 code of a country, upper case); got 'de'."
            " Did you mean 'DE'?",
        ),
        (
            "{contry: DE}",
            "f.yaml:4:8: spec.contry: unknown field; expected one of country, tier, location, jurisdictions, link,"
            " tenants, rates, emulate. Did you mean 'country'?",
        ),
        (
            "{country: DE, latitude: 1}",
            "f.yaml:4:21: spec.latitude: unknown field; expected one of country, tier, location, jurisdictions, link,"
            " tenants, rates, emulate. It belongs at spec.location.latitude.",
        ),
        (
            "{country: DE, location: {latitude: 91, longitude: 1}}",
            "f.yaml:4:42: spec.location.latitude: expected a number from -90 to 90; got the number 91",
        ),
        (
            "{country: DE, location: {latitude: .nan, longitude: 1}}",
            "f.yaml:4:42: spec.location.latitude: expected a number from -90 to 90; got the number nan",
        ),
        (
            "{country: DE, jurisdictions: EU}",
            "f.yaml:4:36: spec.jurisdictions: expected a list, each text (group of states, such as EU); got 'EU'."
            " Write it as a list: jurisdictions: [EU]",
        ),
        (
            "{country: DE, jurisdictions: [EU]}",
            "f.yaml:4:36: spec.jurisdictions: EU follows from the country and cannot be claimed: leave it out",
        ),
        (
            "{country: DE, emulate: {round_trip_ms: {}}}",
            "f.yaml:4:31: spec.emulate.round_trip_ms: unknown field; expected one of roundTripMs."
            " Did you mean 'roundTripMs'?",
        ),
        (
            "{country: DE, emulate: {roundTripMs: {A_b: 1}}}",
            "f.yaml:4:45: spec.emulate.roundTripMs.A_b: expected a name of 1 to 63 of a-z, 0-9 and '-', beginning and"
            " ending with a letter or digit (it becomes a DNS label); got 'A_b'",
        ),
    ],
)
def test_what_is_said_of_a_wrong_site(spec: str, message: str) -> None:
    found = problems(site(spec))
    assert message in found


@pytest.mark.parametrize(("written", "quoted"), [("3.3", '"3.3"'), ("1.10", '"1.10"'), ("3", '"3"'), ("1_0", '"1_0"')])
def test_an_unquoted_version_is_told_to_be_quoted_as_it_was_written(written: str, quoted: str) -> None:
    (found,) = problems(SMALLEST.replace('"3.3"', written))
    assert found.startswith("f.yaml:4:32: spec.version: expected text (1 to 64 of letters")
    assert found.endswith(f"YAML reads {written} as a number: quote it, version: {quoted}")


def test_a_date_is_text_as_it_was_written() -> None:
    (parsed,) = parse_manifests(SMALLEST.replace('"3.3"', "2026-11-20"))
    assert isinstance(parsed.resource, Deployment)
    assert parsed.resource.spec.version == "2026-11-20"


def test_all_errors_of_a_file_come_together_in_its_order() -> None:
    text = (
        site("{country: DE, tier: x}") + "---\n" + SMALLEST.replace("magika, v", "mag/ika, v").replace("sites", "site")
    )
    text += "---\nkind: Polizy\n---\n- 1\n"
    fields = [(problem.line, problem.field) for problem in _problems(text)]
    assert fields == [
        (4, "spec.tier"),
        (9, "spec.model"),
        (9, "spec.placement.site"),
        (11, "kind"),
        (13, ""),
    ]


def _problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ManifestError) as caught:
        parse_manifests(text)
    return caught.value.problems


def test_kind_and_api_version_are_told_by_their_nearest() -> None:
    assert problems("kind: site\n") == [
        "f.yaml:1:7: kind: expected one of Site, Model, Deployment, Policy; got 'site'. Did you mean 'Site'?"
    ]
    assert problems("apiVersion: nearcast.dev/v1\nkind: Model\nmetadata: {name: m}\n") == [
        "f.yaml:1:13: apiVersion: expected 'nearcast.dev/v1alpha1'; got 'nearcast.dev/v1'."
        " Did you mean 'nearcast.dev/v1alpha1'?"
    ]
    assert problems("metadata: {name: m}\n") == [
        "f.yaml:1:1: kind: expected one of Site, Model, Deployment, Policy; got nothing: it is missing"
    ]


def test_missing_fields_stand_where_they_should_be() -> None:
    found = problems(SMALLEST.replace('version: "3.3", ', ""))
    assert len(found) == 1
    assert found[0].startswith("f.yaml:4:1: spec.version: expected text (1 to 64")
    assert found[0].endswith("got nothing: it is missing")


def test_a_rule_over_several_fields_is_said_in_its_own_words() -> None:
    (found,) = problems(SMALLEST.replace("sites: [frankfurt]", "sites: [frankfurt], everywhere: true"))
    assert (
        found
        == "f.yaml:4:50: spec.placement: expected exactly one of sites, everywhere, tiers, auto; got sites, everywhere"
    )


def auto(fields: str) -> str:
    return SMALLEST.replace("placement: {sites: [frankfurt]}", f"placement: {{auto: {fields}}}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{minSites: 3, maxSites: 2}", "expected maxSites to be minSites (3) or more; got maxSites 2"),
        ("{sites: [a, b], minSites: 3}", "expected minSites of at most the 2 sites; got 3"),
        ("{sites: [a, a]}", "a site is named twice: a, a"),
        ("{countrys: [DE]}", "Did you mean 'countries'?"),
    ],
)
def test_what_is_said_of_a_wrong_choice_of_sites(fields: str, message: str) -> None:
    (found,) = problems(auto(fields))
    assert "spec.placement.auto" in found
    assert message in found


@pytest.mark.parametrize("target", ["0ms", "5", "1h", "3601s", "-1s", "nan"])
def test_a_latency_target_is_a_duration(target: str) -> None:
    (found,) = problems(_with_target(target))
    assert "spec.latencyTarget" in found
    assert "duration" in found


@pytest.mark.parametrize("written", ["150", '"150"', "1.5"])
def test_a_latency_target_without_a_unit_is_told_with_one(written: str) -> None:
    (found,) = problems(auto("{}").replace("model: magika", f"latencyTarget: {written}, model: magika"))
    bare = written.strip('"')
    assert found.endswith(f"Write it with its unit: latencyTarget: {bare}ms")
    assert "quote" not in found


def _with_target(target: str) -> str:
    return auto("{}").replace("model: magika", f'latencyTarget: "{target}", model: magika')


def test_targets_by_objective_and_by_name() -> None:
    def target_s(text: str) -> float:
        (parsed,) = parse_manifests(text)
        assert isinstance(parsed.resource, Deployment)
        return parsed.resource.spec.target_s

    assert target_s(auto("{}")) == 0.2
    assert target_s(auto("{}").replace("model: magika", "objective: realtime, model: magika")) == 0.05
    assert target_s(_with_target("1.5s")) == 1.5
    assert target_s(_with_target("30ms")) == 0.03


def test_a_resource_written_twice() -> None:
    found = problems(f"{SMALLEST}---\n{SMALLEST}")
    assert found == [
        "f.yaml:8:12: metadata.name: Deployment/magika is written twice, first in line 1. Keep one of them."
    ]


def test_an_empty_file_is_no_manifest() -> None:
    for text in ("", "# nothing\n", "---\n---\n"):
        (found,) = problems(text)
        assert found.startswith("f.yaml:1:1: expected at least one manifest")


def test_long_lists_of_problems_are_cut_for_people_and_whole_for_programs() -> None:
    text = "---\n".join("kind: X\n" for _ in range(50))
    with pytest.raises(ManifestError) as caught:
        parse_manifests(text)
    assert len(caught.value.problems) == 50
    assert caught.value.message.endswith("and 30 more")


def test_an_error_does_not_send_a_long_key_or_value_back() -> None:
    long = "a" * 100_000
    for fields in (
        f"{{{long}: 1}}",
        f"{{{long}: {{{long}: 1}}}}",
        f"{{country: {long}}}",
        f"{{jurisdictions: {long}}}",
    ):
        with pytest.raises(ManifestError) as refused:
            parse_manifests(site(fields), "f.yaml")
        assert len(str(refused.value)) < 2000
        for problem in refused.value.problems:
            assert max(map(len, (problem.field, problem.message, problem.hint))) <= 400


def test_a_document_without_text_is_named_by_its_source() -> None:
    with pytest.raises(ManifestError) as caught:
        resource_from_document({"kind": "Site", "metadata": {"name": "x"}, "spec": {"country": "DE"}}, "manifest 3")
    assert str(caught.value) == ("manifest 3: apiVersion: expected 'nearcast.dev/v1alpha1'; got nothing: it is missing")


def test_schema_by_any_name_of_a_kind_and_the_nearest_for_others() -> None:
    assert schema("sites") == schema("Site")
    assert schema("site")["$schema"].endswith("2020-12/schema")
    assert set(KINDS) == {schema(kind)["title"] for kind in KINDS}
    with pytest.raises(NotFound) as caught:
        schema("Sitee")
    assert caught.value.hint == "Did you mean 'Site'?"


def test_diff_shows_what_changes_and_nothing_else() -> None:
    (old,) = parse_manifests(site("{country: DE}"))
    assert isinstance(old.resource, Site)
    before = {"kind": "Site", "metadata": {"name": "a"}, "spec": {"country": "DE"}}
    after = {"kind": "Site", "metadata": {"name": "a"}, "spec": {"country": "NO"}}
    assert diff(before, before) == ""
    lines = diff(before, after).splitlines()
    assert lines[:2] == ["--- Site/a", "+++ Site/a"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-  country: DE", "+  country: 'NO'"]
    assert diff(None, after).splitlines()[:2] == ["--- (none)", "+++ Site/a"]
    assert diff(before, None).splitlines()[1] == "+++ (none)"


def test_to_yaml_writes_what_it_reads() -> None:
    document = {"kind": "Site", "metadata": {"name": "a"}, "spec": {"country": "NO", "note": "ü 3.3"}}
    assert to_yaml(document).splitlines()[0] == "kind: Site"
    assert "ü" in to_yaml(document)
