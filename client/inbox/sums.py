"""The sums that a site answers with: of registered analyses and exact phases, over the patients that each may be of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.selection.parts import check_fold, held_out, why_no_training
from fedage.client.compute import predictions
from fedage.client.compute.contribute import UNKNOWN_STEP, Account, Contributions, contributions
from fedage.client.compute.model import columns_of, estimator_of, exact_sums_of
from fedage.client.inbox.gate import Answer, Work
from fedage.client.inbox.model_continuity import admit_model
from fedage.client.inbox.private_sums import with_noise
from fedage.common.analyses.plan import registered
from fedage.common.estimators.base import ExactPhase
from fedage.common.estimators.configure import phases_of
from fedage.common.protocol.messages import KINDS, TRAIN, payload_digest
from fedage.common.statistics.cohort import Cohort

Arrays = Mapping[str, NDArray[Any]]
Iterates = Mapping[str, Mapping[str, NDArray[np.float64]]]


def with_phase_columns(work: Work, cohort: Cohort, iterates: Iterates, before: Arrays) -> Cohort:
    """The cohort with what an exact phase sums over that the model before it computes, after accounting for that."""
    if work.campaign.estimator is None or work.campaign.validates:
        return cohort
    estimator = estimator_of(work.campaign, work.site_cohort)
    for k, phase in enumerate(phases_of(estimator)):
        if not isinstance(phase, ExactPhase) or phase.name not in iterates or not k:
            continue
        check_fold(work.campaign, work.request.fold, all_folds_allowed=False)
        folder = work.site.state_dir(work.request.digest)
        snapshot = predictions.cohort_digest(work.site_cohort.cohort, snapshot=work.site_cohort.snapshot)
        run = predictions.name_of(work.request.run, fold=work.request.fold if work.campaign.validation.folds else None)
        stored_name = f"{run}--phase-{k + 1}"
        # Later exchanges of the phase bring no model: its columns are here.
        model = payload_digest(before)
        if before and not predictions.are_kept(folder, run=stored_name, model=model, snapshot=snapshot):
            admit_model(work, before, name=run, phase=k)
            columns = columns_of(work.site, estimator, phase, work.site_cohort, before)
            predictions.keep(folder, run=stored_name, columns=columns, model=model, snapshot=snapshot)
        cohort = predictions.with_stored(cohort, folder, run=stored_name, snapshot=snapshot)
    return cohort


def sums_of(work: Work, cohort: Cohort, iterates: Iterates, *, model: str = "") -> Contributions:
    """What the steps of these iterates are answered with, and what is withheld and why.

    `model` is the digest of the model, or of those of all folds, whose predictions the cohort has.
    """
    exact, rules = exact_sums_of(work.campaign, work.site_cohort), work.site.rules
    withheld: dict[str, dict[str, str]] = {}
    for step in set(exact) & set(iterates):
        # A model is made of these sums: to answer them is to train.
        if work.campaign.validates:
            withheld[step] = {"rule": "role", "detail": ONLY_VALIDATES}
        elif rules is not None and KINDS[TRAIN] not in rules.kinds():
            withheld[step] = {"rule": "message-kind", "detail": "by its policy, this site trains no model"}
        elif too_few := why_no_training(work.site_cohort.cohort, work.campaign, minimum_count=work.minimum_count):
            withheld[step] = {"rule": "minimum-count", "detail": too_few}
    if not _judges(work):
        withheld |= {
            step: dict(_NOBODY_HELD_OUT) for step in registered(work.campaign) if step in set(iterates) - set(exact)
        }
    iterates = {step: iterate for step, iterate in iterates.items() if step not in withheld}
    contributed = contributions(
        work.campaign,
        cohort,
        iterates,
        folder=work.site.state_dir(work.request.digest),
        run=predictions.name_of(work.request.run, fold=work.request.fold if work.campaign.validation.folds else None),
        guard=work.site.guard,
        more_steps=exact,
        account=_account(work),
    )
    contributed = replace(contributed, withheld={**contributed.withheld, **withheld})
    return with_noise(work, contributed, cohort, {**registered(work.campaign), **exact}, model=model)


ONLY_VALIDATES = "by the approved campaign file this site only validates, and nothing is made of its patients"
NO_AGE_YET = {"rule": "no-age-yet", "detail": "the model predicts no age in this phase"}
_NOBODY_HELD_OUT = {"rule": "no-patients-in-fold", "detail": "this site holds out no patients in this fold"}


def _judges(work: Work) -> bool:
    """Whether the model that a request is about may be judged by any patient: of some folds a site holds out nobody."""
    count = work.campaign.validation.folds if work.campaign.estimator else None
    if count is None or work.request.fold == count:
        return True
    return bool(held_out(work.site_cohort.cohort, work.campaign, work.request.fold).any())


def _account(work: Work) -> Account | None:
    """The account that a deployed site keeps over all campaigns; a simulated site has only one."""
    rules = work.site.rules
    if rules is None or work.terms is None:
        return None
    # By who they are: a digest of what is read of them is another one for each file that names another column.
    patients = hashlib.sha256("\n".join(sorted(work.site_cohort.keys)).encode()).hexdigest()
    return Account(
        folder=rules.home,
        name=rules.account_name(work.terms.allowed.data_set_name),
        patients=patients,
        columns_folder=rules.columns_folder,
        keys=work.site_cohort.keys,
        secret=work.site.privacy_secret(),
    )


def answer_of(contributed: Contributions, *, info: Mapping[str, Any], epsilon: float = 0.0) -> Answer:
    """An answer with what the audit log is to say of its sums."""
    return Answer(
        info=info,
        payload=contributed.sums,
        patients=contributed.patients,
        smallest_cell=contributed.smallest_cell,
        epsilon=epsilon + contributed.epsilon,
        steps=tuple(contributed.sums),
        withheld={
            step: withheld for step, withheld in contributed.withheld.items() if withheld["rule"] != UNKNOWN_STEP
        },
    )
