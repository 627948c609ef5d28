"""Whether derived volumes lie where they should: in a session's own space on the grid of its volume, in a template's
all on one grid. A volume that does not was made of another one, or in another run of the tool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedage.client.cohort.bids.derivatives import derived_view, own_space
from fedage.client.cohort.decoding.nifti import VolumeFacts, read_volume

_TOLERANCE_MM = 0.01
"""Of the place of a voxel: affines are written in 32 bits."""
_LOOKED_AT = 5
"""Volumes in a template's space of which the most common grid is that of all."""


class DerivedGrids:
    """Grids that derived volumes are held against.

    Parameters
    ----------
    derived
        All of a data set, in order.
    """

    def __init__(self, derived: Sequence[Path]) -> None:
        self._by_view: dict[str, list[Path]] = {}
        for path in derived:
            if not own_space(path.name):
                self._by_view.setdefault(derived_view(path.name), []).append(path)

    def fits(self, volume: Path, facts: VolumeFacts, *, made_of: Path) -> bool:
        """Whether a derived volume has the shape and the affine that it should."""
        if own_space(volume.name):
            other = _facts(made_of)
            return other is not None and same_grid(facts, other)
        reference = self._reference(derived_view(volume.name))
        return reference is None or same_grid(facts, reference)

    def _reference(self, view: str) -> VolumeFacts | None:
        found = [facts for path in self._by_view[view][:_LOOKED_AT] if (facts := _facts(path)) is not None]
        if not found:
            return None
        alike = Counter(next(k for k, other in enumerate(found) if same_grid(facts, other)) for facts in found)
        return found[alike.most_common(1)[0][0]]


def same_grid(one: VolumeFacts, other: VolumeFacts) -> bool:
    """Whether two volumes have the same shape, and each corner at the same place."""
    if one.shape != other.shape:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, one.shape[0]) for j in (0, one.shape[1]) for k in (0, one.shape[2])])
    places = [np.array(facts.affine_mm).reshape(3, 4) @ corners.T for facts in (one, other)]
    return bool(np.abs(places[0] - places[1]).max() <= _TOLERANCE_MM)


@lru_cache(maxsize=64)
def _facts(path: Path) -> VolumeFacts | None:
    facts = read_volume(path)
    return facts if isinstance(facts, VolumeFacts) else None
