"""One year is singular wherever a time is said with its unit."""

from __future__ import annotations

import pytest

from fedage.common.analyses.survival._kaplan_meier_figure import _last
from fedage.common.analyses.survival._kaplan_meier_shown import sentences
from fedage.common.analyses.survival.results import Curves, SurvivalCurve
from fedage.common.presentation.wording import years


@pytest.mark.parametrize(
    ("time", "told"), [(1.0, "1 year"), (1.5, "1.5 years"), (0.5, "0.5 years"), (0.0, "0 years"), (10.0, "10 years")]
)
def test_a_time_has_its_unit(time: float, told: str) -> None:
    assert years(time) == told
    group = SurvivalCurve(name="all patients", survival=(0.9,))
    assert _last(group, (time,)) == f"90% at {told}"
    found = Curves(table_times=(time,), asked_times=(time, time + 1), groups=(group,))
    assert any(f"They end at {told}: " in line for line in sentences(found))
