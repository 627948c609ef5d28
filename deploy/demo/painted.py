"""Where a phantom shows age: the pixels or voxels that differ between a young and an old sign of one person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

YOUNG_YEARS, OLD_YEARS = 40.0, 85.0
_PART = 0.25


def painted(render: Callable[[float], NDArray[Any]]) -> NDArray[np.bool_]:
    """Where an image changes with age by more than a quarter of its largest change, in the image's own shape.

    Parameters
    ----------
    render
        Renders one person, and preprocesses if so wanted, with signs that look so many years old; everything else,
        all chance included, is the same at each call.
    """
    change = np.abs(np.asarray(render(OLD_YEARS), dtype=np.float64) - render(YOUNG_YEARS))
    return np.asarray(change > _PART * change.max())
