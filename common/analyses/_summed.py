"""The columns whose products the analyses of predicted ages send, for the influence rule."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import FloatArray


def group_of(columns: Mapping[str, FloatArray], *, of: str) -> Group:
    """A group of patients with these columns (n,), all of which are in its sums.

    Parameters
    ----------
    columns
        By their names in words.
    of
        Who the patients are, in words.
    """
    values = np.column_stack(list(columns.values()))
    return Group(of=of, columns=np.empty((len(values), 0)), always=values, names_always=tuple(columns))


def ages_and_errors(age_years: FloatArray, predicted_years: FloatArray, *, of: str) -> Group:
    """Chronological and predicted ages (n,), and the errors, in years."""
    columns = {"age": age_years, "predicted age": predicted_years, "error": predicted_years - age_years}
    return group_of(columns, of=of)
