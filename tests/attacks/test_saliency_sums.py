"""Sums of maps as an oracle: a model that draws one patient's image into that patient's map, or groups to subtract."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute.contribute import Account, contributions
from fedage.common.analyses.evaluation.saliency import NAME, saliency_of, tempered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic

MINIMUM, N, CELLS = 10, 90, 16
IMAGE = np.arange(1.0, CELLS + 1) / np.arange(1.0, CELLS + 1).sum()
"""What the attacker is after: of one patient, cell by cell."""


def campaign(*, width: int = 10, more: str = "", low: int = 40) -> Campaign:
    return parse_campaign(
        f"""
[campaign]
name = "where"
purpose = "Draw an image into a map"
seed = 3
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
[cohort]
age_min_years = {low}
age_max_years = 80
[training]
rounds = 1
[privacy]
minimum_count = {MINIMUM}
[analyses.saliency]
cells = 4
age_bin_years = {width}
{more}
"""
    )


def told(
    file: Campaign, maps: FloatArray, folder: Path, *, age: FloatArray | None = None, **columns: FloatArray
) -> Statistic | None:
    """What leaves a site for such maps (n, 16); None if nothing does."""
    asked = saliency_of(file)
    assert asked is not None
    n = len(maps)
    age = np.random.default_rng(3).uniform(40, 80, n) if age is None else age
    predicted = age + np.random.default_rng(4).normal(0, 4, n)
    given = {"age_years": age, "predicted_years": predicted, **columns, **dict(zip(asked.columns, maps.T, strict=True))}
    ones = dict.fromkeys(("is_test", "healthy"), np.ones(n)) | dict.fromkeys(("is_train", "is_validation"), np.zeros(n))
    account = Account(folder=folder, patients="all", name="them-all", keys=tuple(f"p{k}" for k in range(n)))
    found = contributions(file, Cohort(given | ones), {NAME: {}}, folder=folder, run="r", guard=True, account=account)
    if NAME not in found.sums:
        return None
    return Statistic(layout=asked.layout({}), vector=found.sums[NAME], smallest=None)


def even(n: int = N) -> FloatArray:
    return np.full((n, CELLS), 1 / CELLS)


def one(others: FloatArray, *, few: int = 1) -> FloatArray:
    maps = others.copy()
    maps[:few] = IMAGE
    return maps


_RNG = np.random.default_rng(5)
_KNOWN = _RNG.dirichlet(np.ones(CELLS))
OTHERS = {
    "an even map": one(even()),
    "a map that the attacker knows": one(np.tile(_KNOWN, (N, 1))),
    "a map of one cell": one(np.tile(np.eye(CELLS)[3], (N, 1))),
    "an even map with a little noise": one(np.abs(even() + 1e-6 * _RNG.normal(size=(N, CELLS)))),
    "one of two known maps by turns": one(np.where(np.arange(N)[:, None] == 1, _KNOWN, even())),
    "an even map, and the image of nine": one(even(), few=9),
}


@pytest.mark.parametrize("maps", OTHERS.values(), ids=OTHERS)
def test_no_image_of_few_is_in_a_sum(maps: FloatArray, tmp_path: Path) -> None:
    found = told(campaign(), maps, tmp_path)
    if found is None:
        return
    shown = found["patients"] > 0
    rest = tempered(maps)[9:].mean(axis=0)
    # What the attacker has: the sum over all less what the others are known to be.
    drawn = (found["shares"][0] - (N - 1) * rest)[shown[0]]
    assert not shown[0].any() or np.ptp(drawn) < 1e-3 * np.ptp(tempered(IMAGE[None]))


def test_maps_of_everybody_are_told_and_are_their_means(tmp_path: Path) -> None:
    maps = _RNG.dirichlet(np.ones(CELLS), N)
    found = told(campaign(), maps, tmp_path)
    assert found is not None
    assert found["n"][0] == N
    shown = found["patients"][0] == N
    assert shown.mean() > 0.75
    np.testing.assert_allclose(found["shares"][0], tempered(maps).sum(axis=0) * shown, rtol=1e-12)


@pytest.mark.parametrize("cell", [0, 7, 15])
def test_a_cell_that_is_withheld_does_not_follow_from_the_others(cell: int, tmp_path: Path) -> None:
    """The cells of a map add up to 1."""
    maps = _RNG.dirichlet(np.full(CELLS, 20.0), N)
    maps[:, cell] = 0.0
    maps[0, cell] = 3.0
    maps /= maps.sum(axis=1, keepdims=True)
    found = told(campaign(), maps, tmp_path)
    assert found is not None
    hidden = found["patients"][0] == 0
    assert hidden[cell]
    assert hidden.sum() >= 2 or hidden.all()
    left = tempered(maps)[:, hidden].sum(axis=1)
    spread = (left - np.median(left)) ** 2
    assert spread.max() < 0.5 * spread.sum()


@pytest.mark.parametrize("apart", [1, 4, 9])
def test_a_group_by_a_value_that_is_an_age_group_but_for_a_few_is_not_told(apart: int, tmp_path: Path) -> None:
    age = np.sort(np.random.default_rng(6).uniform(40, 80, N))
    young = np.flatnonzero(age < 60)
    density = np.where(np.arange(N) < young.size - apart, 1.0, 2.0)
    maps = _RNG.dirichlet(np.ones(CELLS), N)
    file = campaign(width=20, more='column = "density"\nvalues = [1, 2]')
    found = told(file, maps, tmp_path, age=age, density=density)
    assert found is not None
    assert found["n"].tolist()[1:3] == [young.size, N - young.size]
    assert found["n"].tolist()[3:] == [0, 0]


@pytest.mark.parametrize("few", [1, 5, 9])
def test_a_value_that_few_have_is_in_no_group_and_does_not_follow(few: int, tmp_path: Path) -> None:
    density = np.where(np.arange(N) < few, 4.0, np.where(np.arange(N) % 2 == 0, 2.0, 3.0))
    maps = _RNG.dirichlet(np.ones(CELLS), N)
    found = told(campaign(more='column = "density"\nvalues = [2, 3, 4]'), maps, tmp_path, density=density)
    assert found is not None
    by_value = found["n"][-3:]
    assert by_value[2] == 0
    assert N - by_value.sum() >= MINIMUM


@pytest.mark.parametrize("widths", [(10, 15), (5, 20), (20, 5, 15)])
def test_groups_of_two_files_are_not_subtracted_until_few_are_left(widths: tuple[int, ...], tmp_path: Path) -> None:
    """Another file is another model, whose maps do not subtract; the same one for a site is a bundle's."""
    age = np.concatenate([np.random.default_rng(7).uniform(40, 80, N - 1), [44.5]])
    maps = _RNG.dirichlet(np.ones(CELLS), N)
    sizes = []
    for width in widths:
        found = told(campaign(width=width), maps, tmp_path, age=age)
        if found is not None:
            low = np.floor(40 / width) * width
            edges = [low + width * k for k in range(len(found["n"]))]
            sizes += [(a, b, n) for (a, b), n in zip(itertools.pairwise(edges), found["n"][1:], strict=True) if n]
    assert sizes
    for (a, b, one), (c, d, other) in itertools.combinations(sizes, 2):
        if (a <= c and d <= b) or (c <= a and b <= d):
            assert abs(one - other) == 0 or abs(one - other) >= MINIMUM


@pytest.mark.parametrize("count", [1, 5, 9])
def test_few_patients_have_no_map(count: int, tmp_path: Path) -> None:
    assert told(campaign(), _RNG.dirichlet(np.ones(CELLS), count), tmp_path) is None
