"""Phantoms only: what was found beside what the planted truth implies."""

from __future__ import annotations

from fedage.common.analyses.definition import Definition
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.results import Evaluation
from fedage.common.analyses.planted_results import Check, PlantedTruth, truth_of
from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival.planted import ATTENUATION, AttenuationResult
from fedage.common.analyses.survival.results import CoxResult
from fedage.common.campaign import Campaign
from fedage.common.presentation.blocks import Display, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, Table, number, words
from fedage.common.record.results import Results

MEAN_OVER_IRREDUCIBLE_MIN = 3.0
MODEL_OVER_IRREDUCIBLE_MAX = 1.6
EVENTS_MIN = 100


NAME = "planted-truth"


def _conclude(campaign: Campaign, results: Results) -> dict[str, PlantedTruth]:
    """The planted truth of a campaign that has one, with its checks."""
    planted, evaluation, survival = (
        campaign.planted,
        evaluation_results.evaluation(results),
        survival_results.survival(results),
    )
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


def _shown(results: Results) -> Display:
    found = truth_of(results)
    if found is None and not results.phantoms:
        return Display()
    blocks: tuple[Paragraph | TitledTable, ...] = (TitledTable(planted(results), "Verdicts"),)
    if found is not None:
        blocks = (Paragraph(_aim(found), note=False), *blocks)
    irreducible = None if found is None else found.irreducible_mae_years
    return Display(
        sentences=tuple(_truth(results)),
        references=() if irreducible is None else ((irreducible, "irreducible"),),
        terminal=(_checks(results),) if found is not None else (),
        sections=(Section(NAME.partition("-")[0], "Planted truth against found", blocks, place=90),),
    )


def _aim(found: PlantedTruth) -> str:
    told = []
    for column, value in found.attenuation.items():
        if value is not None:
            implied = found.expected_hazard_ratio.get(column)
            told.append(f"{column} λ = {value:.3f}{'' if implied is None else f', so {implied:.3f}'}")
    return (
        f"The phantoms carry a hazard ratio of {found.hazard_ratio_per_year:g} per year of true gap, and true gaps "
        f"with a standard deviation of {found.gap_sd_years:g} years. A Cox model on an estimated gap does not aim at "
        f"the planted ratio but at an attenuated one{': ' if told else ''}{'; '.join(told)}."
    )


def planted(results: Results) -> Table:
    """What was found, against what the planted truth implies."""
    verdict = {True: Cell("holds", mark="good"), False: Cell("does not hold", mark="bad"), None: NONE}
    truth = truth_of(results)
    rows = tuple(
        (
            words(check.what),
            number(check.found, 3),
            number(check.against, 3),
            number(check.ratio),
            words(check.wanted),
            verdict[check.holds],
        )
        for check in (truth.checks if truth is not None else ())
    )
    why = "Nothing was planted in this run, so there is no truth to hold it against."
    if truth is not None:
        why = "The run did not get far enough to compare anything with the planted truth."
    return Table("planted", ("what", "found", "against", "ratio", "wanted", "verdict"), rows, why_empty=why)


def _truth(results: Results) -> list[str]:
    truth = truth_of(results)
    if truth is None:
        return []
    checks = truth.checks
    decided = [check.holds for check in checks if check.holds is not None]
    if not decided:
        return []
    open_ = len(checks) - len(decided)
    rest = f" {open_} could not be asked: too few events." if open_ else ""
    return [f"{sum(decided)} of {len(decided)} comparisons with the planted truth hold.{rest}"]


def _checks(results: Results) -> str:
    lines = ["Held against the planted truth:"]
    truth = truth_of(results)
    for check in truth.checks if truth is not None else ():
        verdict = {True: "yes", False: "NO ", None: "?  "}[check.holds]
        ratio = "" if check.ratio is None else f", ratio {check.ratio:.2f}"
        found = f"{_number(check.found)} against {_number(check.against)}{ratio}"
        lines.append(f"  {verdict}  {check.what}: {found} (wanted: {check.wanted})")
    return "\n".join(lines)


def _number(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


ANALYSIS = Definition(
    name=NAME,
    result=PlantedTruth,
    steps=lambda campaign, steps: (),  # noqa: ARG005 - it only concludes
    words=lambda step: "the comparison with the planted truth",  # noqa: ARG005 - there is one
    builds_on=("evaluation", "cox", ATTENUATION),
    conclude=_conclude,
    shown=_shown,
    place=70,
)
