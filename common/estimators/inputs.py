"""What an estimator takes: images of an exam, a row of columns, or both."""

from __future__ import annotations

from fedage.common.estimators.base import Estimator, Input


def image_inputs(estimator: Estimator) -> tuple[Input, ...]:
    """What it takes of an exam's images."""
    return tuple(one for one in estimator.inputs if one.rank != 1)


def image_shapes(estimator: Estimator) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Of each image that it takes the name and the sides in pixels or voxels, without channels, as preprocessed."""
    images = image_inputs(estimator)
    shapes = estimator.shapes() if images else {}
    return tuple((one.name, tuple(shapes[one.name][-one.rank :])) for one in images if one.name in shapes)


def row_input(estimator: Estimator) -> Input | None:
    """The row that it takes; None if it takes none."""
    return next((one for one in estimator.inputs if one.rank == 1), None)
