"""Where slices lie in space, and whether they are one even stack (PS3.3 section C.7.6.2).

Patient coordinates x = (x, y, z) are DICOM's, in millimetres, towards left, back and head. A slice's first pixel is at
its position p; a step along its row goes by the spacing between columns in direction r, a step down its column by the
spacing between rows in direction c. The normal is n = r × c, and d = p · n orders the slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedage.client.cohort.reasons import Reason
from fedage.common.statistics.statistic import FloatArray

ORIENTATION_TOLERANCE = 1e-3
"""Largest difference of direction cosines between slices that count as parallel: 0.06 degrees."""
GAP_TOLERANCE = 0.02
"""Largest deviation from the smallest gap, as a fraction of it: headers round positions to a few digits."""
_SAME_PLACE_MM = 0.01
_OBLIQUE = 1e-3


@dataclass(frozen=True)
class Stack:
    """Slices that are one even stack.

    Parameters
    ----------
    order
        Indices of the slices (F,) along the normal.
    affine
        (4, 4); patient coordinates in millimetres of voxel (slice, row, column, 1), slices in `order`.
    """

    order: tuple[int, ...]
    affine: FloatArray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between slices, rows and columns."""
        slices, rows, columns = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return slices, rows, columns

    @property
    def oblique(self) -> bool:
        """Whether the slices lie along none of the body's three planes."""
        normal = self.affine[:3, 0] / np.linalg.norm(self.affine[:3, 0])
        return bool(np.abs(normal).max() < 1 - _OBLIQUE)


def build_stack(positions: FloatArray, orientations: FloatArray, spacings_mm: FloatArray) -> Stack | Reason:
    """The stack that slices form, or the reason why they form none.

    Parameters
    ----------
    positions
        (F, 3) of the slices' first pixels, in millimetres.
    orientations
        (F, 6): direction cosines r and c.
    spacings_mm
        (F, 2): between rows, between columns.
    """
    is_finite = all(np.isfinite(part).all() for part in (positions, orientations, spacings_mm))
    if len(positions) < 2 or not is_finite or spacings_mm.min() <= 0 or not _are_directions(orientations):
        return Reason.NO_GEOMETRY
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE or np.ptp(spacings_mm, axis=0).max() > 1e-3:
        return Reason.MIXED_ORIENTATION
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[order])
    smallest = float(gaps.min())
    # Beside the usual gap, not the largest: one slice far from an otherwise dense series is no repetition.
    if smallest <= max(_SAME_PLACE_MM, GAP_TOLERANCE * float(np.median(gaps))):
        return Reason.REPEATED_POSITIONS
    offsets = positions - distances[:, None] * normal
    if np.ptp(offsets, axis=0).max() > GAP_TOLERANCE * smallest + spacings_mm.max() / 2:
        return Reason.MIXED_ORIENTATION
    steps = gaps / smallest
    whole = np.round(steps).astype(np.intp)
    # Missing where most gaps are the smallest and some a multiple of it; where most are twice it, a slice is too many.
    usual_step = np.bincount(np.minimum(whole, 1000)).argmax()
    if np.abs(steps - whole).max() > GAP_TOLERANCE * steps.max() or usual_step > 1:
        return Reason.VARIABLE_GAPS
    if whole.max() > 1:
        return Reason.MISSING_SLICES
    affine = np.eye(4)
    affine[:3, 0] = normal * (distances[order[-1]] - distances[order[0]]) / (len(positions) - 1)
    affine[:3, 1] = column * spacings_mm[0, 0]
    affine[:3, 2] = row * spacings_mm[0, 1]
    affine[:3, 3] = positions[order[0]]
    return Stack(order=tuple(int(index) for index in order), affine=affine)


def _are_directions(orientations: FloatArray) -> bool:
    """Whether r and c are of length one and at right angles, within what rounding in headers leaves."""
    rows, columns = orientations[:, :3], orientations[:, 3:]
    lengths = np.concatenate([np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1)])
    return bool(np.abs(lengths - 1).max() < 0.01 and np.abs((rows * columns).sum(axis=1)).max() < 0.01)
