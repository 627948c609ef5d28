"""A site whose unit seems to differ is said at reading, and nothing is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.selection.image_units import unit_messages
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.cohort.table.units import distant_year_messages
from fedage.common.campaign_file import parse_campaign
from tests.client.cohort.dicoms import write

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
    return [line for line in found.messages if "standard deviations" in line]


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


SURVIVAL = """
[survival]
time = "fu"
event = "event"
[[survival.models]]
name = "age"
covariates = ["age_years"]
"""


def of_years(folder: Path, *, sites: str, **changed: float) -> list[str]:
    """What is said of sites where age and follow-up of b are multiplied."""
    rng = np.random.default_rng(1)
    names = np.repeat(list(sites), 40)
    values = {
        "age": np.concatenate([rng.permutation(np.linspace(2, 9, 40)) for _ in sites]),
        "fu": np.concatenate([rng.permutation(np.linspace(0.2, 6, 40)) for _ in sites]),
    }
    for column, factor in changed.items():
        values[column][names == "b"] *= factor
    frame = pd.DataFrame({"who": range(names.size), "site": names, "event": rng.integers(0, 2, names.size), **values})
    frame.to_csv(folder / "t.csv", index=False)
    text = CAMPAIGN.replace(CAMPAIGN[CAMPAIGN.index("[estimator]") : CAMPAIGN.index("[table]")], "") + SURVIVAL
    return [line for line in read_site_tables(folder / "t.csv", parse_campaign(text), site_column="site").messages
            if "the median of column" in line]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"fu": 12.0}, r"b: the median of column 'fu' is about 12 times that at the other sites, as where it holds "
                       r"months instead of years here; if so, give years, or declare divide_by = 12 where"),
        ({"fu": 21.0}, r"b: .*'fu' .*about 21 times .*months instead"),
        ({"fu": 1 / 12}, r"b: .*'fu' is about 1/12 of that at the other sites, as where it holds months .* there"),
        ({"fu": 1 / 365.25}, r"b: .*'fu' is about 1/365 of .*days instead of years there"),
        ({"age": 12.0}, r"b: .*'age' is about 12 times that at the other sites, as where it holds months"),
    ],
)  # fmt: skip
def test_months_that_pass_as_years_are_said(tmp_path: Path, changed: dict[str, float], says: str) -> None:
    (line,) = of_years(tmp_path, sites="abc", **changed)
    assert re.match(says, line)


def test_of_two_sites_both_are_named_and_sites_alike_are_not(tmp_path: Path) -> None:
    (line,) = of_years(tmp_path, sites="ab", fu=12.0)
    assert line.startswith(
        "a and b: the median of column 'fu' at b is about 12 times that at a, as where it holds months"
    )
    for near in ({"fu": 1.0}, {"fu": 4.0}, {"age": 0.3}, {"age": 9.0, "fu": 0.25}):
        assert len(of_years(tmp_path, sites="abc", **near)) == ("age" in near and near["age"] > 6)


@pytest.mark.parametrize(
    ("factor", "named"), [(52.0, "holds weeks"), (365.25, "holds days"), (5000.0, "another unit than years"), (3.0, "")]
)
def test_the_unit_follows_from_the_ratio(factor: float, named: str) -> None:
    years = np.linspace(0.01, 2, 20)
    found = distant_year_messages({"t": {"a": years, "b": years * 1.5, "c": years * factor, "d": years[:4] * 1e9}})
    assert [named in line and line.startswith("c: ") for line in found] == [True] * bool(named)
    halves = distant_year_messages(
        {"t": {"a": years, "b": years, "c": years * 12, "d": years * 12.5, "e": np.full(9, np.nan)}}
    )
    assert halves[0].startswith("a, b, c and d: the median of column 't' at c and d is about 12 times that at a and b")


def test_follow_up_beside_images_is_looked_at_too(tmp_path: Path) -> None:
    found = {}
    for site, factor in (("a", 1.0), ("b", 12.0), ("c", 1.1)):
        rows = [f"p{number},{factor * (number + 1)},1,{factor * 1e-3 + number}\n" for number in range(10)]
        for number in range(10):
            write(tmp_path / f"{site}/{number}.dcm", f"p{number}", Modality="DX")
        (tmp_path / f"{site}.csv").write_text("patient_id,fu,event,bmi\n" + "".join(rows))
        with CohortStore.open(tmp_path / f"home-{site}") as store:
            index_folder(store, tmp_path / site, outcomes_csv=tmp_path / f"{site}.csv")
            found[site] = select(store, modalities=(), age_min_years=0, age_max_years=120)
    campaign = parse_campaign(
        CAMPAIGN[: CAMPAIGN.index("[estimator]")]
        + '[estimator]\nname = "chest-ca"\n[training]\nrounds = 1\n'
        + SURVIVAL
    )
    (line,) = unit_messages(found, campaign)
    assert line.startswith("b: the median of column 'fu' is about 1")
    assert "months instead of years" in line
