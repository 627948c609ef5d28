"""What a Cox model on an estimated gap should find, given the true gap that was planted.

Notation: g true gap, ĝ estimated gap, Ω age, in years. If the log hazard rises by β per year of g, and g given (ĝ, Ω)
has mean λĝ + …, then to first order the log hazard rises by λβ per year of ĝ at fixed age (regression calibration,
Prentice 1982): the planted hazard ratio to the power λ. Sums are centred within each site, as a model stratified by
site compares within sites.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np

from fedage.common.analyses.base import Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_AGE_YEARS, MAX_GAP_YEARS, MAX_PATIENTS
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.survival.follow_up import FollowedPatients, followed
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

_BOUND = (2 * max(MAX_AGE_YEARS, MAX_GAP_YEARS)) ** 2  # of a product of two centred values
_WHO = "patients with a true and an estimated gap"


@dataclass(frozen=True)
class Attenuation(OneExchange):
    """The attenuation factor λ of each estimated gap, on the patients of the survival analyses.

    Result: `n`, `left_out`, and by column of a gap `attenuation` λ, `correlation_given_age` of ĝ and g, and
    `expected_hazard_ratio` HR^λ (HR for the true gap). A gap that does not vary at fixed age is in none of them.

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
    name: str = "planted-truth"
    true_gap: str = "true_gap_years"
    gaps: tuple[str, ...] = ("gap_years", "cole_gap_years")
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    per_site: bool = False

    @property
    def _columns(self) -> tuple[str, ...]:
        return self.true_gap, "age_years", *self.gaps

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        m, most = len(self._columns), _BOUND * MAX_PATIENTS
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("cross", (m, m), lower=-most, upper=most),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = self._patients(cohort)
        values = patients.cohort.matrix(self._columns)
        if patients.n:
            values = values - values.mean(axis=0)
        return Statistic.of(
            self.layout(iterate),
            {"n": patients.n, **left_out_values(patients.left_out), "cross": values.T @ values},
            [Cell(patients.n, _WHO)],
        )

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._patients(cohort).cohort, needed=self._columns)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        values = self._patients(cohort).cohort.matrix(self._columns)
        none = np.empty((len(values), 0))
        return [Group(of=f"the {_WHO}", columns=none, always=values, names_always=self._columns)]

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n, cross = total.scalar("n"), total["cross"]
        if n < 4:
            return NotComputable(f"attenuation needs at least 4 {_WHO}, not {n:.0f}")
        factors, correlations = {}, {}
        for k, column in enumerate(self.gaps, start=2):
            found = _of_gap(cross[np.ix_((0, 1, k), (0, 1, k))])
            if found is not None:
                factors[column], correlations[column] = found
        ratio = self.hazard_ratio_per_year
        return Done(
            {
                "n": round(n),
                **left_out_result(total),
                "attenuation": factors,
                "correlation_given_age": correlations,
                "expected_hazard_ratio": {self.true_gap: ratio}
                | {column: float(ratio**factor) for column, factor in factors.items()},
            }
        )

    def _patients(self, cohort: Cohort) -> FollowedPatients:
        return followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=self._columns)


def _of_gap(cross: FloatArray) -> tuple[float, float] | None:
    """λ and r from the centred cross products (3, 3) of (g, Ω, ĝ); None if one of them does not vary."""
    if cross[1, 1] <= 0:
        return None
    given_age = cross - np.outer(cross[1], cross[1]) / cross[1, 1]
    if min(given_age[0, 0], given_age[2, 2]) <= 1e-12 * cross[1, 1]:
        return None
    factor = given_age[0, 2] / given_age[2, 2]
    return float(factor), float(given_age[0, 2] / np.sqrt(given_age[0, 0] * given_age[2, 2]))
