"""Assigns a site's patients to the folds of a campaign, using as many folds as it has patients for.

Attack: the sums of a model that was made without a fold, subtracted from those of a model that was made with it, are of
the patients held out. Rule: a fold holds out at least the minimum count of those who may train, or nobody of the site.
So a large site holds out a part of its patients in every fold; a small one in two or more of them, and trains with all
of its patients in the others. What its sums are made of are the parts themselves: every difference between the training
parts of two folds, and every inner fold, is made of whole ones. Residual risk: how many folds a site uses tells about
how large it is, as the sizes of its parts do.

Which folds a small site uses is drawn by the campaign's seed and the site's own keyed places, so that small sites do
not all leave the same folds' patients to large ones.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

NO_FOLD = -1.0
FEWEST_FOLDS = 2
"""A site that cannot hold out patients in two folds cannot both train and be judged: it trains no model."""

Mask = NDArray[np.bool_]


def assign_folds(
    split_uniform: FloatArray,
    is_healthy: FloatArray,
    *,
    folds: int,
    minimum_count: int,
    seed: int,
    in_no_fold: Mask,
    trains: Mask,
) -> FloatArray:
    """Fold (n,) of each patient, 0 to folds − 1, or `NO_FOLD`.

    Of those who train, each fold holds out none or at least the minimum count; so of the healthy and of the others by
    themselves, where one of the two is large enough for two folds. A site that is too small for two is dealt out as a
    large one is, and its sums for a model are withheld.

    Parameters
    ----------
    split_uniform
        Uniform numbers (n,) in [0, 1) by keyed hash.
    is_healthy
        (n,), 1 for who counts as healthy.
    seed
        The campaign's.
    in_no_fold
        Who is in no fold (n,).
    trains
        Who may be trained on (n,).
    """
    n_used = folds_for(
        int(np.count_nonzero(trains & ~in_no_fold & (is_healthy == 1))),
        int(np.count_nonzero(trains & ~in_no_fold & (is_healthy != 1))),
        folds=folds,
        minimum_count=minimum_count,
    )
    if n_used in (0, folds):
        fold = round_robin_folds(split_uniform, is_healthy, folds)
        fold[in_no_fold] = NO_FOLD
        return fold
    numbers = _draw_folds(split_uniform, folds=folds, used=n_used, seed=seed)
    groups = [np.flatnonzero(~in_no_fold & (is_healthy == 1)), np.flatnonzero(~in_no_fold & (is_healthy != 1))]
    shares = [min(n_used, rows.size // minimum_count) for rows in groups]
    fold = np.full(split_uniform.size, NO_FOLD)
    if max(shares) < FEWEST_FOLDS:  # only both together are large enough
        rows = np.flatnonzero(~in_no_fold)
        fold[rows] = numbers[round_robin_folds(split_uniform[rows], is_healthy[rows], n_used).astype(np.intp)]
        return fold
    for rows, share in zip(groups, shares, strict=True):
        fold[rows[np.argsort(split_uniform[rows], kind="stable")]] = numbers[np.arange(rows.size) % max(share, 1)]
    return fold


def folds_for(healthy: int, others: int, *, folds: int, minimum_count: int) -> int:
    """In how many folds a site holds patients out; 0 if it is too small for two.

    Parameters
    ----------
    healthy, others
        How many of those who may be trained on count as healthy, and how many do not.
    """
    together = (healthy + others) // minimum_count
    if together >= folds:
        return folds
    largest = max(healthy, others) // minimum_count
    used = largest if largest >= FEWEST_FOLDS else together
    return used if used >= FEWEST_FOLDS else 0


def round_robin_folds(split_uniform: FloatArray, is_healthy: FloatArray, n_folds: int) -> FloatArray:
    """Folds (n,), 0 to k − 1: patients in the order of their keyed hash are dealt out in turn, the healthy first.

    So every fold has the same number of each, give or take one, and no site has a fold with a single patient. A fold
    that a patient's hash alone decided would be stable when patients are added, but a campaign's cohort is fixed.
    """
    order = np.lexsort((split_uniform, is_healthy != 1))
    fold = np.empty(split_uniform.size)
    fold[order] = np.arange(split_uniform.size) % n_folds
    return fold


def used_folds(fold: FloatArray) -> NDArray[np.intp]:
    """The folds in which anybody is held out, in order."""
    return np.unique(fold[fold != NO_FOLD]).astype(np.intp)


def split_uniform_by_fold(fold: FloatArray) -> FloatArray:
    """Places (n,) in [0, 1) by which the inner folds of a small site are its folds, or several of them together.

    Attack: the inner folds of one model's training part are subtracted from another model's training part: of two
    halves of a small site that are drawn apart from each other, a few patients are left over. Rule: a small site's
    inner folds are made of its whole folds.
    """
    used = used_folds(fold)
    split_uniform: FloatArray = (np.searchsorted(used, fold.clip(0)).clip(max=used.size - 1) + 0.5) / max(used.size, 1)
    return split_uniform


def _draw_folds(split_uniform: FloatArray, *, folds: int, used: int, seed: int) -> NDArray[np.float64]:
    """Which folds a small site uses (used,), in order: the first by hash of campaign, site and fold."""
    site = hashlib.sha256(np.sort(split_uniform).astype("<f8").tobytes()).hexdigest()
    by_hash = sorted(range(folds), key=lambda fold: hashlib.sha256(f"{seed}:{site}:{fold}".encode()).digest())
    return np.array(sorted(by_hash[:used]), dtype=np.float64)
