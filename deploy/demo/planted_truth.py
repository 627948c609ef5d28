"""`[analyses.planted-truth]`: what a run on phantoms estimates, beside what the truth planted in them implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field as Described

from fedage.common.analyses.base import Analysis
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.results import Evaluation
from fedage.common.analyses.of_file import BoolArray, followed_with
from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival.results import CoxResult
from fedage.common.campaign.types import Campaign, Column, Positive, Table
from fedage.common.presentation.blocks import Display, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, Cell, number, words
from fedage.common.presentation.cells import Table as Rows
from fedage.common.record.parts import AnalysisResult, Number, Part, Reference
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.toml.problems import Problem
from fedage.deploy.demo.attenuation import Attenuation

NAME = "planted-truth"
MEAN_OVER_IRREDUCIBLE_MIN = 3.0
MODEL_OVER_IRREDUCIBLE_MAX = 1.6
EVENTS_MIN = 100


class Options(Table):
    """The truth behind phantoms. Only a campaign on phantoms has it, and its report says phantoms."""

    hazard_ratio_per_year: Positive = Described(description="of the true gap")
    gap_sd_years: Positive = Described(description="standard deviation σ of the true gap")
    true_gap: Column = Described(default="true_gap_years", description="outcome column with the true gap")
    irreducible_mae_years: dict[str, Positive] = Described(
        default_factory=dict, description="by site: MAE of the posterior median of age given the biological age"
    )


class Check(Part):
    """One comparison of an estimate with what the planted truth implies."""

    what: str = Described(description="in words")
    found: Number = Described(default=None, description="the run's number")
    against: Number = Described(default=None, description="what it is held against")
    ratio: Number = Described(default=None, description="found / against, where that is the measure")
    wanted: str = Described(default="", description="what would be right, in words")
    holds: bool | None = Described(default=None, description="whether it is; null if it cannot be said")


class PlantedTruth(AnalysisResult):
    """The truth behind phantoms and what it implies for an honest estimate."""

    hazard_ratio_per_year: float = Described(description="of the true gap")
    gap_sd_years: float = Described(description="standard deviation of the true gap")
    irreducible_mae_years: Number = Described(default=None, description="of the best possible reader, all sites")
    irreducible_mae_years_by_site: dict[str, Number] = Described(default_factory=dict, description="the same by site")
    attenuation: dict[str, Number] = Described(
        default_factory=dict, description="by gap column: λ = Cov(ĝ, g)/Var(ĝ), age held fixed"
    )
    expected_hazard_ratio: dict[str, Number] = Described(
        default_factory=dict, description="by gap column: planted hazard ratio to the power λ (1 for the true gap)"
    )
    checks: tuple[Check, ...] = Described(default=(), description="the verdicts")

    def references(self) -> dict[str, Reference]:
        errors = {"": self.irreducible_mae_years, **self.irreducible_mae_years_by_site}
        return {
            "mae_years": Reference("irreducible MAE", "the best possible reader", errors),
            "hazard_ratio": Reference(
                "planted\ntruth\nimplies", "what the planted truth implies", self.expected_hazard_ratio
            ),
        }


def _options(campaign: Campaign) -> Options:
    return campaign.analyses.options(NAME, Options)


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if campaign.survival is None or campaign.estimator is None:
        return
    options = _options(campaign)
    analysis = Attenuation(
        options.hazard_ratio_per_year,
        name=NAME,
        true_gap=options.true_gap,
        time=campaign.survival.time,
        event=campaign.survival.event,
    )
    about = {
        "hazard_ratio_per_year": options.hazard_ratio_per_year,
        "gap_sd_years": options.gap_sd_years,
        "irreducible_mae_years_by_site": options.irreducible_mae_years,
    }
    yield Step(analysis, ("gap_years",), about)


def _problems(campaign: Campaign) -> Iterator[Problem]:
    """Sites that the file does not list."""
    sites, key = campaign.campaign.sites, f"analyses.{NAME}.irreducible_mae_years"
    for site in _options(campaign).irreducible_mae_years if sites else ():
        if site not in sites:
            yield Problem(
                key,
                f"{key}.{site}: must be a site of campaign.sites ({', '.join(sites)}); correct the name or list the "
                "site",
            )


def _asked(campaign: Campaign) -> Iterator[str]:
    yield (
        "It is a campaign on phantoms with a planted truth, not on patients: estimated gaps are compared with the "
        f"column {_options(campaign).true_gap}."
    )


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    yield followed_with(cohort, campaign, (_options(campaign).true_gap, "age_years"))


def _conclude(campaign: Campaign, results: Results) -> dict[str, PlantedTruth]:
    """The planted truth with its checks; also where the sites' sums are missing, with what the file alone implies."""
    options, evaluation = _options(campaign), evaluation_results.evaluation(results)
    by_site = options.irreducible_mae_years
    counts = {site: metrics.n for site, metrics in evaluation.test.raw.by_site.items() if site in by_site}
    total = sum(counts.values())
    irreducible = sum(by_site[site] * n for site, n in counts.items()) / total if total else None
    truth = results.of_type(PlantedTruth).get(NAME) or PlantedTruth(
        hazard_ratio_per_year=options.hazard_ratio_per_year,
        gap_sd_years=options.gap_sd_years,
        irreducible_mae_years_by_site=dict(by_site),
        expected_hazard_ratio={options.true_gap: options.hazard_ratio_per_year},
    )
    checks = _mae_checks(evaluation, irreducible)
    survival = survival_results.survival(results)
    for model in survival.cox if survival else ():
        checks += _hazard_checks(model, truth.expected_hazard_ratio, options.true_gap)
    return {NAME: truth.model_copy(update={"irreducible_mae_years": irreducible, "checks": tuple(checks)})}


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


