import numpy as np
import pytest

from fedage.client.disclosure.guard import Withheld, releasable_counts, release, require
from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic

LAYOUT = Layout((Field("n"),))


def statistic(*counts: int) -> Statistic:
    return Statistic.of(LAYOUT, {"n": np.asarray(1.0)}, [Cell(count, "patients") for count in counts])


def test_a_cell_at_the_minimum_passes_and_one_below_is_withheld() -> None:
    assert release(statistic(10, 50), minimum_count=10).scalar("n") == 1.0
    with pytest.raises(Withheld) as refusal:
        release(statistic(50, 9), minimum_count=10)
    assert refusal.value.rule == "minimum-count"
    assert "9" not in refusal.value.detail, "the exact size of a small cell must not be told"


def test_empty_cells_are_no_small_cells_but_nobody_at_all_is_withheld() -> None:
    release(statistic(0, 12), minimum_count=10)
    with pytest.raises(Withheld):
        release(statistic(0), minimum_count=1)


def test_counts() -> None:
    assert releasable_counts({"a": 0, "b": 4, "c": 5}, minimum_count=5) == {"a": 0, "b": None, "c": 5}
    with pytest.raises(Withheld, match="fewer than 5 training patients"):
        require(4, of="training patients", minimum_count=5)
