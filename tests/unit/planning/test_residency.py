"""Residency binds by model and origin, policies bind together, and what matches nothing forbids nothing."""

from nearcast.planning.residency import refusals
from nearcast.resources.plan import ResidencyRule, SiteFacts

FRANKFURT = SiteFacts(name="frankfurt", tier="edge", country="DE", jurisdictions=("EEA", "EU"))
PARIS = SiteFacts(name="paris", tier="edge", country="FR", jurisdictions=("EEA", "EU"))
ASHBURN = SiteFacts(name="ashburn", tier="edge", country="US")
EU_ONLY = ResidencyRule(policy="eu-only", models=("magika",), allow_jurisdictions=("EU",))


def test_a_place_outside_is_refused_by_name_of_the_policy() -> None:
    assert refusals([EU_ONLY], "magika", FRANKFURT, ASHBURN) == ("eu-only",)
    assert refusals([EU_ONLY], "magika", ASHBURN, PARIS) == ()


def test_another_model_is_not_bound() -> None:
    assert refusals([EU_ONLY], "minilm", FRANKFURT, ASHBURN) == ()


def test_a_rule_without_models_binds_all() -> None:
    rule = ResidencyRule(policy="germany", allow_countries=("DE",))
    assert refusals([rule], "anything", ASHBURN, PARIS) == ("germany",)


def test_a_rule_for_an_origin_binds_only_what_enters_there() -> None:
    rule = ResidencyRule(policy="eu-stays", origin_jurisdictions=("EU",), allow_jurisdictions=("EU",))
    assert refusals([rule], "magika", FRANKFURT, ASHBURN) == ("eu-stays",)
    assert refusals([rule], "magika", ASHBURN, ASHBURN) == ()


def test_policies_bind_together() -> None:
    germany = ResidencyRule(policy="germany", allow_sites=("frankfurt",))
    assert refusals([germany, EU_ONLY], "magika", FRANKFURT, PARIS) == ("germany",)
    assert refusals([germany, EU_ONLY], "magika", FRANKFURT, ASHBURN) == ("eu-only", "germany")
    assert refusals([germany, EU_ONLY], "magika", FRANKFURT, FRANKFURT) == ()
