"""The truth planted in phantoms is an analysis like others: what it asks of a file, gives to others and concludes."""

from typing import Any

import pytest

from fedage.common.analyses import plan
from fedage.common.campaign_file import parse_campaign
from fedage.common.record.parts import AnalysisResult, Reference
from fedage.common.toml.problems import CampaignErrors
from fedage.deploy.demo.planted_truth import ANALYSIS, PlantedTruth
from fedage.server.record.results import Results
from tests.server.report.conftest import example_values

BASE = """
[campaign]
name = "phantoms"
purpose = "Show what was planted"
seed = 1
sites = ["north", "south", "west"]
[estimator]
name = "chest-ca"
[training]
rounds = 1
"""
PLANTED = "[analyses.planted-truth]\nhazard_ratio_per_year = 1.2\ngap_sd_years = 3.5\n"
ERRORS = "[analyses.planted-truth.irreducible_mae_years]\n"
SURVIVAL = "[survival]\n"


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (PLANTED, "[analyses.planted-truth] has nothing to compute: a Cox model on estimated gaps is held against it"),
        (f"{SURVIVAL}{PLANTED}{ERRORS}east = 3\n", "east: must be a site of campaign.sites (north, south, west)"),
        (f"{SURVIVAL}{PLANTED}{ERRORS}north = 3\nsouht = 3\n", "irreducible_mae_years.souht: must be a site"),
        (f"{SURVIVAL}{PLANTED}{ERRORS}north = -3\n", "analyses.planted-truth.irreducible_mae_years.north = -3"),
        (SURVIVAL + PLANTED.replace("1.2", "0"), "analyses.planted-truth.hazard_ratio_per_year = 0: must be > 0"),
        (SURVIVAL + PLANTED + "true_gap = ' a'\n", "analyses.planted-truth.true_gap"),
        (SURVIVAL + "[planted]\nhazard_ratio_per_year = 1.2\n", "did you mean [analyses.planted-truth]?"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(tables: str, says: str) -> None:
    with pytest.raises(CampaignErrors) as refused:
        parse_campaign(BASE + tables)
    assert says in str(refused.value)


def test_only_a_campaign_that_asks_for_it_is_on_phantoms() -> None:
    assert not plan.on_phantoms(parse_campaign(BASE + SURVIVAL))
    planted = parse_campaign(BASE + SURVIVAL + PLANTED)
    assert plan.on_phantoms(planted)
    assert "true_gap_years" in ANALYSIS.columns(planted)
    assert "phantoms" in " ".join(ANALYSIS.asked(planted))


def of_a_run(sums: dict[str, Any] | None) -> Results:
    values = example_values()
    values.pop("planted")
    about = {"hazard_ratio_per_year": 1.2, "gap_sd_years": 3.5, "irreducible_mae_years_by_site": {"north": 2.5}}
    step = {"analysis": "planted-truth", "about": about, "result": None if sums is None else {**about, **sums}}
    return Results.model_validate({**values, "analyses": {"planted-truth": step}})


def test_what_it_concludes_with_the_sums_of_the_sites_and_without() -> None:
    campaign = parse_campaign(BASE + SURVIVAL + PLANTED + ERRORS + "north = 2.5\n")
    ratios = {"true_gap_years": 1.2, "gap_years": 1.138}
    sums = {"n": 204, "attenuation": {"gap_years": 0.71}, "expected_hazard_ratio": ratios}
    full = ANALYSIS.conclude(campaign, of_a_run(sums))["planted-truth"]
    assert isinstance(full, PlantedTruth)
    assert full.irreducible_mae_years == 2.5
    assert full.expected_hazard_ratio == ratios
    # Two of the errors, three models on an estimated gap (a lower end where stratified by site), one on the true gap.
    assert [check.holds for check in full.checks] == [True, True, True, True, True, True]

    alone = ANALYSIS.conclude(campaign, of_a_run(None))["planted-truth"]
    assert isinstance(alone, PlantedTruth)
    assert alone.expected_hazard_ratio == {"true_gap_years": 1.2}
    assert alone.attenuation == {}
    assert [check.what for check in alone.checks][2:] == ["true-gap: hazard ratio per year of true_gap_years"]


def test_others_show_its_values_beside_their_figures_and_know_no_phantoms() -> None:
    results = Results.model_validate(example_values())
    errors, ratios = results.reference("mae_years"), results.reference("hazard_ratio")
    assert errors is not None
    assert ratios is not None
    assert errors.values == {"": 2.58, "north": 2.61, "south": 2.57, "west": 2.55}
    assert ratios.values["cole_gap_years"] == 1.101
    assert results.reference("pearson_r") is None
    assert AnalysisResult().references() == {}
    assert Reference("a heading", "words", {}).values.get("north") is None
