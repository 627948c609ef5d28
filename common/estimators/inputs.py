"""What an estimator takes: images of an exam, a row of columns, or both."""

from __future__ import annotations

from fedage.common.estimators.base import Estimator, Input


def image_inputs(estimator: Estimator) -> tuple[Input, ...]:
    """What it takes of an exam's images."""
    return tuple(one for one in estimator.inputs if one.rank != 1)


def row_input(estimator: Estimator) -> Input | None:
    """The row that it takes; None if it takes none."""
    return next((one for one in estimator.inputs if one.rank == 1), None)
