"""The influence rule asked again of the same patients, and the most frequent values it counts by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedage.common.statistics import influence_recent
from fedage.common.statistics._recent import Recent
from fedage.common.statistics.cohort import Cohort, MissingColumn
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule, passing
from fedage.common.statistics.influence_few import most_frequent
from fedage.common.statistics.influence_recent import passing_as_before

RULE = InfluenceRule(minimum_count=3, patients_per_column=0)


def group(seed: int) -> Group:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(40, 4))
    columns[:, 1] = np.where(np.arange(40) < 2, 1.0, 0.0)
    return Group(of="the patients", columns=columns, always=rng.normal(size=(40, 1)), names_always=("age",))


def test_the_same_groups_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(influence_recent, "passing", lambda *given: calls.append(1) or passing(*given))
    first = passing_as_before([group(11)], RULE)
    first[:] = False  # a copy of what is kept
    again = passing_as_before([group(11)], RULE)
    assert len(calls) == 1
    assert again.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "change",
    [
        {"always": np.linspace(0, 1, 40)[:, None]},
        {"products": False},
        {"inner": True},
        {"earlier": np.zeros((40, 1))},
        {"columns": group(12).columns},
    ],
)
def test_whatever_decides_is_judged_anew(change: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influence_recent, "_answers", Recent(most=9))
    passing_as_before([group(13)], RULE)
    asked: list[Group] = []

    def judged(groups: list[Group], _rule: InfluenceRule) -> np.ndarray:
        asked.extend(groups)
        return np.ones(4, dtype=bool)

    monkeypatch.setattr(influence_recent, "passing", judged)
    passing_as_before([replace(group(13), **change)], RULE)
    passing_as_before([group(13)], replace(RULE, minimum_count=5))
    assert len(asked) == 2


def test_a_refusal_is_one_again() -> None:
    few = replace(group(14), always=np.where(np.arange(40) < 1, 5.0, 0.0)[:, None])
    for _ in range(2):
        with pytest.raises(InfluenceRefused, match="sums of age"):
            passing_as_before([few], RULE)


@pytest.mark.parametrize("seed", range(4))
def test_the_most_frequent_values_are_those_of_a_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = np.round(rng.normal(size=(31, 6)) * (seed + 1))
    columns[rng.random(columns.shape) < 0.1] = np.nan
    columns[:, 5] = np.nan
    columns[3, 0] = np.inf
    values, counts = most_frequent(columns)
    for j in range(5):
        found, times = np.unique(columns[np.isfinite(columns[:, j]), j], return_counts=True)
        assert (values[j], counts[j]) == (found[np.argmax(times)], times.max())
    assert (np.isnan(values[5]), counts[5]) == (True, 0)


def test_a_part_of_a_cohort_is_copied_column_by_column() -> None:
    whole = Cohort({"a": np.arange(6.0), "b": np.arange(6.0) ** 2})
    mask = np.arange(6) % 2 == 0
    part = whole.where(mask)
    mask[:] = False  # whoever chose may go on
    assert part.n == 3
    assert part["b"].tolist() == [0.0, 4.0, 16.0]
    assert part.where(part["a"] > 0).with_columns(c=np.ones(2)).matrix(("a", "c")).tolist() == [[2.0, 1.0], [4.0, 1.0]]
    with pytest.raises(MissingColumn):
        part["none"]
