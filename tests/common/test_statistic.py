"""The contract of what a site sends."""

import numpy as np
import pytest

from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic, total

LAYOUT = Layout((Field("n", lower=0, upper=100), Field("x", (2, 3), lower=-5, upper=5), Field("none", (0,))))


def statistic(n, x, *cells):
    return Statistic.of(LAYOUT, {"n": n, "x": np.asarray(x, dtype=float), "none": np.empty(0)}, cells)


def test_blocks_flatten_in_order_and_come_back():
    block = np.arange(6.0).reshape(2, 3)
    found = statistic(7, block)
    assert found.vector.tolist() == [7, 0, 1, 2, 3, 4, 5]
    assert LAYOUT.size == 7
    assert np.array_equal(found["x"], block)
    assert found["none"].shape == (0,)
    assert found.scalar("n") == 7.0
    assert isinstance(found.scalar("n"), float)


def test_bounds_are_per_entry():
    lower, upper = LAYOUT.bounds()
    assert lower.tolist() == [0, -5, -5, -5, -5, -5, -5]
    assert upper.tolist() == [100, 5, 5, 5, 5, 5, 5]
    assert Layout(()).bounds()[0].shape == (0,)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"n": 1.0}, "blocks"),
        ({"n": 1.0, "x": np.zeros((2, 3)), "none": np.empty(0), "y": 1.0}, "blocks"),
        ({"n": 1.0, "x": np.zeros((3, 2)), "none": np.empty(0)}, "block x has shape"),
        ({"n": np.zeros(1), "x": np.zeros((2, 3)), "none": np.empty(0)}, "block n has shape"),
    ],
)
def test_blocks_must_fit_the_layout(values, word):
    with pytest.raises(ValueError, match=word):
        LAYOUT.flatten(values)


def test_names_of_a_layout_are_unique_and_vectors_have_its_length():
    with pytest.raises(ValueError, match="repeated"):
        Layout((Field("n"), Field("n")))
    with pytest.raises(ValueError, match="its layout 7"):
        Statistic(layout=LAYOUT, vector=np.zeros(6), smallest=None)


def test_the_sum_and_its_neutral_element():
    one, other = statistic(1, np.ones((2, 3))), statistic(2, np.full((2, 3), 0.5))
    assert (one + other)["x"].tolist() == [[1.5] * 3] * 2
    assert (one + other).scalar("n") == 3
    assert np.array_equal((one + Statistic.zero(LAYOUT)).vector, one.vector)
    assert one["x"].tolist() == [[1.0] * 3] * 2  # the summands stay as they were
    with pytest.raises(ValueError, match="different layouts"):
        _ = one + Statistic.zero(Layout((Field("n"),)))


def test_the_smallest_occupied_cell_travels_with_the_sum():
    one = statistic(1, np.zeros((2, 3)), Cell(12, "patients"), Cell(0, "nobody"), Cell(4, "events"))
    assert one.smallest == Cell(4, "events")
    other = statistic(1, np.zeros((2, 3)), Cell(3, "others"))
    empty = statistic(0, np.zeros((2, 3)), Cell(0, "nobody"))
    assert empty.smallest is None
    assert (one + other).smallest == (other + one).smallest == Cell(3, "others")
    assert (one + empty).smallest == Cell(4, "events")
    assert (empty + empty).smallest is None


def test_the_order_of_arrival_changes_no_bit():
    rng = np.random.default_rng(0)
    sites = {f"site-{k}": statistic(k, rng.normal(size=(2, 3)) * 10.0 ** rng.integers(-8, 8)) for k in range(9)}
    expected = total(LAYOUT, sites).vector
    for seed in range(5):
        shuffled = {site: sites[site] for site in np.random.default_rng(seed).permutation(list(sites))}
        assert np.array_equal(total(LAYOUT, shuffled).vector, expected)
    assert total(LAYOUT, {}).vector.tolist() == [0.0] * 7
