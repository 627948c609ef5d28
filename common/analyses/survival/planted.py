"""Phantoms only: what a Cox model on an estimated gap should find, given the true gap that was planted.

Notation: g true gap, ĝ estimated gap, Ω age, in years. If the log hazard rises by β per year of g, and g given (ĝ, Ω)
has mean λĝ + …, then to first order the log hazard rises by λβ per year of ĝ at fixed age (regression calibration,
Prentice 1982): the planted hazard ratio to the power λ. Sums are centred within each site, as a model stratified by
site compares within sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses._of_file import BoolArray, followed_with
from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, Outcome, Result, check_iterate
from fedage.common.analyses.columns import MAX_AGE_YEARS, MAX_GAP_YEARS, MAX_PATIENTS
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.survival._follow_up import followed
from fedage.common.analyses.survival._partial_likelihood import pack, unpack
from fedage.common.campaign.types import Campaign
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

_BOUND = (2 * max(MAX_AGE_YEARS, MAX_GAP_YEARS)) ** 2  # of a product of two centred values


@dataclass(frozen=True)
class Attenuation:
    """The attenuation factor λ of each estimated gap, on the patients of the survival analyses.

    Result: `n`, `left_out`, `planted_hazard_ratio_per_year`, and `gaps`: for each estimated gap its `attenuation` λ,
    `correlation_given_age` of ĝ and g, and `expected_hazard_ratio_per_year` HR^λ.

    Parameters
    ----------
    hazard_ratio_per_year
        The planted one, of the true gap.
    name
        The registered step.
    true_gap
        Column with g.
    gaps
        Columns with estimated gaps.
    time, event, subset
        As for the Cox models, so that the patients are the same.
    """

    hazard_ratio_per_year: float
    _: KW_ONLY
    name: str = "attenuation"
    true_gap: str = "true_gap_years"
    gaps: tuple[str, ...] = ("gap_years", "cole_gap_years")
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    per_site: bool = False

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        check_iterate(iterate, {}, bound=0.0)

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        m = 2 + len(self.gaps)
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("cross", (m * (m + 1) // 2,), lower=-_BOUND * MAX_PATIENTS, upper=_BOUND * MAX_PATIENTS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        columns = (self.true_gap, "age_years", *self.gaps)
        patients = followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=columns)
        values = patients.cohort.matrix(columns)
        if patients.n:
            values = values - values.mean(axis=0)
        return Statistic.of(
            self.layout(iterate),
            {"n": patients.n, **left_out_values(patients.left_out), "cross": pack(values.T @ values)},
            [Cell(patients.n, "patients with a true and an estimated gap")],
        )

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        needed = (self.true_gap, "age_years", *self.gaps)
        patients = followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=needed)
        return columns_read(patients.cohort, needed=needed)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        columns = (self.true_gap, "age_years", *self.gaps)
        patients = followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=columns)
        return [
            group_of(
                {column: patients.cohort[column] for column in columns},
                of="the patients with a true and an estimated gap",
            )
        ]

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n, cross = total.scalar("n"), unpack(total["cross"], 2 + len(self.gaps))
        if n < 4:
            return NotComputable(f"attenuation needs at least 4 patients with a true and an estimated gap, not {n:.0f}")
        gaps: dict[str, Result | None] = {
            column: self._of_gap(cross[np.ix_((0, 1, k), (0, 1, k))]) for k, column in enumerate(self.gaps, start=2)
        }
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "planted_hazard_ratio_per_year": self.hazard_ratio_per_year,
                "gaps": gaps,
            }
        )

    def _of_gap(self, cross: FloatArray) -> Result | None:
        """λ and r from the centred cross products (3, 3) of (g, Ω, ĝ); None if one of them does not vary."""
        if cross[1, 1] <= 0:
            return None
        given_age = cross - np.outer(cross[1], cross[1]) / cross[1, 1]
        if min(given_age[0, 0], given_age[2, 2]) <= 1e-12 * cross[1, 1]:
            return None
        attenuation = given_age[0, 2] / given_age[2, 2]
        return {
            "attenuation": float(attenuation),
            "correlation_given_age": float(given_age[0, 2] / np.sqrt(given_age[0, 0] * given_age[2, 2])),
            "expected_hazard_ratio_per_year": float(self.hazard_ratio_per_year**attenuation),
        }


ATTENUATION = "attenuation"


class AttenuationResult(AnalysisResult):
    """By how much an estimated gap attenuates the planted hazard ratio."""

    planted_hazard_ratio_per_year: float = Described(description="of the true gap")
    gaps: dict[str, dict[str, Number] | None] = Described(
        description="by column of an estimated gap: λ, its correlation with the true gap given age, and what follows"
    )


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    planted, survival = campaign.planted, campaign.survival
    if planted is not None and survival is not None:
        analysis = Attenuation(
            planted.hazard_ratio_per_year,
            true_gap=planted.true_gap,
            time=survival.time,
            event=survival.event,
        )
        yield Step(analysis, ("gap_years",))


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    if campaign.planted is not None and campaign.survival is not None:
        yield followed_with(cohort, campaign, (campaign.planted.true_gap, "age_years"))


ANALYSIS = Definition(
    name=ATTENUATION,
    result=AttenuationResult,
    steps=_steps,
    words=lambda step: "the comparison with the planted truth",  # noqa: ARG005 - there is one
    sets=_sets,
    place=43,
)
