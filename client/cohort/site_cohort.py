"""A campaign's patients at one site, as every room from here on sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedage.common.estimators.base import Samples
from fedage.common.statistics.cohort import Cohort


@dataclass(frozen=True)
class SiteCohort:
    """A campaign's patients at this site, in the fixed order of their hashed identifiers.

    Parameters
    ----------
    cohort
        Columns (n,): `age_years`, `is_male`, `healthy`, split columns, outcomes.
    samples
        Preprocessed samples of all patients, images read from disk by rows; None in a campaign without an estimator.
    excluded
        Patients left out, by reason.
    rejected_files, rejected_samples
        Files and images set aside, by reason code.
    snapshot
        A digest that is equal exactly for equal cohorts, or empty where it is not kept.
    features
        Columns of the site's table that an estimator may use; of outcomes those that it reads beside images.
    keys
        Keyed hashes of the patients in row order; empty in simulated tables.
    """

    cohort: Cohort
    samples: Samples | None
    excluded: Mapping[str, int] = field(default_factory=dict)
    rejected_files: Mapping[str, int] = field(default_factory=dict)
    rejected_samples: Mapping[str, int] = field(default_factory=dict)
    snapshot: str = ""
    features: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
