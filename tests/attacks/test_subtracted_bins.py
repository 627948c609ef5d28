"""Tables by bins of age, on grids or of patients that differ a little: their bins are subtracted until few are left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import with_parts
from fedage.client.compute.contribute import Account, contributions
from fedage.client.consent.accounts.told_bins import ToldBins
from fedage.common.analyses.bias.gap_by_age import GapByAge
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.age_cuts import EarlierCells, cells_between, cuts_of
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic

MINIMUM, ALONE = 10, 44


def campaign(*, low: int = 40, high: int = 80, width: int = 1, floor: float = 1.0) -> Campaign:
    return parse_campaign(
        f"""
[campaign]
name = "bins"
purpose = "Subtract the bins of two tables"
seed = 3
[table]
id = "id"
age = "age"
predicted = "predicted"
sex = "sex"
[cohort]
age_min_years = {low}
age_max_years = {high}
[privacy]
minimum_count = {MINIMUM}
[analyses.age-errors]
age_bin_years = {width}
mape_floor_years = {floor}
"""
    )


def patients(rng: np.random.Generator, *, alone: int = ALONE, years: range = range(40, 80)) -> dict[str, np.ndarray]:
    """Twelve or thirteen patients of each year of age, and one of the year `alone`."""
    count = {year: 12 + int(year % 3 > 0) for year in years} | {alone: 1}
    age = np.concatenate([year + rng.uniform(0.05, 0.95, many) for year, many in count.items()])
    predicted = age + rng.normal(0, 4, age.size)
    sex = (np.arange(age.size) % 2).astype(float)
    return {"age_years": age, "predicted_years": predicted, "raw_gap_years": predicted - age, "is_male": sex}


def asked(file: Campaign, columns: dict[str, np.ndarray], folder: Path, *, names: list[str]) -> dict[str, Statistic]:
    """What a site tells of the tables by age, over all campaigns asked in this folder."""
    cohort = with_parts(Cohort(columns), np.linspace(0, 0.999, len(names)), file)
    account = Account(folder=folder, patients="all", name="them-all", keys=tuple(names))
    told = {}
    for step in ("age-errors", "gap-by-age:raw", "predicted-by-age"):
        found = contributions(file, cohort, {step: {}}, folder=folder, run="attack", guard=True, account=account)
        if step in found.sums:
            layout = registered(file)[step].layout({})
            told[step] = Statistic(layout=layout, vector=found.sums[step], smallest=None)
    return told


def intervals(file: Campaign, told: dict[str, Statistic]) -> Iterator[tuple[float, float, float, float]]:
    """The bins told: from, to, patients, sum of errors."""
    for step, sums, skipped in (("age-errors", ("n", "error"), 3), ("gap-by-age:raw", ("counts", "gap"), 0)):
        if step not in told:
            continue
        edges = list(registered(file)[step].edges_years)  # type: ignore[attr-defined]
        edges[0], edges[-1] = -np.inf, np.inf
        pairs = zip(itertools.pairwise(edges), *(told[step][name][skipped:] for name in sums), strict=True)
        for (low, high), n, total in pairs:
            if n:
                yield low, high, float(n), float(total)


def smallest_difference(tables: list[list[tuple[float, float, float, float]]]) -> float:
    """Of patients, between any run of neighbouring bins of one table and any run of another, 0 left out."""
    runs = []
    for table in tables:
        by_start = {low: (high, n) for low, high, n, _ in table}
        for low in by_start:
            end, many = low, 0.0
            while end in by_start:
                end, n = by_start[end]
                many += n
                runs.append((low, end, many))
    least = np.inf
    for (a, b, one), (c, d, other) in itertools.combinations(runs, 2):
        if (a <= c and d <= b) or (c <= a and b <= d):
            least = min(least, abs(one - other) or np.inf)
    return least


GRIDS = {
    "years beside five years": [{}],
    "years beside ten years": [{"high": 130}],
    "five years, then ten": [{"width": 50}, {"width": 50, "high": 130}],
    "ten years, then five": [{"width": 50, "high": 130}, {"width": 50}],
    "widths of 7, 8 and 9": [{"width": width} for width in (7, 8, 9)],
    "widths of 2 and 3": [{"width": 2}, {"width": 3}],
}


@pytest.mark.parametrize("files", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("alone", [44, 45, 59, 71])
def test_no_two_grids_leave_a_few(files: list[dict[str, int]], alone: int, tmp_path: Path) -> None:
    columns = patients(np.random.default_rng(1), alone=alone)
    names = [f"p{k}" for k in range(columns["age_years"].size)]
    tables = []
    for given in files:
        told = asked(campaign(**given), columns, tmp_path, names=names)
        assert {"age-errors", "gap-by-age:raw"} <= set(told)
        for step in told:
            tables.append(list(intervals(campaign(**given), {step: told[step]})))
    assert sum(map(len, tables)) >= 3, "otherwise nothing is told, which is no answer"
    assert smallest_difference(tables) >= MINIMUM


def test_without_the_rule_one_patient_is_left() -> None:
    """What the attack gets of tables that are each right by themselves."""
    columns = patients(np.random.default_rng(1))
    counts = np.bincount(np.floor(columns["age_years"]).astype(int))
    assert counts[40:45].sum() - counts[40:44].sum() == 1


@pytest.mark.parametrize("few", [1, 3, 9])
@pytest.mark.parametrize("added", [76, 52], ids=["older", "in between"])
def test_a_cohort_that_grew_gives_nobody_away(few: int, added: int, tmp_path: Path) -> None:
    """Ten patients came, a few of them in one bin: the bin before and after differ by these few."""
    rng = np.random.default_rng(2)
    columns = patients(rng)
    came = {
        "age_years": np.concatenate([np.full(few, added + 0.5), np.full(12, 61.5)]),
        "is_male": np.zeros(few + 12),
    }
    came["predicted_years"] = came["age_years"] + 1
    came["raw_gap_years"] = came["predicted_years"] - came["age_years"]
    later = {name: np.concatenate([columns[name], came[name]]) for name in columns}
    names = [f"p{k}" for k in range(later["age_years"].size)]
    file = campaign()
    first = asked(file, columns, tmp_path, names=names[: columns["age_years"].size])
    second = asked(file, later, tmp_path, names=names)
    tables = [list(intervals(file, {step: told[step]})) for told in (first, second) for step in sorted(told)]
    assert smallest_difference(tables) >= MINIMUM
    assert any(tables[2:])


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    columns = patients(np.random.default_rng(3))
    names = [f"p{k}" for k in range(columns["age_years"].size)]
    first = asked(campaign(), columns, tmp_path, names=names)
    asked(campaign(width=7), columns, tmp_path, names=names)
    again = asked(campaign(), columns, tmp_path, names=names)
    assert set(first) == set(again)
    for step, statistic in first.items():
        np.testing.assert_array_equal(statistic.vector, again[step].vector)


def test_parts_drawn_by_chance_keep_their_bins() -> None:
    """Different test patients of the same site do not take each other's bins."""
    rng = np.random.default_rng(4)
    age = rng.uniform(40, 80, 2000)
    edges = tuple(float(year) for year in range(40, 81, 5))
    earlier: list[EarlierCells] = []
    for _ in range(20):
        inside = rng.random(2000) < 0.2
        those = [EarlierCells(cell=one.cell[inside], sizes=one.sizes) for one in earlier]
        cuts = cuts_of(age[inside], edges, minimum_count=MINIMUM, earlier=those)
        assert cuts == frozenset(range(9))
        cells = cells_between(age[inside], edges, cuts)
        cell = np.full(2000, -1)
        cell[inside] = cells
        earlier.append(EarlierCells(cell=cell, sizes=np.bincount(cells)))


