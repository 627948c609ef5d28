"""What a campaign with privacy for each patient may spend at this site in all: the same whichever message asks.

With folds a site trains on a few patients more or fewer in each, and so by slightly different mechanisms: the largest ε
counts, so that no fold is refused for the others'.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.client.inbox.gate import Work
from fedage.common.estimators.base import Estimator
from fedage.common.estimators.private_training import all_epsilon, approved_total, mechanism_of
from fedage.common.privacy.accountant import Budget


def total_of(work: Work, estimator: Estimator) -> Budget:
    """What the approved file lets this site spend on it. Raises as `mechanism_of` and `approved_total` do."""
    campaign, patients = work.campaign, work.site_cohort.cohort.n
    made = [mechanism_of(campaign, estimator, patients=count) for count in _trained_on(work)]
    totals = (approved_total(campaign, estimator, one, patients=patients) for one in made)
    return max(totals, key=lambda total: total.epsilon)


def epsilon_at_the_end(work: Work, estimator: Estimator) -> float:
    """ε of all of it together, where no ledger tells it."""
    campaign, patients = work.campaign, work.site_cohort.cohort.n
    made = [mechanism_of(campaign, estimator, patients=count) for count in _trained_on(work)]
    return max(all_epsilon(campaign, estimator, one, patients=patients) for one in made)


def _trained_on(work: Work) -> Iterable[int]:
    """How many patients the campaign's models are trained on; of a site that only validates, all."""
    cohort, campaign = work.site_cohort.cohort, work.campaign
    folds = [*range(campaign.validation.folds or 1)]
    if campaign.validation.folds is not None and campaign.final_fold is not None:
        folds.append(campaign.final_fold)
    counts = {int(np.count_nonzero(parts_for_fold(cohort, campaign, fold)["is_train"] == 1)) for fold in folds}
    return {count for count in counts if count} or {max(1, cohort.n)}
