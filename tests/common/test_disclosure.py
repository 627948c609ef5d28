import numpy as np
import pytest

from fedage.common.statistics.disclosure import suppress_by_row, suppress_small_cells


def test_small_cells_go_and_are_counted():
    found = suppress_small_cells(np.array([0, 3, 10, 40, 9]), 10)
    assert found.counts.tolist() == [0, 0, 10, 40, 0]
    assert found.shown.tolist() == [True, False, True, True, False]
    assert found.withheld == 12


def test_a_small_withheld_total_takes_the_smallest_other_cell_with_it():
    found = suppress_small_cells(np.array([[0, 3], [12, 40]]), 10)
    assert found.counts.tolist() == [[0, 0], [0, 40]]
    assert found.withheld == 15


@pytest.mark.parametrize("minimum", [1, 2])
def test_nothing_is_small(minimum):
    found = suppress_small_cells(np.array([2, 0, 5]), minimum)
    assert found.counts.tolist() == [2, 0, 5]
    assert (found.withheld, found.shown.all()) == (0, True)


def test_all_patients_together_are_few():
    found = suppress_small_cells(np.array([2, 0, 5]), 10)
    assert found.counts.tolist() == [0, 0, 0]
    assert found.withheld == 7


def test_a_minimum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="minimum=0"):
        suppress_small_cells(np.array([1]), 0)


def test_no_row_total_reveals_a_small_cell():
    # The table's own withheld total, 9 + 7 = 16, is large; but row 1 has 12 patients, and 12 − 11 = 1 would follow.
    table = np.array([[30, 0, 15], [11, 1, 0], [9, 0, 6]])
    found = suppress_by_row(table, 10)
    assert found.counts.tolist() == [[30, 0, 15], [0, 0, 0], [0, 0, 0]]
    assert found.withheld == 27


def test_random_tables_show_and_withhold_no_small_number():
    rng = np.random.default_rng(1)
    for _ in range(300):
        table = rng.poisson(rng.uniform(0, 12), (4, 5))
        found = suppress_by_row(table, 10)
        assert np.all((found.counts == 0) | (found.counts >= 10))
        assert np.all(found.counts[found.shown] == table[found.shown])
        assert found.withheld + found.counts.sum() == table.sum()
        for row, kept in zip(table, found.counts, strict=True):
            rest = row.sum() - kept.sum()
            assert rest == 0 or rest >= 10 or row.sum() < 10
        assert found.withheld == 0 or found.withheld >= 10 or table.sum() < 10
