"""An error that is told of one round alone, as with differential privacy, is seen in the figure of learning."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from fedage.server.report.figure_learning import _line


@pytest.mark.parametrize(
    ("values", "marker"),
    [
        ([(1, None), (2, None), (3, 4.0)], "o"),
        ([(1, 4.0)], "o"),
        ([(1, 5.0), (2, None), (3, 4.0)], "None"),
    ],
)
def test_a_line_of_one_point_has_a_marker(values: list[tuple[int, float | None]], marker: str) -> None:
    axes = Figure().subplots()
    _line(axes, values, linewidth=3.0)
    (line,) = axes.lines
    assert line.get_marker() == marker


def test_the_marker_of_a_site_stays_its_own() -> None:
    axes = Figure().subplots()
    _line(axes, [(1, None), (2, 4.0)], marker="s")
    assert axes.lines[0].get_marker() == "s"
