"""Phantoms only: what was found beside what the planted truth implies."""

from __future__ import annotations

from fedage.common.analyses.definition import Definition
from fedage.common.analyses.planted import ATTENUATION, AttenuationResult
from fedage.common.campaign import Campaign
from fedage.common.record.parts import Check, CoxResult, Evaluation, PlantedTruth
from fedage.common.record.results import Results

MEAN_OVER_IRREDUCIBLE_MIN = 3.0
MODEL_OVER_IRREDUCIBLE_MAX = 1.6
EVENTS_MIN = 100


NAME = "planted-truth"


def _conclude(campaign: Campaign, results: Results) -> dict[str, PlantedTruth]:
    """The planted truth of a campaign that has one, with its checks."""
    planted, evaluation, survival = campaign.planted, results.evaluation, results.survival
    if planted is None:
        return {}
    by_site = dict(planted.irreducible_mae_years)
    counts = {site: metrics.n for site, metrics in evaluation.test.raw.by_site.items() if site in by_site}
    total = sum(counts.values())
    irreducible = sum(by_site[site] * n for site, n in counts.items()) / total if total else None
    step = results.found(AttenuationResult).get(ATTENUATION)
    found = step.gaps if step is not None else {}
    attenuation = {column: gap["attenuation"] for column, gap in found.items() if gap}
    expected = {
        column: ratio
        for column, gap in found.items()
        if gap and (ratio := gap["expected_hazard_ratio_per_year"]) is not None
    }
    expected[planted.true_gap] = planted.hazard_ratio_per_year
    checks = _mae_checks(evaluation, irreducible)
    for model in survival.cox if survival else ():
        checks += _hazard_checks(model, expected, planted.true_gap)
    truth = PlantedTruth(
        hazard_ratio_per_year=planted.hazard_ratio_per_year,
        gap_sd_years=planted.gap_sd_years,
        irreducible_mae_years=irreducible,
        irreducible_mae_years_by_site=dict(by_site),
        attenuation=dict(attenuation),
        expected_hazard_ratio=dict(expected),
        checks=tuple(checks),
    )
    return {NAME: truth}


def _mae_checks(evaluation: Evaluation, irreducible: float | None) -> list[Check]:
    overall = evaluation.test.raw.overall
    if overall is None or overall.mae_years is None or overall.mae_of_mean_years is None or not irreducible:
        return []
    mean, model = overall.mae_of_mean_years / irreducible, overall.mae_years / irreducible
    return [
        Check(
            what="MAE of predicting the mean over the irreducible MAE",
            found=overall.mae_of_mean_years,
            against=irreducible,
            ratio=mean,
            wanted=f"at least {MEAN_OVER_IRREDUCIBLE_MIN:g}",
            # Of a lower bound that is too small nothing follows.
            holds=True if mean >= MEAN_OVER_IRREDUCIBLE_MIN else None if overall.mae_of_mean_at_least else False,
        ),
        Check(
            what="MAE of the model over the irreducible MAE",
            found=overall.mae_years,
            against=irreducible,
            ratio=model,
            wanted=f"at most {MODEL_OVER_IRREDUCIBLE_MAX:g}",
            holds=model <= MODEL_OVER_IRREDUCIBLE_MAX,
        ),
    ]


def _hazard_checks(model: CoxResult, expected: dict[str, float], true_gap: str) -> list[Check]:
    checks = []
    for covariate in model.covariates:
        low, high, truth = covariate.ci95_low, covariate.ci95_high, expected.get(covariate.name)
        if truth is None or low is None or high is None:
            continue
        implied = "the planted hazard ratio" if covariate.name == true_gap else "its attenuated value"
        checks.append(
            Check(
                what=f"{model.model}: hazard ratio per year of {covariate.name}",
                found=covariate.hazard_ratio,
                against=truth,
                wanted=f"an interval that covers {implied}",
                holds=low <= truth <= high,
            )
        )
        if covariate.name != true_gap and model.stratified_by_site:
            enough = (model.events or 0) >= EVENTS_MIN
            checks.append(
                Check(
                    what=f"{model.model}: lower end of the interval",
                    found=low,
                    against=1.0,
                    wanted=f"above 1; {EVENTS_MIN} events are needed to ask for it, here are {model.events}",
                    holds=low > 1.0 if enough else None,
                )
            )
    return checks


ANALYSIS = Definition(
    name=NAME,
    result=PlantedTruth,
    steps=lambda campaign, steps: (),  # noqa: ARG005 - it only concludes
    words=lambda step: "the comparison with the planted truth",  # noqa: ARG005 - there is one
    builds_on=("evaluation", "cox", ATTENUATION),
    conclude=_conclude,
    place=70,
)
