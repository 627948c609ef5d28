"""Whether fewer than the minimum count make up a combination of many columns, as a leverage tells of one patient.

Attack: three columns of 0 and 1 that are 0 together for four patients only, as a rare fourth category: 1 less the three
is these four's own column, and Σzzᵀ and Σzt give their sums. So do columns that a crafted network computes. Each
column, pair and single patient passes. Rule: with sums of n and of each column known, no combination of the constant
and the columns has nearly all of its squares at few patients: 99 % at a sixth of a group, all at a third.

Method: an orthonormal basis U (n, r) of the constant and the columns. For a set of patients the combination with most
at them is the first singular vector of their rows; from each patient with leverage enough to be in such a set, the
patient whom that combination has most of outside is added. Random columns, of two values, normal or with long tails, at
2 to 12 patients a column (24 to 300 patients) stay below 99 %. Residual risk: a search by single steps finds not every
set; less exact combinations.

Legend: n patients, p columns, r = rank, b sets under way.
"""

from __future__ import annotations

import numpy as np

from fedage.common.statistics.influence_few import NEARLY_ALL
from fedage.common.statistics.statistic import FloatArray

_ALL = 1 - 1e-9


def made_up_by_few(columns: FloatArray, *, minimum_count: int) -> FloatArray | None:
    """Size (p,) of each standardised column of (n, p) in a combination that few make up; None if there is none."""
    n = columns.shape[0]
    few, nearly = min(minimum_count - 1, n // 3), n // 6
    if few < 2 or not columns.size:
        return None
    basis, singular, right = np.linalg.svd(np.column_stack([np.full(n, n**-0.5), columns]), full_matrices=False)
    kept = singular > singular[0] * max(columns.shape) * np.finfo(np.float64).eps
    u = basis[:, kept]
    leverage = (u * u).sum(axis=1)
    sets = np.flatnonzero(leverage >= NEARLY_ALL / few)[:, None]
    if not sets.size:
        return None
    combination = u[sets[:, 0]] / np.sqrt(leverage[sets])
    for size in range(1, few + 1):
        values = combination @ u.T
        at_them = np.square(np.take_along_axis(values, sets, axis=1)).sum(axis=1)
        limit = NEARLY_ALL if size <= nearly else _ALL if n - size >= 2 * u.shape[1] else np.inf
        best = int(np.argmax(at_them))
        if size > 1 and at_them[best] >= limit:
            weights: FloatArray = np.abs((combination[best] / singular[kept]) @ right[kept])[1:]
            return weights
        if size == few:
            break
        outside = np.abs(values)
        np.put_along_axis(outside, sets, -1.0, axis=1)
        sets = np.concatenate([sets, outside.argmax(axis=1)[:, None]], axis=1)
        rows = u[sets]
        squares, vectors = np.linalg.eigh(rows @ rows.transpose(0, 2, 1))
        most = np.sqrt(np.maximum(squares[:, -1:], np.finfo(np.float64).tiny))
        combination = np.einsum("bk,bkr->br", vectors[:, :, -1], rows) / most
    return None
