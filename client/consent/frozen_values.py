"""What of a cohort is frozen beside its patients: which of them are in which part, and what is known of each.

Two campaigns on the same patients may cut them into slightly different parts, and two runs of one campaign may have a
few corrected values between them: either way the difference of two sums is about those few. The same holds for two
campaigns that need different columns, which different patients lack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.selection.parts import PARTS, parts_for_fold
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.table.columns import MODEL_COLUMNS, named_columns
from fedage.common.analyses.same_patients import sets_summed
from fedage.common.campaign import Campaign
from fedage.common.estimators.configure import configured
from fedage.common.statistics.cohort import INCOMPLETE, SET_ASIDE

Mask = NDArray[np.bool_]

ROW_BYTES = 8
_SET = "complete patients, set "
"""How the names of sets that analyses sum over begin; the others are parts and groups, summed over or not."""
_OF_EVERY_CAMPAIGN = ("age_years", "is_male", "healthy", "fold", "is_train", "is_validation", "is_test")


@dataclass(frozen=True, kw_only=True)
class FrozenValues:
    """A cohort as it is frozen; rows (n,) in the order of their keys.

    Parameters
    ----------
    patients
        Keyed hashes, sorted.
    cells
        Who is in each part, in each of its groups, and in each set that an analysis sums over, (n,) bool, by name.
    rows
        A digest of what the campaign reads of each patient, `ROW_BYTES` bytes each, one after the other.
    """

    patients: tuple[str, ...] = field(repr=False)
    cells: Mapping[str, Mask] = field(default_factory=dict, repr=False)
    rows: bytes = field(default=b"", repr=False)


def frozen_of(site_cohort: SiteCohort, campaign: Campaign) -> FrozenValues:
    """A campaign's cohort as it is frozen at approval."""
    order = np.argsort(np.array(site_cohort.keys, dtype=str))
    return FrozenValues(
        patients=tuple(site_cohort.keys[row] for row in order),
        cells={name: mask[order] for name, mask in _cells(site_cohort, campaign).items()},
        rows=_rows(site_cohort, campaign, order),
    )


def _cells(site_cohort: SiteCohort, campaign: Campaign) -> dict[str, Mask]:
    """The parts of the campaign, each whole, its healthy, its two groups, and whom its analyses sum over.

    Attack: one campaign has a covariate that 12 patients lack, another one a covariate that 13 lack: Σ age of the one
    less that of the other is one patient's age. Rule: the sets of complete patients are cells as the parts are.
    Residual risk: patients left out for their predictions, which are not known yet; sums of three sets and more.
    """
    cohort = site_cohort.cohort
    parts: dict[str, Mask] = {}
    if campaign.estimator is not None and campaign.validation.folds is not None:
        for fold in range(campaign.validation.folds):
            of_this = parts_for_fold(cohort, campaign, fold)
            parts[f"fold {fold + 1}"] = of_this["is_test"] == 1
            parts[f"training without fold {fold + 1}"] = of_this["is_train"] == 1
    else:
        parts |= {part: cohort[f"is_{part}"] == 1 for part in PARTS}
    # Those set aside are in no sum, so a sum over everybody else is what another campaign's sums are held against.
    aside = [cohort.columns.get(name, np.zeros(cohort.n)) == 1 for name in (SET_ASIDE, INCOMPLETE)]
    parts["all"] = ~np.logical_or.reduce(aside)
    groups: dict[str, Mask] = {"healthy": cohort["healthy"] == 1}
    if (chosen := campaign.groups) is not None and chosen.column in cohort.columns:
        codes = cohort[chosen.column]
        groups |= {"group": codes == chosen.equals, "reference group": codes == chosen.reference}
    cells = parts | {
        f"{part}, {name}": inside & group for part, inside in parts.items() for name, group in groups.items()
    }
    # Also where a set equals a part: `close_cells` has to know which cells are summed over for certain.
    sets = {mask.tobytes(): mask for mask in sets_summed(campaign, cohort)}
    return cells | {f"{_SET}{number}": mask for number, mask in enumerate(sets.values(), start=1)}


def _rows(site_cohort: SiteCohort, campaign: Campaign, order: NDArray[np.intp]) -> bytes:
    """A digest of each patient's values in the columns that the campaign reads, in this order."""
    used = {*_OF_EVERY_CAMPAIGN, *MODEL_COLUMNS, *named_columns(campaign), *_features(site_cohort, campaign)}
    names = sorted(used & set(site_cohort.cohort.columns))
    values = np.column_stack([site_cohort.cohort[name] for name in names]).astype("<f8")
    values[np.isnan(values)] = np.nan  # one bit pattern for what is missing
    heading = "\n".join(names).encode()
    return b"".join(
        hashlib.sha256(heading + site_cohort.keys[row].encode() + values[row].tobytes()).digest()[:ROW_BYTES]
        for row in order
    )


def _features(site_cohort: SiteCohort, campaign: Campaign) -> tuple[str, ...]:
    """The columns of the row that the estimator takes."""
    estimator = configured(campaign, site_cohort.features)
    return () if estimator is None else estimator.row_columns


def rows_changed(rows: bytes, others: bytes) -> int:
    """How many patients' values differ between two freezings of the same patients by the same campaign."""
    mine, theirs = (np.frombuffer(each, dtype=f"V{ROW_BYTES}") for each in (rows, others))
    return int(np.count_nonzero(mine != theirs))


def close_cells(mine: FrozenValues, theirs: FrozenValues, *, minimum_count: int) -> tuple[str, str] | None:
    """Two cells, one of each, that differ by some patients but fewer than `minimum_count`; None if there are none.

    A cell that the other freezing has as well tells nothing new: what its own cells give away together is for the
    campaign's own analyses to prevent. They do so for the sets they sum over (`few_apart`) and not for every part or
    group, so a set is also looked for among the other's sets alone.
    """
    if not mine.cells or not theirs.cells:
        return None
    rows = _common(mine.patients, theirs.patients)
    large = {name: mask for name, mask in mine.cells.items() if np.count_nonzero(mask) >= minimum_count}
    for my_cells, their_cells in ((large, theirs.cells), (_sets(large), _sets(theirs.cells))):
        if (close := _close(my_cells, their_cells, rows, minimum_count=minimum_count)) is not None:
            return close
    return None


def _sets(cells: Mapping[str, Mask]) -> dict[str, Mask]:
    """Those cells that analyses sum over for certain."""
    return {name: mask for name, mask in cells.items() if name.startswith(_SET)}


def _close(
    large: Mapping[str, Mask],
    theirs: Mapping[str, Mask],
    rows: tuple[NDArray[np.intp], NDArray[np.intp]],
    *,
    minimum_count: int,
) -> tuple[str, str] | None:
    """The names of two masks, one of each, that are close, and of which neither is among the other's."""
    if not large or not theirs:
        return None
    my_rows, their_rows = rows
    a, b = (np.array(list(masks.values()), dtype=np.float32) for masks in (large, theirs))
    apart = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - 2 * a[:, my_rows] @ b[:, their_rows].T
    new, gone = (apart > 0).all(axis=1), (apart > 0).all(axis=0)
    pairs = np.argwhere((apart < minimum_count) & new[:, None] & gone[None, :])
    if not pairs.size:
        return None
    row, column = pairs[0]
    return list(large)[row], list(theirs)[column]


def _common(mine: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the patients of both are in each."""
    _, my_rows, their_rows = np.intersect1d(
        np.array(mine, dtype="S128"), np.array(theirs, dtype="S128"), assume_unique=True, return_indices=True
    )
    return my_rows, their_rows