@pytest.mark.parametrize("floors", [(50.0, 50.02), (44.0, 45.0, 46.0), (60.0, 60.001, 60.002)])
def test_floors_between_which_few_are_cost_the_percentage(floors: tuple[float, ...], tmp_path: Path) -> None:
    columns = patients(np.random.default_rng(5))
    columns["age_years"][:2] = 50.01
    names = [f"p{k}" for k in range(columns["age_years"].size)]
    told = [asked(campaign(floor=floor), columns, tmp_path, names=names)["age-errors"] for floor in floors]
    by_floor = sorted((floor, float(one["relative_n"][0])) for floor, one in zip(floors, told, strict=True))
    answered = [floor for floor, n in by_floor if n]
    assert answered[0] == floors[0]
    assert all(float(one["n"][0]) == len(names) for one in told)
    for low, high in itertools.pairwise(answered):
        between = np.count_nonzero((columns["age_years"] > low) & (columns["age_years"] < high))
        assert between == 0 or between >= MINIMUM


@pytest.mark.parametrize("others", [1, 4, 9])
def test_a_sex_that_is_nearly_a_bin_is_not_told(others: int, tmp_path: Path) -> None:
    columns = patients(np.random.default_rng(6))
    sex = (columns["age_years"] >= 60).astype(float)
    sex[np.flatnonzero(sex == 0)[:others]] = 1.0
    columns["is_male"] = sex
    names = [f"p{k}" for k in range(sex.size)]
    told = asked(campaign(), columns, tmp_path, names=names)["age-errors"]
    assert told["n"][1:3].tolist() == [0.0, 0.0]
    columns["is_male"] = (np.arange(sex.size) % 2).astype(float)
    told = asked(campaign(), columns, tmp_path / "another", names=names)["age-errors"]
    assert told["n"][1:3].min() >= MINIMUM


def test_another_models_bins_of_a_cohort_that_grew_are_told(tmp_path: Path) -> None:
    """Errors of two models do not subtract, so that a hospital whose patients come one by one keeps its figures."""
    rng = np.random.default_rng(7)
    age = rng.uniform(40, 80, 240)
    edges = tuple(float(year) for year in range(40, 81, 10))
    asks = GapByAge("gap-by-age:raw", "raw_gap_years", edges, minimum_count=MINIMUM)
    cuts = {}
    for model, many in (("first run", 220), ("second run", 240), ("first run", 240), ("third run", 220)):
        columns = {"age_years": age[:many], "raw_gap_years": age[:many] * 0, "is_test": np.ones(many)}
        account = ToldBins(tmp_path, patients=[str(k) for k in range(many)], model=model, minimum_count=MINIMUM)
        found = account.accounted(asks, Cohort(columns))
        assert isinstance(found, GapByAge)
        assert found.cuts is not None
        cuts[model, many] = len(found.cuts)
    assert cuts["first run", 220] == cuts["second run", 240] == cuts["third run", 220] == 5
    assert cuts["first run", 240] < 5