def _hazard_checks(model: CoxResult, expected: Mapping[str, Number], true_gap: str) -> list[Check]:
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
    truth = results.of_type(PlantedTruth).get(NAME)
    if truth is None:
        return Display()
    irreducible = truth.irreducible_mae_years
    blocks = (Paragraph(_aim(truth), note=False), TitledTable(_verdicts(truth), "Verdicts"))
    return Display(
        sentences=tuple(_sentences(truth)),
        references=() if irreducible is None else ((irreducible, "irreducible"),),
        terminal=("\n".join(_lines(truth)),),
        sections=(Section("planted", "Planted truth against found", blocks, place=90),),
    )


def _aim(truth: PlantedTruth) -> str:
    factors = []
    for column, value in truth.attenuation.items():
        if value is not None:
            implied = truth.expected_hazard_ratio.get(column)
            factors.append(f"{column} λ = {value:.3f}{'' if implied is None else f', so {implied:.3f}'}")
    return (
        f"The phantoms carry a hazard ratio of {truth.hazard_ratio_per_year:g} per year of true gap, and true gaps "
        f"with a standard deviation of {truth.gap_sd_years:g} years. A Cox model on an estimated gap does not aim at "
        f"the planted ratio but at an attenuated one{': ' if factors else ''}{'; '.join(factors)}."
    )


def _verdicts(truth: PlantedTruth) -> Rows:
    verdict = {True: Cell("holds", mark="good"), False: Cell("does not hold", mark="bad"), None: NONE}
    rows = tuple(
        (
            words(check.what),
            number(check.found, 3),
            number(check.against, 3),
            number(check.ratio),
            words(check.wanted),
            verdict[check.holds],
        )
        for check in truth.checks
    )
    why = "The run did not get far enough to compare anything with the planted truth."
    return Rows("planted", ("what", "found", "against", "ratio", "wanted", "verdict"), rows, why_empty=why)


def _sentences(truth: PlantedTruth) -> Iterator[str]:
    decided = [check.holds for check in truth.checks if check.holds is not None]
    if decided:
        undecided = len(truth.checks) - len(decided)
        rest = f" {undecided} could not be asked: too few events." if undecided else ""
        yield f"{sum(decided)} of {len(decided)} comparisons with the planted truth hold.{rest}"


def _lines(truth: PlantedTruth) -> Iterator[str]:
    yield "Held against the planted truth:"
    for check in truth.checks:
        verdict = {True: "yes", False: "NO ", None: "?  "}[check.holds]
        ratio = "" if check.ratio is None else f", ratio {check.ratio:.2f}"
        values = f"{_number(check.found)} against {_number(check.against)}{ratio}"
        yield f"  {verdict}  {check.what}: {values} (wanted: {check.wanted})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


ANALYSIS = Definition(
    name=NAME,
    result=PlantedTruth,
    steps=_steps,
    words=lambda step: "the comparison with the planted truth",  # noqa: ARG005 - there is one
    builds_on=("evaluation", "cox"),
    options=Options,
    phantoms=True,
    needs_in_words="a Cox model on estimated gaps is held against it, so it needs [estimator] and [survival]",
    problems=_problems,
    asked=_asked,
    columns=lambda campaign: (_options(campaign).true_gap,),
    sets=_sets,
    conclude=_conclude,
    shown=_shown,
    place=70,
)
