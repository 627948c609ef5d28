"""What is compared, as one document: the table, the page and `--json` only show it.

Ages, errors and gaps are in years. A figure that a run does not have is null, and `missing` says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, SkipValidation

from fedage.common.analyses.evaluation.error_curve import CumulativeScores
from fedage.common.analyses.evaluation.errors_text import POOLED_MEAN, loses_to, may_lose
from fedage.common.presentation.blocks import Shown
from fedage.common.record.parts import Number, Part
from fedage.common.record.results import StepResult
from fedage.common.version import __version__
from fedage.server.compare.notes import notes_on
from fedage.server.compare.runs import Run
from fedage.server.compare.settings import SEED, but_for_the_seed, differing
from fedage.server.record.results import Results
from fedage.server.report.rounds import mean_over_folds
from fedage.server.report.shown import compared as compared_by_analyses
from fedage.server.report.shown import figures_of, missing_of


class SiteError(Part):
    """One site's error on its test patients."""

    n: int = Field(description="test patients")
    mae_years_raw: Number = Field(description="as predicted")
    mae_years_corrected: Number = Field(default=None, description="after bias correction")
    mae_of_mean_years: Number = Field(default=None, description="of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(default=False, description="whether that is a lower bound")
    mae_of_site_mean_years: Number = Field(default=None, description="of predicting the site's own mean age")
    may_lose_to: tuple[str, ...] = Field(default=(), description="means of which only a bound is known, which is less")
    loses_to: tuple[str, ...] = Field(default=(), description="the means that do better than the raw predictions")


class ComparedRun(Part):
    """One run's line; analyses add figures of their own under further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    label: str = Field(description="what the comparison calls it")
    campaign: str = Field(description="the campaign's name")
    digest: str = Field(description="SHA-256 of its campaign file")
    run: str = Field(description="the run's id")
    status: str = Field(description="how it ended")
    estimator: str | None = Field(description="the age estimator; null if nothing was trained")
    strategy: str | None = Field(
        description="how updates were aggregated; null without campaign.toml beside the record"
    )
    rounds: int = Field(description="finished rounds of training; with folds those of the longest fold")
    folds: int | None = Field(default=None, description="folds of cross-fitting; null without")
    exact: bool = Field(default=False, description="whether the model is solved from sums, without rounds")
    seed: int = Field(description="the campaign's seed")
    phantoms: bool = Field(description="whether its images are of nobody")
    guard: bool = Field(description="whether disclosure control was on")
    minimum_count: int = Field(description="fewest patients behind any released cell")
    n: int | None = Field(default=None, description="test patients")
    mae_years_raw: Number = Field(default=None, description="as predicted; the primary figure")
    mae_years_corrected: Number = Field(default=None, description="after bias correction")
    mae_of_mean_years: Number = Field(default=None, description="of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(default=False, description="whether that is a lower bound")
    mae_of_site_mean_years: Number = Field(default=None, description="of predicting each site's own mean age")
    cs_5: Number = Field(default=None, description="fraction with an absolute raw error of at most 5 years")
    cs_5_low: Number = Field(default=None, description="lower bound of cs_5; sites tell no count of few patients")
    cs_5_high: Number = Field(default=None, description="upper bound of cs_5")
    pearson_r: Number = Field(default=None, description="of raw predicted and chronological age")
    by_site: dict[str, SiteError] = Field(default_factory=dict, description="the sites that released it")
    validation_mae_years: tuple[tuple[int, float], ...] = Field(
        default=(), description="round and MAE after it; with folds the mean over them"
    )
    error_curve_raw: CumulativeScores | None = Field(default=None, description="cumulative score curve, as predicted")
    error_curve_corrected: CumulativeScores | None = Field(default=None, description="the same after correction")
    analyses: dict[str, StepResult] = Field(default_factory=dict, description="as in the run's record, by step")
    missing: dict[str, str] = Field(default_factory=dict, description="what the run does not have, and why")


class Setting(Part):
    """A key of the campaign files whose value is not the same in all runs."""

    key: str = Field(description="dotted key")
    values: tuple[Any, ...] = Field(description="by run, in the order of `runs`; null where it is not set")


class Repeats(Part):
    """Runs that differ in nothing but the seed."""

    labels: tuple[str, ...] = Field(description="the runs")
    seeds: tuple[int, ...] = Field(description="their seeds")
    mae_years_raw_mean: Number = Field(description="mean of their raw MAEs")
    mae_years_raw_sd: Number = Field(description="standard deviation over the runs, n − 1 degrees of freedom")
    mae_years_raw_lowest: Number = Field(description="smallest")
    mae_years_raw_highest: Number = Field(description="largest")


class Comparison(Part):
    """Runs side by side."""

    schema_version: Literal[1] = 1
    fedage_version: str = Field(description="of this comparison")
    runs: tuple[ComparedRun, ...] = Field(description="in the order given")
    settings: tuple[Setting, ...] = Field(description="what differs between the campaign files at hand")
    repeats: tuple[Repeats, ...] = Field(description="runs over several seeds")
    notes: tuple[str, ...] = Field(description="what can not be compared, and why, in sentences")
    shown: tuple[SkipValidation[Shown], ...] = Field(default=(), exclude=True, repr=False)
    """What each analysis shows of the runs, for table and page."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site with an error in any run, in order of name."""
        return tuple(sorted({site for run in self.runs for site in run.by_site}))


def compare(runs: Sequence[Run]) -> Comparison:
    """Lay runs side by side."""
    compared = tuple(_compared(run) for run in runs)
    with_settings = [run.settings for run in runs if run.settings is not None]
    differ = differing(with_settings) if len(with_settings) > 1 else {}
    spread = {key: iter(values) for key, values in differ.items()}
    return Comparison(
        fedage_version=__version__,
        runs=compared,
        settings=tuple(
            Setting(key=key, values=tuple(next(values) if run.settings is not None else None for run in runs))
            for key, values in spread.items()
        ),
        repeats=tuple(_repeats(runs)),
        notes=tuple(notes_on(runs)),
        shown=tuple(compared_by_analyses(runs)),
    )


def _compared(run: Run) -> ComparedRun:
    results, test = run.results, run.results.evaluation.test
    raw, corrected = test.raw.overall, test.corrected.overall
    strategy = run.settings.get("training.strategy") if run.settings is not None else None
    return ComparedRun(
        label=run.label,
        campaign=results.campaign.name,
        digest=results.campaign.digest,
        run=results.run.id,
        status=results.run.status,
        estimator=results.campaign.estimator or None,
        strategy=strategy if isinstance(strategy, str) else None,
        rounds=max((item.number for item in results.rounds), default=0),
        folds=results.campaign.folds,
        exact=results.solved_exactly,
        seed=results.campaign.seed,
        phantoms=results.phantoms,
        guard=results.run.guard,
        minimum_count=results.campaign.minimum_count,
        n=raw.n if raw else None,
        mae_years_raw=raw.mae_years if raw else None,
        mae_years_corrected=corrected.mae_years if corrected else None,
        mae_of_mean_years=raw.mae_of_mean_years if raw else None,
        mae_of_mean_at_least=raw.mae_of_mean_at_least if raw else False,
        mae_of_site_mean_years=raw.mae_of_site_mean_years if raw else None,
        cs_5=raw.cs_5 if raw else None,
        cs_5_low=raw.cs_5_low if raw else None,
        cs_5_high=raw.cs_5_high if raw else None,
        pearson_r=raw.pearson_r if raw else None,
        by_site=_by_site(results),
        validation_mae_years=tuple(mean_over_folds(results.rounds, lambda item: item.validation_mae_years)),
        error_curve_raw=results.figures.error_curve_raw,
        error_curve_corrected=results.figures.error_curve_corrected,
        analyses=results.analyses,
        missing=_missing(run) | missing_of(results),
        **figures_of(results),
    )


def _by_site(results: Results) -> dict[str, SiteError]:
    raw, corrected = results.evaluation.test.raw.by_site, results.evaluation.test.corrected.by_site
    return {
        site: SiteError(
            n=found.n,
            mae_years_raw=found.mae_years,
            mae_years_corrected=corrected[site].mae_years if site in corrected else None,
            mae_of_mean_years=found.mae_of_mean_years,
            mae_of_mean_at_least=found.mae_of_mean_at_least,
            mae_of_site_mean_years=found.mae_of_site_mean_years,
            may_lose_to=(POOLED_MEAN,) if may_lose(found) else (),
            loses_to=loses_to(found),
        )
        for site, found in sorted(raw.items())
    }


def _missing(run: Run) -> dict[str, str]:
    """The parts a run does not have, by name, each with the reason its record gives."""
    results, figures, test = run.results, run.results.figures, run.results.evaluation.test
    curve = "the record has no such curve (written before there was one)"
    none = {
        "settings": None if run.settings is not None else run.why_no_settings,
        "rounds": None if results.rounds else _why_no_rounds(results),
        "test error, raw": None if test.raw.overall else test.raw.not_computed or "no site released it",
        "test error, corrected": None
        if test.corrected.overall
        else test.corrected.not_computed or "no site released it",
        "CS curve, raw": None if figures.error_curve_raw else figures.not_computed.get("error_curve_raw", curve),
        "CS curve, corrected": None
        if figures.error_curve_corrected
        else figures.not_computed.get("error_curve_corrected", curve),
    }
    return {part: reason for part, reason in none.items() if reason is not None}


def _why_no_rounds(results: Results) -> str:
    if not results.campaign.estimator:
        return "the campaign only analyses"
    return "the model is solved exactly from sums" if results.solved_exactly else "no round of training was finished"


def _repeats(runs: Sequence[Run]) -> list[Repeats]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        if run.settings is not None and run.results.evaluation.test.raw.overall is not None:
            groups.setdefault(but_for_the_seed(run.settings), []).append(run)
    found = []
    for group in groups.values():
        errors = [run.results.evaluation.test.raw.overall.mae_years for run in group]  # type: ignore[union-attr]
        known = [error for error in errors if error is not None]
        if len({run.settings[SEED] for run in group if run.settings}) < 2 or len(known) < len(group):
            continue
        found.append(
            Repeats(
                labels=tuple(run.label for run in group),
                seeds=tuple(run.results.campaign.seed for run in group),
                mae_years_raw_mean=statistics.fmean(known),
                mae_years_raw_sd=statistics.stdev(known),
                mae_years_raw_lowest=min(known),
                mae_years_raw_highest=max(known),
            )
        )
    return found
