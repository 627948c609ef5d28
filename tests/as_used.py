"""The columns of a deployed site as its sums are made of them: with its own noise on what a model made."""

from __future__ import annotations

from fedage.client.compute import predictions
from fedage.client.compute.made_columns import with_dither
from fedage.client.inbox.deployed import DeployedSite
from fedage.common.statistics.cohort import Cohort


def predictions_as_used(site: DeployedSite, digest: str, *, run: str, fold: int | None = None) -> Cohort:
    """The cohort of an approved campaign with a run's predictions."""
    campaign = site.approved(digest)
    assert campaign is not None
    found = site.cohort(campaign)
    folder, snapshot = site.state_dir(digest), predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
    name = predictions.name_of(run, fold=fold)
    cohort = predictions.with_predictions(found.cohort, folder, run=name, snapshot=snapshot)
    assert cohort is not found.cohort, "there are no predictions"
    return with_dither(cohort, campaign, patients=found.keys, secret=site.privacy_secret())
