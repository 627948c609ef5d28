"""Attack by three columns and more that are 0 together for a few: 1 less their sum is these few patients' own column.

Each column and each pair passes, and no single patient makes up a combination. With the guard off the sums of the
combination are those of the few; at a site as it is deployed one of the columns is left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.preparation.table_preparation import NAME
from fedage.common.statistics.influence import Group, InfluenceRule, passing
from fedage.common.statistics.influence_combinations import made_up_by_few
from fedage.common.statistics.statistic import FloatArray
from tests.attacks.test_influence_tables import PATIENTS, around_zero, attacker, hospital

FEW = 4


def one_hot(few: int) -> dict[str, FloatArray]:
    """Four categories in three columns; `few` patients have the fourth."""
    group = np.random.default_rng(3).integers(0, 3, PATIENTS)
    group[:few] = 3
    return {f"zgroup{k}": (group == k) * 1.0 for k in range(3)}


def six_groups(few: int) -> dict[str, FloatArray]:
    group = np.random.default_rng(4).integers(0, 6, PATIENTS)
    group[10 : 10 + few] = 6
    return {f"zgroup{k}": (group == k) * 1.0 for k in range(6)}


def a_sum_with_noise(few: int) -> dict[str, FloatArray]:
    """Three columns of numbers, of which the third is the sum of the others but for the few."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, PATIENTS))
    c = a + b + rng.normal(0, 1e-4, PATIENTS)
    c[20 : 20 + few] += rng.normal(0, 2, few)
    return {"za": a, "zb": b, "zc": c}


def embedded(few: int) -> dict[str, FloatArray]:
    """Eight columns that a network might compute; one combination of them is 0 for all but the few."""
    rng = np.random.default_rng(7)
    rare = np.zeros(PATIENTS)
    rare[30 : 30 + few] = rng.uniform(0.7, 1.3, few)
    mixed = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    columns = np.column_stack([rng.normal(size=(PATIENTS, 7)), rare]) @ mixed
    return {f"z{k}": column for k, column in enumerate(columns.T)}


CRAFTED = (one_hot, six_groups, a_sum_with_noise, embedded)


def test_without_the_rule_the_sums_of_four_come_out(tmp_path: Path) -> None:
    cohort = hospital(one_hot(FEW))
    one = attacker(cohort, tmp_path, guard=False)
    sums = one.ask(NAME, around_zero(one, None))
    assert sums is not None, one.refusals
    which = [one.features.index(f"zgroup{k}") for k in range(3)]
    assert sums["n"].sum() - sums["u"].sum(axis=0)[which].sum() == pytest.approx(FEW)
    told = (sums["t"].sum() - sums["ut"].sum(axis=0)[which].sum()) / FEW
    others = (sums["t"].sum() - told * FEW) / (PATIENTS - FEW)
    age = cohort["age_years"]
    assert told - others == pytest.approx(age[:FEW].mean() - age[FEW:].mean(), abs=1e-6)


@pytest.mark.parametrize("crafted", CRAFTED)
@pytest.mark.parametrize("few", [2, FEW, 9])
def test_a_column_of_the_combination_is_left_out(crafted, few: int) -> None:
    columns = np.column_stack(list(crafted(few).values()))
    age = np.random.default_rng(8).uniform(30, 80, PATIENTS)[:, None]
    ok = passing(
        [Group(of="patients", columns=columns, always=age, names_always=("age",))], InfluenceRule(minimum_count=10)
    )
    assert 0 < np.count_nonzero(~ok) < columns.shape[1]
    kept = columns[:, ok] - columns[:, ok].mean(axis=0)
    assert made_up_by_few(kept / np.linalg.norm(kept, axis=0), minimum_count=10) is None


@pytest.mark.parametrize("crafted", CRAFTED)
def test_as_many_as_the_minimum_count_pass(crafted) -> None:
    columns = np.column_stack(list(crafted(12).values()))
    age = np.random.default_rng(8).uniform(30, 80, PATIENTS)[:, None]
    assert passing(
        [Group(of="patients", columns=columns, always=age, names_always=("age",))], InfluenceRule(minimum_count=10)
    ).all()


@pytest.mark.parametrize(("n", "p"), [(24, 6), (40, 12), (60, 16), (120, 40)])
def test_unrelated_columns_pass(n: int, p: int) -> None:
    rng = np.random.default_rng(9)
    for _ in range(5):
        z = rng.normal(size=(n, p))
        z -= z.mean(axis=0)
        assert made_up_by_few(z / np.linalg.norm(z, axis=0), minimum_count=10) is None
