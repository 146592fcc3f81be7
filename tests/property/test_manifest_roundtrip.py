"""Manifests over random resources and random texts: what is written is read back, and nothing else ever happens."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.resources.kinds import (
    API_VERSION,
    AnyResource,
    Deployment,
    Model,
    Policy,
    Site,
    revision_of_resource,
    to_document,
)
from nearcast.resources.manifest import parse_manifests, resource_from_document, schema, to_yaml
from nearcast.resources.problems import ManifestError

names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)
site_names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,10}[A-Za-z0-9])?", fullmatch=True)
countries = st.sampled_from(["DE", "NO", "SG", "US", "FR"])
groups = st.sampled_from(["APAC", "G7", "GDPR-ADEQUATE"])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def lists(items: st.SearchStrategy[str], minimum: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(items, min_size=minimum, max_size=3, unique=True)


def mapping(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=fields)


metadata = st.fixed_dictionaries({"name": names}, optional={"labels": st.dictionaries(texts, texts, max_size=2)})
site_metadata = st.fixed_dictionaries({"name": site_names})
site_specs = st.fixed_dictionaries(
    {"country": countries},
    optional={
        "tier": st.sampled_from(["device", "edge", "regional", "cloud"]),
        "location": st.fixed_dictionaries({"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)}),
        "jurisdictions": lists(groups),
        "emulate": st.fixed_dictionaries(
            {"roundTripMs": st.dictionaries(site_names, st.floats(0, 10_000), max_size=2)}
        ),
        "link": st.fixed_dictionaries({"mbps": st.floats(0.001, 10_000)}),
        "tenants": lists(names),
        "rates": mapping(price=st.floats(0, 1_000), energy=st.floats(0, 1_000), carbon=st.floats(0, 1_000)),
    },
)
tiers = st.sampled_from(["edge", "cloud"])
placements = st.one_of(
    st.fixed_dictionaries({"sites": lists(site_names, 1)}),
    st.just({"everywhere": True}),
    st.fixed_dictionaries({"tiers": lists(tiers, 1)}),
    st.fixed_dictionaries(
        {
            "auto": mapping(
                sites=lists(site_names, 1),
                tiers=lists(tiers, 1),
                countries=lists(countries, 1),
                maxSites=st.integers(1, 9),
            )
        }
    ),
)
deployment_specs = st.fixed_dictionaries(
    {"model": names, "version": versions, "placement": placements},
    optional={
        "objective": st.sampled_from(["realtime", "interactive", "batch"]),
        "latencyTarget": st.sampled_from(["5ms", "1.5s", "3600s"]),
        "weights": mapping(price=st.floats(0, 1_000), carbon=st.floats(0, 1_000)),
        "tenant": names,
    },
)
policy_specs = st.fixed_dictionaries(
    {
        "residency": st.one_of(
            st.fixed_dictionaries({"countries": lists(countries, 1)}, optional={"sites": lists(site_names)})
        )
    },
    optional={"match": mapping(models=lists(names), originSites=lists(site_names), originJurisdictions=lists(groups))},
)
documents = st.one_of(
    st.fixed_dictionaries({"kind": st.just("Site"), "metadata": site_metadata, "spec": site_specs}),
    st.fixed_dictionaries(
        {"kind": st.just("Model"), "metadata": metadata},
        optional={"spec": mapping(task=texts, description=texts, tiers=lists(tiers))},
    ),
    st.fixed_dictionaries({"kind": st.just("Deployment"), "metadata": metadata, "spec": deployment_specs}),
    st.fixed_dictionaries({"kind": st.just("Policy"), "metadata": metadata, "spec": policy_specs}),
).map(lambda document: {"apiVersion": API_VERSION, **document})
resources = documents.map(resource_from_document)


@given(st.lists(resources, min_size=1, max_size=4, unique_by=lambda item: (item.kind, item.name)))
def test_what_is_written_is_read_back_with_the_same_revision(items: list[AnyResource]) -> None:
    for text, source in (
        (to_yaml(*[to_document(item) for item in items]), "f.yaml"),
        (json.dumps([to_document(item) for item in items]), "f.json"),
    ):
        parsed = [found.resource for found in parse_manifests(text, source)]
        assert parsed == items
        assert [revision_of_resource(item) for item in parsed] == [revision_of_resource(item) for item in items]


@given(documents)
def test_what_is_admitted_fits_the_schema(document: dict[str, object]) -> None:
    resource = resource_from_document(document)
    jsonschema.Draft202012Validator(schema(resource.kind)).validate(document)
    jsonschema.Draft202012Validator(schema(resource.kind)).validate(to_document(resource))
    assert isinstance(resource, Site | Model | Deployment | Policy)


@given(documents, st.data())
def test_a_field_that_nobody_knows_is_found_where_it_stands(document: dict[str, object], data: st.DataObject) -> None:
    text = to_yaml(document)
    lines = text.splitlines()
    spots = [index for index, line in enumerate(lines) if line.startswith("  name: ")]
    spot = data.draw(st.sampled_from(spots))
    lines.insert(spot, "  namme: x")
    with pytest.raises(ManifestError, match=rf"f\.yaml:{spot + 1}:3: metadata\.namme: unknown field"):
        parse_manifests("\n".join(lines), "f.yaml")


_ugly = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="[]{}:,-&*!?|>'\"% \t\nab0.~", max_size=120),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    ).map(json.dumps),
)


@settings(max_examples=300)
@given(_ugly, st.sampled_from(["f.yaml", "f.json"]))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str, source: str) -> None:
    try:
        parse_manifests(text, source)
    except ManifestError as error:
        for problem in error.problems:
            assert problem.message
            assert 1 <= problem.line <= len(text.splitlines()) + text.count("\r") + 2


@given(documents, st.data())
def test_any_wrong_value_anywhere_is_refused_and_named(document: dict[str, object], data: st.DataObject) -> None:
    spec = document.get("spec")
    if not isinstance(spec, dict) or not spec:
        return
    field = data.draw(st.sampled_from(sorted(spec)))
    wrong = {**document, "spec": {**spec, field: data.draw(st.sampled_from([17, [["a"]], {"zz": 1}, "!"]))}}
    if field in {"task", "description"} and wrong["spec"][field] == "!":
        return
    with pytest.raises(ManifestError) as caught:
        resource_from_document(wrong)
    assert all(problem.field.startswith("spec") for problem in caught.value.problems)
    assert all(problem.line == 0 for problem in caught.value.problems)
