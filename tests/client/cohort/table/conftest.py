"""A table of forty patients of two sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "who": [f"p{number}" for number in range(40)],
            "site": ["a"] * 20 + ["b"] * 20,
            "age": rng.uniform(20, 80, 40).round(1),
            "thick": rng.normal(3, 0.3, size=40).round(3),
            "area": rng.normal(1500, 300, size=40).round(1),
            "other": rng.normal(1500, 300, size=40).round(1),
            "time": rng.uniform(0.1, 9, size=40).round(2),
            "status": [0, 1] * 20,
        }
    ).astype({"area": object, "other": object, "status": object, "age": object})
