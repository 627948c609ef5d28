"""Whether the SD that a model states of its predicted ages is that of its errors.

Notation: Ω chronological and ŷ predicted age, s the predicted SD, z = |ŷ − Ω| / s. Errors that are normal with SD s
are within 1, 2 and 3 s for 68.3, 95.4 and 99.7 % of patients. A grid cell holds the patients with t − 1 < z ≤ t, the
last one those beyond 3; who has an SD of 0 and any error is beyond.

As on the error curve, a site joins neighbouring cells until nobody stands alone in one, so shares lie between bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_AGE_YEARS, MAX_GAP_YEARS, MAX_PATIENTS, in_subset, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation.error_curve import join_cells
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Display
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "predicted-sd"
COLUMN = "predicted_sd_years"
WITHIN_SDS = (1.0, 2.0, 3.0)
NORMAL_SHARES = (0.6827, 0.9545, 0.9973)


class PredictedSDs(AnalysisResult):
    """Shares of patients whose error is at most so many predicted SDs, without small cells."""

    n: int | None = Described(default=None, description="patients")
    mean_sd_years: Number = Described(default=None, description="mean of the predicted SDs")
    within_sds: tuple[float, ...] = Described(description="how many predicted SDs, rising")
    share_low: tuple[Number, ...] = Described(description="lower bound of the share of patients within them")
    share_high: tuple[Number, ...] = Described(description="upper bound of that share")
    normal_shares: tuple[float, ...] = Described(description="what they are of normal errors with the predicted SDs")


@dataclass(frozen=True)
class PredictedSDCalibration(OneExchange):
    """See the head of this file. Result: `PredictedSDs`, and `left_out` (a value missing or out of range)."""

    name: str = NAME
    subset: str = "is_test"
    minimum_count: int = 1
    healthy_only: bool = False
    per_site: bool = True

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        def counts(name: str, *shape: int) -> Field:
            return Field(name, shape, lower=0.0, upper=MAX_PATIENTS, whole=True)

        at = len(WITHIN_SDS)
        spread = Field("sd", lower=0.0, upper=MAX_AGE_YEARS * MAX_PATIENTS)
        return Layout((counts("n"), *left_out_fields(), counts("low", at), counts("high", at), spread))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._judged(cohort)
        error, sd = np.abs(kept["predicted_years"] - kept["age_years"]), kept[COLUMN]
        grid_cell = np.searchsorted(np.asarray(WITHIN_SDS), _in_sds(error, sd), side="left")
        counts = np.bincount(grid_cell, minlength=len(WITHIN_SDS) + 1).astype(np.int64)
        low, high = np.zeros(counts.size), np.zeros(counts.size)
        cells = []
        for first, end in join_cells(counts, self.minimum_count):
            patients = int(counts[first:end].sum())
            cells.append(Cell(patients, "patients with errors of one range of predicted SDs"))
            low[end - 1], high[first] = patients, patients
        values: dict[str, FloatArray | float] = {"n": kept.n, **left_out_values(left_out), "sd": float(sd.sum())}
        values |= {"low": np.cumsum(low)[:-1], "high": np.cumsum(high)[:-1]}
        return Statistic.of(self.layout(iterate), values, [Cell(kept.n, "patients with a predicted SD"), *cells])

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        """The predicted SDs, whose mean is told."""
        kept, _ = self._judged(cohort)
        return [group_of({"predicted SD": kept[COLUMN]}, of="the patients with a predicted SD")]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._judged(cohort)[0], needed=("age_years", "predicted_years", COLUMN))

    def _judged(self, cohort: Cohort) -> tuple[Cohort, int]:
        """The patients with an age, a plausible prediction and its SD, and how many had to be left out."""
        chosen = in_subset(cohort, self.subset, healthy_only=self.healthy_only)
        kept, left_out = usable(chosen, ("age_years", "predicted_years", COLUMN))
        error = np.abs(kept["predicted_years"] - kept["age_years"])
        plausible = (error <= MAX_GAP_YEARS) & (kept[COLUMN] >= 0) & (kept[COLUMN] <= MAX_AGE_YEARS)
        return kept.where(plausible), left_out + int(np.count_nonzero(~plausible))

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = total.scalar("n")
        if n < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {COLUMN}")
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "mean_sd_years": total.scalar("sd") / n,
                "within_sds": list(WITHIN_SDS),
                "share_low": (total["low"] / n).tolist(),
                "share_high": (total["high"] / n).tolist(),
                "normal_shares": list(NORMAL_SHARES),
            }
        )


def _in_sds(error: FloatArray, sd: FloatArray) -> FloatArray:
    """Errors (n,) in predicted SDs; of an SD of 0, 0 for no error and else infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, error / sd, 0.0)


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if COLUMN in campaign.predicted_columns:
        healthy = campaign.cohort.train_on == "healthy"
        yield Step(
            PredictedSDCalibration(minimum_count=campaign.cell_minimum, healthy_only=healthy),
            ("predicted_years",),
        )


def _shown(results: Results) -> Display:
    result, _ = results.outcome(NAME, PredictedSDs)
    if result is None:
        return Display()
    parts = [
        f"{_between(low, high)} within {within:g} ({normal:.0%} if errors were normal)".replace("%", " %")
        for within, low, high, normal in zip(
            result.within_sds[:2], result.share_low, result.share_high, result.normal_shares, strict=False
        )
    ]
    mean = "" if result.mean_sd_years is None else f" of {result.mean_sd_years:.1f} years on average"
    return Display(sentences=(f"The model states an SD{mean}; of the errors, {parts[0]} SD and {parts[1]} SDs.",))


def _between(low: Number, high: Number) -> str:
    if low is None or high is None:
        return "an unknown share is"
    if high - low < 0.005:
        return f"{low:.0%} are"
    return f"{low:.0%} to {high:.0%} are"


ANALYSIS = Definition(
    name=NAME,
    result=PredictedSDs,
    steps=_steps,
    words=lambda step: "the calibration of predicted SDs",  # noqa: ARG005 - there is one
    shown=_shown,
    place=33,
)
