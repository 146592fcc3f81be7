"""Rules over classes of sites say exactly what the rules themselves say, for every pair of sites and every model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.planning.classes import closing, compiled
from nearcast.planning.residency import refusals
from nearcast.resources.plan import ResidencyRule, SiteFacts

NAMES = [f"s{n}" for n in range(5)]
COUNTRIES = ["DE", "FR", "US"]
MODELS = ["a", "b"]


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


site_lists = st.lists(
    st.builds(
        lambda country, groups: SiteFacts(name="", tier="edge", country=country, jurisdictions=groups),
        st.sampled_from(COUNTRIES),
        some(["EU", "X"]),
    ),
    min_size=1,
    max_size=len(NAMES),
).map(
    lambda sites: [
        SiteFacts(name=NAMES[n], tier="edge", country=site.country, jurisdictions=site.jurisdictions)
        for n, site in enumerate(sites)
    ]
)
rules_lists = st.lists(
    st.builds(
        ResidencyRule,
        policy=st.sampled_from(["p", "q", "r"]),
        models=some(MODELS),
        origin_sites=some(NAMES),
        origin_countries=some(COUNTRIES),
        origin_jurisdictions=some(["EU", "X"]),
        allow_sites=some(NAMES),
        allow_countries=some(COUNTRIES),
        allow_jurisdictions=some(["EU", "X"]),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(site_lists, rules_lists)
def test_classes_say_what_rules_say(sites: list[SiteFacts], rules: list[ResidencyRule]) -> None:
    classes = compiled(sites, MODELS, rules)
    for model in MODELS:
        may = classes.may[classes.rule_set[model]]
        closed = classes.is_closed(model)
        for n, origin in enumerate(sites):
            for m, place in enumerate(sites):
                allowed = not refusals(rules, model, origin, place)
                assert may[classes.site_class[n], classes.site_class[m]] == allowed, (model, origin, place)
        for m, place in enumerate(sites):
            shut = all(refusals(rules, model, origin, place) for origin in sites)
            assert closed[classes.site_class[m]] == shut
            assert bool(closing(classes, rules, model, place)) == shut
