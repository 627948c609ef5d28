"""Where a model looks in an exam: how far the predicted age moves when a cell of a coarse grid is blotted out.

Occlusion (Zeiler & Fergus 2014). It asks the predictor alone, so that it is the same for every estimator, whatever it
is made of, and gives years. Kept by hand: MONAI's `OcclusionSensitivity` takes one exam at a time, its last windows
overlap where the grid does not divide the image, and its `mean_patch` multiplies a patch by its mean. Where the grid
divides the image, a test holds these numbers against it.

Legend: n exams, inputs with grids of K cells together; m (n, K), each row ≥ 0 with sum 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute.model import Hardware, samples_of
from fedage.client.compute.training import predict_columns
from fedage.client.site.cancel import should_stop
from fedage.common.analyses.evaluation.saliency import saliency_of
from fedage.common.campaign import Campaign
from fedage.common.estimators.base import PREDICTED_YEARS, Arrays, Estimator, Predictor, Samples
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.common.statistics.statistic import FloatArray


def saliency_columns(
    hardware: Hardware,
    campaign: Campaign,
    estimator: Estimator,
    site_cohort: SiteCohort,
    weights: Arrays,
    *,
    rows: NDArray[np.intp],
) -> dict[str, FloatArray]:
    """The maps of the patients in `rows` as columns (n,) of the cohort, NaN for others; none if no one asks for maps.

    Raises
    ------
    ModelRefused
        If the arrays are not those of the estimator.
    PredictionStopped
        If the message is cancelled.
    """
    asked = saliency_of(campaign)
    if asked is None:
        return {}
    made = np.full((site_cohort.cohort.n, len(asked.columns)), np.nan)
    if rows.size:
        made[rows] = saliency(
            estimator.predictor(weights, device=hardware.device),
            samples_of(site_cohort, rows),
            asked.grids,
            batch_size=estimator.prediction_batch,
            device=hardware.device,
            threads=hardware.threads,
            should_stop=should_stop,
        )
    return dict(zip(asked.columns, made.T, strict=True))


def saliency(
    predictor: Predictor,
    samples: Samples,
    grids: Sequence[CoarseGrid],
    *,
    batch_size: int,
    device: str = "auto",
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FloatArray:
    """Each exam's share of every cell, (n, K): |change of the predicted age| over the sum of all such changes.

    An exam whose prediction no cell changes has the same share everywhere: it says nothing of a place.

    Parameters
    ----------
    batch_size
        Exams predicted at a time.
    """

    def with_years(some: Samples) -> Mapping[str, FloatArray]:
        return changes_years(predictor, some, grids)

    made = predict_columns(
        with_years, samples, batch_size=batch_size, device=device, threads=threads, should_stop=should_stop
    )
    return shares(np.column_stack([made[column] for grid in grids for column in grid.columns]))


def changes_years(predictor: Predictor, samples: Samples, grids: Sequence[CoarseGrid]) -> dict[str, FloatArray]:
    """By cell, how far the predicted ages (n,) move when it is blotted out, signed, in years.

    It is filled with its own mean: air stays air, where one grey for all would put a square into it.
    """
    before = predictor(samples)[PREDICTED_YEARS]
    changes = {}
    for grid in grids:
        image = np.asarray(samples.arrays[grid.name][:])
        for column, where in zip(grid.columns, grid.slices(), strict=True):
            blotted = image.copy()
            cell: tuple[Any, ...] = (..., *where)
            sides = tuple(range(-len(where), 0))
            blotted[cell] = image[cell].mean(axis=sides, keepdims=True)
            other = Samples({**samples.arrays, grid.name: blotted}, samples.present, samples.taken)
            changes[column] = predictor(other)[PREDICTED_YEARS] - before
    return changes


def shares(changes_years: FloatArray) -> FloatArray:
    """Changes (n, K) as shares of their absolute sum; 1/K where nothing changes, or a change is no number."""
    size = np.abs(changes_years)
    total = size.sum(axis=1, keepdims=True)
    sound = np.isfinite(total) & (total > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: FloatArray = np.where(sound, size / total, 1 / size.shape[1])
    return result
