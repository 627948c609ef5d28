"""Of which families a hidden sum is: sums of one family, subtracted, tell of the sites that are in one of them only.

A family is what may be asked again in nearly the same way: an analysis of one column of a data set, whatever its
iterate, its other columns, its campaign and its name there; the training of an estimator on a data set, whatever the
model and the round. Columns of a cohort have the names that sites know; a file may name a step as it likes.
"""

from __future__ import annotations

from fedage.client.inbox.gate import Work
from fedage.common.analyses.base import Analysis, Iterate, subset_of
from fedage.common.privacy.ring import digest_of
from fedage.common.protocol.secure import UPDATE

_COLUMNS = ("covariates", "gap", "column", "prediction")
"""What analyses call the columns that are theirs among those of their kind; times and events are of all of a kind."""


def family_of_training(work: Work) -> str:
    """The family of an estimator's updates."""
    estimator = work.campaign.estimator
    return digest_of("family", UPDATE, _data_set(work), "" if estimator is None else estimator.name)


def families_of(work: Work, step: Analysis, iterate: Iterate) -> list[str]:
    """The families of an analysis' sums, or of what its sites say yes and no to before them."""
    agreeing = not iterate and hasattr(step, "analysis")
    analysis = getattr(step, "analysis", step)
    read = getattr(analysis, "cox", analysis)
    columns: set[str] = set()
    for name in _COLUMNS:
        found = getattr(read, name, None)
        columns |= {found} if isinstance(found, str) else set(found or ())
    kind, subset = type(analysis).__name__, subset_of(step)
    return [
        digest_of("family", kind, "agreement" if agreeing else "", _data_set(work), subset, column)
        for column in sorted(columns) or [""]
    ]


def family_of_analyses(work: Work, step: Analysis) -> str:
    """The family of all analyses of the same part of a data set.

    Attack: two analyses that have a sum in common, such as errors and errors by age, one of them over a site fewer.
    Rule: all of them are over the sites that answer one of them, whether or not a site withholds its own sums. Residual
    risk: an analysis that a site has to withhold, as it lacks a column that the file names.
    """
    return digest_of("family", "analyses", _data_set(work), subset_of(step))


def _data_set(work: Work) -> str:
    return "" if work.terms is None else work.terms.allowed.data_set_name
