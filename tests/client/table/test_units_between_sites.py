"""A site whose unit seems to differ is said at reading, and nothing is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.table.sites import read_site_tables
from fedage.common.campaign import parse_campaign

CAMPAIGN = """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1

[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]

[table]
id = "who"
age = "age"
"""
Values = Callable[[np.ndarray], np.ndarray]
FAR: dict[str, Values] = {
    "mm³ for ml": lambda ml: ml * 1000,
    "ml for mm³": lambda ml: ml / 1000,
    "mm for cm": lambda ml: ml * 10,
    "litres for ml": lambda ml: ml / 1e6,
}
NEAR: dict[str, Values] = {
    "the same": lambda ml: ml,
    "a scanner's shift": lambda ml: ml + 2.0,
    "a wider spread": lambda ml: 3 * ml - 6.0,
    "few codes": lambda ml: np.where(np.arange(ml.size) < 6, -9999, ml),
    "one value": lambda ml: np.full_like(ml, 1500.5),
    "missing": lambda ml: ml * np.nan,
}


def said(folder: Path, change: Values, *, sites: str) -> list[str]:
    rng = np.random.default_rng(0)
    names = np.repeat(list(sites), 40)
    volume = rng.normal(4.0, 0.3, names.size)
    volume[names == "b"] = change(volume[names == "b"])
    frame = pd.DataFrame({"who": [f"p{k}" for k in range(names.size)], "site": names, "volume": volume})
    frame["age"], frame["thick"] = rng.uniform(20, 80, names.size), rng.normal(2.5, 0.2, names.size)
    frame["rare"] = (np.arange(names.size) == 0) | ((names == "b") & (rng.uniform(size=names.size) < 0.5))
    frame["rare"] = frame["rare"].astype(int)
    path = folder / "t.csv"
    frame.to_csv(path, index=False)
    found = read_site_tables(path, parse_campaign(CAMPAIGN), site_column="site")
    assert len(found.sites) == len(sites)
    return [line for line in found.said if "standard deviations" in line]


@pytest.mark.parametrize("sites", ["abc", "abcd"])
@pytest.mark.parametrize("case", FAR)
def test_the_site_with_another_unit_is_named(tmp_path: Path, case: str, sites: str) -> None:
    (line,) = said(tmp_path, FAR[case], sites=sites)
    assert line.startswith("b: the median of column 'volume' is more than 10 standard deviations")
    assert "divide_by" in line


@pytest.mark.parametrize("case", ["mm³ for ml", "ml for mm³", "litres for ml", "percent", "wide", "wide, in thousands"])
def test_of_two_sites_both_are_named(tmp_path: Path, case: str) -> None:
    """Also where a unit makes the SD so large that only the other site's is small beside the distance."""
    wide: dict[str, Values] = {
        "percent": lambda share: (share - 3) * 100,
        "wide": lambda ml: (ml - 3) * 50,
        "wide, in thousands": lambda ml: (ml - 2.5) / 1000,
    }
    (line,) = said(tmp_path, (FAR | wide)[case], sites="ab")
    assert line.startswith("a and b: the median of column 'volume'")


@pytest.mark.parametrize("sites", ["ab", "abc"])
@pytest.mark.parametrize("case", NEAR)
def test_sites_that_differ_as_sites_do_are_not_said(tmp_path: Path, case: str, sites: str) -> None:
    assert said(tmp_path, NEAR[case], sites=sites) == []
