"""All patients of a simulation in one table. Only a simulation has them in one place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute import predictions
from fedage.client.disclosure.guard import Withheld
from fedage.client.inbox.simulated import SimulatedSite
from fedage.common.campaign import Campaign
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine.simulation import SimulationJob

SITE = "site"
"""Column with the site's name."""


def pooled_patients(job: SimulationJob, campaign: Campaign) -> tuple[pd.DataFrame, dict[str, SiteCohort]]:
    """Every site's patients under each other, with the ages that the run's models predicted, and each site's cohort.

    Columns are the cohort's, `site` and, where there are predictions, `predicted_years` and `raw_gap_years`.
    """
    tables, cohorts = [], {}
    for description in job.sites:
        site = SimulatedSite(job, description)
        found = site.cohort(campaign)
        cohorts[site.name] = found
        columns = {name: np.asarray(values) for name, values in found.cohort.columns.items()}
        predicted = _predicted(site.state_dir(campaign.digest), campaign, found, run=job.run)
        if predicted is not None:
            columns |= {"predicted_years": predicted, "raw_gap_years": predicted - columns["age_years"]}
        tables.append(pd.DataFrame(columns).assign(**{SITE: site.name}))
    return pd.concat(tables, ignore_index=True), cohorts


def _predicted(folder: Path, campaign: Campaign, site: SiteCohort, *, run: str) -> FloatArray | None:
    """Predicted ages (n,) in years as the site kept them, NaN for who has none; None if the run did not get so far."""
    if campaign.estimator is None:
        return None
    folds = campaign.validation.folds
    digest = predictions.cohort_digest(site.cohort, snapshot=site.snapshot)
    try:
        made = (
            predictions.with_predictions(site.cohort, folder, run=run, snapshot=digest)
            if folds is None
            else predictions.with_all_folds(site.cohort, folder, run=run, folds=folds, snapshot=digest)
        )
    except Withheld:
        return None  # this site took no part in the making of every fold's model
    return made.columns.get("predicted_years")
