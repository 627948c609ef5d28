"""What an outcome is that a model of age is fine-tuned for: options, columns learnt from and predicted. No torch.

Shape legend: n patients, Y years of risk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import Field, model_validator

from fedage.common.campaign.fields import OUTCOME_PROBABILITY, PREDICTED_SCORE, RISK_YEARS, risk_column
from fedage.common.estimators.base import Estimator, Options, Output, Target
from fedage.common.statistics.cohort import UnusableColumn
from fedage.common.statistics.follow_up_years import by_year, usable_years
from fedage.common.statistics.statistic import FloatArray

OUTCOME_KNOWN = "outcome"
"""What the loss learns from, beside ages: a diagnosis or a score."""


def event_by(year: int) -> str:
    """Name of what the loss learns from: 1 where the event came within so many years, see `by_year`."""
    return f"event by year {year}"


class FineTuneOptions(Options):
    """Options of fine-tuning, beside those of the model of age."""

    outcome: Literal["diagnosis", "risk", "score"] = Field(
        default="diagnosis",
        description="what is learnt: a diagnosis (0 or 1), the risk of an event by year for 5 years, or a score",
    )
    outcome_column: str = Field(
        default="outcome", min_length=1, max_length=200, description="column with the diagnosis or the score"
    )
    time_column: str = Field(
        default="time_years", min_length=1, max_length=200, description="risk: column with the follow-up in years"
    )
    event_column: str = Field(
        default="event", min_length=1, max_length=200, description="risk: column with 1 = event, 0 = censored"
    )
    risk_form: Literal["softmax", "additive-hazard"] = Field(
        default="softmax", description="softmax over years (Mammo-AGE's public code), or Mirai's additive hazard"
    )
    years_after_event: bool = Field(
        default=True,
        description="additive-hazard: count the years after that of the event as known; false as published, which "
        "understates the risk of late years",
    )
    score_range: tuple[float, float] | None = Field(
        default=None, strict=False, description="score: its least and its largest value, which predictions are cut to"
    )
    age_first: bool = Field(
        default=True,
        description="learn age in rounds of its own before; false: rounds begin with training.start_bundle, a bundle "
        "of the estimator of age with the same options",
    )
    frozen: bool = Field(default=False, description="whether the model of age stays as it is and the head alone learns")
    age_weight: float = Field(
        default=0.05,
        ge=0,
        le=100,
        description="weight of the loss of age while the outcome is learnt; with 0, as published, ages are forgotten",
    )
    head_width: int = Field(default=128, ge=8, le=1024, description="second layer of the head; 128 is the published")
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="part of values dropped in the head")

    @model_validator(mode="after")
    def _sound_outcome(self) -> Self:
        given = self.score_range
        if self.outcome == "score" and given is None:
            raise ValueError('score_range must be there with outcome = "score"; add it, e.g. score_range = [0, 30]')
        if self.outcome != "score" and given is not None:
            raise ValueError('score_range has no effect without outcome = "score"; remove it')
        if given is not None and not (np.isfinite(given).all() and given[0] < given[1]):
            raise ValueError(f"score_range={list(given)} must be two finite numbers, the smaller one first")
        if self.outcome != "risk" and self.risk_form != "softmax":
            raise ValueError('risk_form has no effect without outcome = "risk"; remove it')
        if not self.years_after_event and self.risk_form != "additive-hazard":
            raise ValueError('years_after_event = false is for risk_form = "additive-hazard"; remove it')
        return self

    @property
    def targets_of_outcome(self) -> tuple[Target, ...]:
        """Columns of the cohort."""
        if self.outcome == "risk":
            return (Target(column=self.time_column), Target(column=self.event_column, values=(0.0, 1.0)))
        values = (0.0, 1.0) if self.outcome == "diagnosis" else ()
        return (Target(column=self.outcome_column, values=values),)

    @property
    def outputs_of_outcome(self) -> tuple[Output, ...]:
        """Columns predicted, beside those of the model of age."""
        if self.score_range is not None:
            return (Output(column=PREDICTED_SCORE, lower=self.score_range[0], upper=self.score_range[1]),)
        names = (
            [risk_column(year + 1) for year in range(RISK_YEARS)] if self.outcome == "risk" else [OUTCOME_PROBABILITY]
        )
        return tuple(Output(column=name, lower=0.0, upper=1.0) for name in names)

    def learnt_of_outcome(self, columns: Mapping[str, FloatArray], *, minimum_count: int) -> dict[str, FloatArray]:
        """What the loss learns from, (n,) by name, from the columns of the targets; all NaN where it cannot be used.

        Attack: the output of a year of which few had the event, or in which few were censored, learns from them alone,
        as that of a rare class does. Rule: years between which so few had it, or left, are not told apart at a site,
        for none of its patients (`usable_years`). Residual risk: as of any update; a year in which nobody had the event
        is told apart, and one in which few had it is not.

        Raises
        ------
        UnusableColumn
            For scores outside the range that the file states.
        """
        if self.outcome == "risk":
            time, event = columns[self.time_column], columns[self.event_column]
            told = usable_years(time, event, years=RISK_YEARS, minimum_count=minimum_count)
            labels = np.where(told, by_year(time, event, years=RISK_YEARS), np.nan)
            return {event_by(year + 1): labels[:, year] for year in range(RISK_YEARS)}
        values = columns[self.outcome_column]
        if self.score_range is not None:
            low, high = self.score_range
            known = values[np.isfinite(values)]
            if known.size and not (low <= known.min() and known.max() <= high):
                raise UnusableColumn(
                    self.outcome_column,
                    f"has values outside {low:g} to {high:g}, the score_range of the campaign file; correct them, "
                    "leave them out, or ask for another range",
                )
            values = 2 * (values - low) / (high - low) - 1
        return {OUTCOME_KNOWN: values}


@runtime_checkable
class LearnsOutcome(Protocol):
    """An estimator that fine-tunes a model of age."""

    @property
    def of_age(self) -> Estimator:
        """The estimator of the model of age, whose bundle the rounds may begin with."""

    def learnt(self, columns: Mapping[str, FloatArray], *, minimum_count: int) -> dict[str, FloatArray]:
        """What the loss learns from, made of the targets' columns (n,) of the patients trained on.

        Raises `UnusableColumn`.
        """


def begun_by(estimator: Estimator) -> Estimator:
    """The estimator whose bundle `training.start_bundle` may name."""
    return estimator.of_age if isinstance(estimator, LearnsOutcome) else estimator
