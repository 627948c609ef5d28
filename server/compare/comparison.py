"""What is compared, as one document: the table, the page and `--json` only show it.

Ages, errors and gaps are in years. A figure that a run does not have is null, and `missing` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, SkipValidation

from fedage.common.presentation.blocks import Display
from fedage.common.record.parts import Part
from fedage.common.version import __version__
from fedage.server.compare.notes import notes_on
from fedage.server.compare.runs import Run
from fedage.server.compare.settings import differing
from fedage.server.record.results import Results, StepResult
from fedage.server.report.rounds import mean_over_folds
from fedage.server.report.shown import compared as compared_by_analyses
from fedage.server.report.shown import figures_of, missing_of


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
    validation_mae_years: tuple[tuple[int, float], ...] = Field(
        default=(), description="round and MAE after it; with folds the mean over them"
    )
    analyses: dict[str, StepResult] = Field(default_factory=dict, description="as in the run's record, by step")
    missing: dict[str, str] = Field(default_factory=dict, description="what the run does not have, and why")


class Setting(Part):
    """A key of the campaign files whose value is not the same in all runs."""

    key: str = Field(description="dotted key")
    values: tuple[Any, ...] = Field(description="by run, in the order of `runs`; null where it is not set")


class Comparison(Part):
    """Runs side by side; analyses add further keys of their own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: Literal[1] = 1
    fedage_version: str = Field(description="of this comparison")
    runs: tuple[ComparedRun, ...] = Field(description="in the order given")
    settings: tuple[Setting, ...] = Field(description="what differs between the campaign files at hand")
    notes: tuple[str, ...] = Field(description="what can not be compared, and why, in sentences")
    shown: tuple[SkipValidation[Display], ...] = Field(default=(), exclude=True, repr=False)
    """What each analysis shows of the runs, for table and page."""


def compare(runs: Sequence[Run]) -> Comparison:
    """Lay runs side by side."""
    compared = tuple(_compared(run) for run in runs)
    with_settings = [run.settings for run in runs if run.settings is not None]
    differ = differing(with_settings) if len(with_settings) > 1 else {}
    shown = tuple(compared_by_analyses(runs))
    spread = {key: iter(values) for key, values in differ.items()}
    return Comparison(
        fedage_version=__version__,
        runs=compared,
        settings=tuple(
            Setting(key=key, values=tuple(next(values) if run.settings is not None else None for run in runs))
            for key, values in spread.items()
        ),
        notes=tuple(notes_on(runs, [note for each in shown for note in each.notes])),
        shown=shown,
        **{key: value for each in shown for key, value in each.document.items()},
    )


def _compared(run: Run) -> ComparedRun:
    results = run.results
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
        validation_mae_years=tuple(mean_over_folds(results.rounds, lambda item: item.validation_mae_years)),
        analyses=results.analyses,
        missing=_missing(run) | missing_of(results),
        **figures_of(results),
    )


def _missing(run: Run) -> dict[str, str]:
    """The parts a run does not have, by name, each with the reason its record gives."""
    none = {
        "settings": None if run.settings is not None else run.why_no_settings,
        "rounds": None if run.results.rounds else _why_no_rounds(run.results),
    }
    return {part: reason for part, reason in none.items() if reason is not None}


def _why_no_rounds(results: Results) -> str:
    if not results.campaign.estimator:
        return "the campaign only analyses"
    return "the model is solved exactly from sums" if results.solved_exactly else "no round of training was finished"
