"""Errors and bias lines of a campaign with privacy for each patient: sums of bounded rows that a site adds noise to.

A patient is a row of L2 norm 1 at most, whatever the patient: ages and errors are cut to bounds that follow from the
campaign file. So one patient more or less moves the sums by at most 1, and normal noise of SD σ on each value is the
Gaussian mechanism with the noise multiplier σ (Dwork & Roth 2014, theorem A.1). What is made of the sums is
post-processing. The noise's variance travels with them, so that its share in a figure is known also where the sums of
single sites are hidden.

Attack: figures of one model after another are as many equations of single patients' errors. Rule: every one is noised
and charged. Residual risk: what (ε, δ) leaves; in which part a patient is, and how many are, counts as known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedage.common.analyses.base import Iterate, OneExchange, Result
from fedage.common.analyses.columns_read import ROW, ColumnsRead
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import MAX_PATIENTS, Cell, Field, FloatArray, Layout, Statistic

SUMS, VARIANCE = "sums", "noise_variance"
OUTWEIGHED = (
    "the noise outweighs the patients: their number cannot be told from nothing; a larger privacy.epsilon or "
    "privacy.validation_share, or more patients are needed"
)
_MOST = MAX_PATIENTS / 2
"""Bound of a value: not so much a patient, as noise is there without any."""
_MOST_VARIANCE = 1e6
"""Of one site's noise: the largest noise multiplier that is accounted for, squared."""
_ERRORS_SHARE = 1 / 3
"""The largest error that counts, of the width of the ages, unless the file says otherwise."""


def noise_note(result: Result) -> Iterator[str]:
    """How much of a figure the noise may be, and what its errors were cut to; nothing of one without noise."""
    if (sd := result.get("noise_sd_years")) is not None:
        yield (
            f"with noise of differential privacy, whose SD is about {sd:.2g} years; errors beyond "
            f"{result['largest_error_years']:.3g} years count as that."
        )
    if (sd := result.get("slope_noise_sd")) is not None:
        yield f"with noise of differential privacy, by which the slope has an SD of about {sd:.2g}."


@dataclass(frozen=True, kw_only=True)
class ValidationBounds:
    """What ages and errors are cut to, in years; it follows from the campaign file alone."""

    youngest_years: float
    oldest_years: float
    error_years: float

    @classmethod
    def of(cls, campaign: Campaign) -> ValidationBounds:
        """From the ages of the cohort, those that the estimator's options expect, and `privacy.largest_error_years`."""
        low, high = campaign.cohort.age_min_years, campaign.cohort.age_max_years
        match campaign.estimator.options.get("age_range_years") if campaign.estimator else None:
            case [int() | float() as youngest, int() | float() as oldest]:
                low, high = max(low, youngest), min(high, oldest)
        high = max(high, low + 1.0)
        return cls(
            youngest_years=low,
            oldest_years=high,
            error_years=campaign.privacy.largest_error_years or _ERRORS_SHARE * (high - low),
        )

    @property
    def half_years(self) -> float:
        """Half the width of the ages."""
        return (self.oldest_years - self.youngest_years) / 2

    def ages(self, age_years: FloatArray) -> FloatArray:
        """Ages (n,) as numbers from -1, the youngest, to 1."""
        middle = (self.youngest_years + self.oldest_years) / 2
        return np.clip((age_years - middle) / self.half_years, -1.0, 1.0)

    def errors(self, error_years: FloatArray) -> FloatArray:
        """Errors (n,) in largest errors, from -1 to 1."""
        return np.clip(error_years / self.error_years, -1.0, 1.0)


@dataclass(frozen=True)
class NoisedValidation(OneExchange, ABC):
    """An error or a bias line whose sums get noise at the site (`client.inbox.private_sums`)."""

    name: str
    subset: str
    bounds: ValidationBounds
    per_site: bool = True

    weights: ClassVar[tuple[float, ...]] = (1.0,)
    """Of a row's values; their squares sum to 1, and each value is from -1 to 1."""

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - the same for all
        return Layout(
            (
                Field(SUMS, (len(self.weights),), lower=-_MOST, upper=_MOST),
                Field(VARIANCE, lower=0.0, upper=_MOST_VARIANCE),
            )
        )

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002
        """None to keep account of: by no column do sums leave without noise."""
        return ColumnsRead(rows=cohort[ROW].astype(np.intp), needed=(), leave=())

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        rows = np.clip(self._rows(cohort), -1.0, 1.0) * np.array(self.weights)
        # Of the whole part: how many of it are healthy, or have a usable value, is for the noise to hide.
        cells = (Cell(int(np.count_nonzero(cohort[self.subset] == 1)), "patients of the part"),)
        return Statistic.of(self.layout(iterate), {SUMS: rows.sum(axis=0), VARIANCE: 0.0}, cells)

    @abstractmethod
    def _rows(self, cohort: Cohort) -> FloatArray:
        """Values (n, k) from -1 to 1, the first of them 1, of the patients that it is about."""

    def _means(self, total: Statistic) -> tuple[float, FloatArray, float] | None:
        """Patients n, means of the other values (k - 1,), and the SD of the sums' noise; None where noise outweighs."""
        noise = math.sqrt(max(total.scalar(VARIANCE), 0.0))
        sums = total[SUMS] / np.array(self.weights)
        n = float(sums[0])
        if not n > max(2 * noise / self.weights[0], 0.5):
            return None
        return n, sums[1:] / n, noise
