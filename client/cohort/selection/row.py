"""The row that an estimator on images takes beside them: a patient's sex, and columns of the site's outcomes.

Attack: a network that reads a 0/1 column which one patient has shows, in the gradient of that input, this patient's
record; so do two columns that are equal but for one patient, and the few whose value is missing. A column that is the
same for all who are trained on lets a coordinator's model move the prediction of the one patient elsewhere who differs.
Rule: of the patients that each model is trained on the columns of a row pass the influence rule, as those of a table
do; a column counts as unknown for all patients of the site if it does not pass, if fewer than the minimum count know it
or lack it, or if nobody differs. Under differential privacy the site refuses instead, as one patient more or less would
change the updates by more than ε allows where that makes a column count. Residual risk: an update tells of the patients
behind it, and only differential privacy bounds that; rows are not held against the columns of earlier campaigns.

Legend: n patients, p columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.client.cohort.store.query import Selection
from fedage.client.cohort.table.columns import columns_beside_images
from fedage.client.cohort.table.messages import unknown_in_row
from fedage.common.analyses.agreement import rule_of
from fedage.common.campaign import Campaign
from fedage.common.estimators.base import ROW, Estimator, Samples
from fedage.common.estimators.inputs import row_input
from fedage.common.estimators.table import FEATURE
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule, differing, passing
from fedage.common.statistics.statistic import FloatArray

BoolArray = NDArray[np.bool_]

LACKS_ROW = "no-value-for-row"
"""Reason code of patients who lack a value that the estimator cannot do without."""


def with_complete_rows(selection: Selection, estimator: Estimator) -> Selection:
    """The patients who know every value of the row, where the estimator cannot do without.

    Raises
    ------
    RequestRefused
        Rule `features` if the site's outcomes have no such column at all.
    """
    wanted = row_input(estimator)
    if wanted is None or wanted.optional:
        return selection
    names = columns_beside_images(estimator)
    if missing := [name for name in names if name not in selection.outcomes]:
        raise RequestRefused(
            "features",
            f"this site's outcomes have no column {missing[0]!r} with numbers, which the estimator reads beside the "
            "images",
        )
    columns = [selection.outcomes[name] for name in names]
    columns += [selection.is_male] if "is_male" in estimator.row_columns else []
    known = np.isfinite(np.column_stack([np.zeros(selection.n), *columns])).all(axis=1)
    kept = selection.keep(np.flatnonzero(known))
    lacking = selection.n - kept.n
    return replace(kept, excluded={**selection.excluded, LACKS_ROW: lacking}) if lacking else kept


def feature_columns(selection: Selection, estimator: Estimator) -> dict[str, FloatArray]:
    """The cohort's columns (n,) that only the row has, NaN where not known."""
    unknown = np.full(selection.n, np.nan)
    return {FEATURE + name: selection.outcomes.get(name, unknown) for name in columns_beside_images(estimator)}


def with_row(
    samples: Samples, cohort: Cohort, campaign: Campaign, estimator: Estimator
) -> tuple[Samples, dict[str, int]]:
    """The samples with the patients' rows (n, p), and how many patients each column counts as unknown of, by reason.

    Raises
    ------
    RequestRefused
        Rule `influence` if a column counts as unknown that the estimator cannot do without, or in a private training.
    """
    wanted, names = row_input(estimator), estimator.row_columns
    if wanted is None:
        return samples, {}
    row = cohort.matrix(names)
    out = np.zeros(len(names), dtype=np.bool_)
    if (rule := rule_of(campaign)) is not None:
        out = ~_allowed(row, cohort, campaign, rule)
    plain = [name.removeprefix(FEATURE) for name in names]
    is_private = campaign.privacy.mode == "sample"
    if out.any() and (is_private or not wanted.optional):
        raise RequestRefused(
            "influence",
            f"of the patients that a model is trained on here too few know {plain[int(np.argmax(out))]!r}, lack it or "
            "differ in it; the estimator reads it beside the images and "
            + ("under differential privacy nothing is left out by that" if is_private else "cannot do without"),
        )
    row[:, out] = np.nan
    unknown = {unknown_in_row(name): cohort.n for name, is_out in zip(plain, out, strict=True) if is_out}
    return _beside(samples, row), unknown


def with_row_to_predict(samples: Samples, selection: Selection, estimator: Estimator) -> Samples:
    """The samples of exams that a finished model predicts for the hospital itself, with the rows as they are."""
    if row_input(estimator) is None:
        return samples
    columns = {**feature_columns(selection, estimator), "is_male": selection.is_male}
    return _beside(samples, np.column_stack([columns[name] for name in estimator.row_columns]))


def _beside(samples: Samples, row: FloatArray) -> Samples:
    complete: BoolArray = np.asarray(np.isfinite(row).all(axis=1))
    present = dict(samples.present)
    if not complete.all():
        present[ROW] = complete
    return Samples({**samples.arrays, ROW: row}, present)


def _allowed(row: FloatArray, cohort: Cohort, campaign: Campaign, rule: InfluenceRule) -> BoolArray:
    """Which columns (p,) may be in the row."""
    allowed = np.ones(row.shape[1], dtype=np.bool_)
    groups = []
    for fold in range(campaign.validation.folds or 1):
        inside = parts_for_fold(cohort, campaign, fold)["is_train"] == 1
        if not inside.any():
            continue  # a site that is too small for this fold trains nothing of it
        trained = row[inside]
        known = np.isfinite(trained).sum(axis=0)
        lacking = inside.sum() - known
        allowed &= (known >= rule.minimum_count) & ((lacking == 0) | (lacking >= rule.minimum_count))
        allowed &= np.array([differing(column) > 0 for column in trained.T], dtype=np.bool_)
        age = cohort["age_years"][inside][:, None]
        groups.append(Group(of="the training patients", columns=trained, always=age, names_always=("age",)))
    if not groups or not allowed.any():
        return np.zeros_like(allowed)
    try:
        chosen = [replace(group, columns=group.columns[:, allowed]) for group in groups]
        allowed[allowed] = passing(chosen, rule)
    except InfluenceRefused:
        return np.zeros_like(allowed)
    return allowed
