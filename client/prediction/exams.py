"""New exams for a bundle, and what it predicts of them.

Legend: n exams, Ω chronological age, ŷ predicted age, line ŷ = aΩ + b; all in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute.model import predict, statistics_of_site
from fedage.common.analyses.bias.bias_line import correct_de_lange
from fedage.common.bundle.container import Bundle, BundleRefused
from fedage.common.bundle.description import Line
from fedage.common.estimators.base import PREDICTED_YEARS, Estimator, Samples
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

EXAM, AGE = "exam", "age_years"
RAW_GAP, CORRECTED, GAP, OUTSIDE = "raw_gap_years", "corrected_years", "gap_years", "outside_ages_seen"


@dataclass(frozen=True)
class NewExams:
    """Exams that can be predicted.

    Parameters
    ----------
    names
        What tells them apart in the output, (n,): a table's identifiers, or paths of images. They stay at the site.
    age_years
        (n,), NaN where not known; such an exam is predicted, but has no gap.
    samples
        Arrays of all n.
    set_aside
        What is not predicted, counted by reason.
    notes
        Sentences on what was read, for the terminal.
    columns
        Further columns (n,) for the output.
    """

    names: tuple[str, ...] = field(repr=False)
    age_years: FloatArray = field(repr=False)
    samples: Samples = field(repr=False)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: Mapping[str, FloatArray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Hardware:
    """What is computed on."""

    device: str = "auto"
    threads: int = 1


def predicted_columns(
    bundle: Bundle, estimator: Estimator, exams: NewExams, *, line: Line | None, hardware: Hardware
) -> dict[str, FloatArray]:
    """The output's columns (n,): age, what the model declares, raw and corrected gap, and who is outside its ages.

    Raises
    ------
    BundleRefused
        If the model's arrays or columns are not those of the estimator.
    """
    ages = exams.age_years
    cohort = SiteCohort(cohort=Cohort({AGE: ages}), samples=exams.samples)
    rows, weights = np.arange(len(exams.names)), bundle.weights
    try:
        if bundle.description.own_statistics:
            weights = statistics_of_site(hardware, estimator, cohort, weights, rows=rows)
        made = predict(hardware, estimator, cohort, weights, rows=rows)
    except RequestRefused as refused:
        raise BundleRefused(refused.detail) from None
    predicted = made.pop(PREDICTED_YEARS)
    columns = {AGE: ages, PREDICTED_YEARS: predicted, **made, RAW_GAP: predicted - ages}
    if line is not None:
        corrected = correct_de_lange(predicted, ages, slope=line.slope, intercept=line.intercept_years)
        columns |= {CORRECTED: corrected, GAP: corrected - ages}
    trained = bundle.description.trained_on
    low, high = trained.ages_seen_years or trained.age_limits_years
    outside = np.where(np.isnan(ages), np.nan, ((ages < low) | (ages > high)).astype(np.float64))
    return {**columns, OUTSIDE: outside, **exams.columns}
