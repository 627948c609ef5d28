"""The site probe's figures, written out by hand."""

from __future__ import annotations

import pytest

from fedage.common.analyses.base import Done, NotComputable
from fedage.common.analyses.evaluation.likely_site import SiteProbed, openbhb_score
from fedage.common.statistics.statistic import Statistic

PROBE = SiteProbed(("a", "b", "c"))


def total(n: list[int], low: list[int], high: list[int]) -> Statistic:
    return Statistic.of(PROBE.layout({}), {"n": n, "assigned_low": low, "assigned_high": high}, [])


def test_recalls_and_their_mean() -> None:
    outcome = PROBE.combine(total([20, 40, 10], [5, 30, 0], [5, 30, 5]), {})
    assert isinstance(outcome, Done)
    found = outcome.result
    assert found["n"] == 70
    assert found["recall_low"] == {"a": 0.25, "b": 0.75, "c": 0.0}
    assert found["recall_high"] == {"a": 0.25, "b": 0.75, "c": 0.5}
    assert (found["balanced_accuracy_low"], found["balanced_accuracy_high"]) == (pytest.approx(1 / 3), 0.5)
    assert found["chance"] == pytest.approx(1 / 3)


def test_a_site_that_holds_nobody_out_is_not_in_the_mean_and_one_site_alone_is_no_probe() -> None:
    outcome = PROBE.combine(total([20, 0, 10], [5, 0, 10], [5, 0, 10]), {})
    assert isinstance(outcome, Done)
    assert outcome.result["balanced_accuracy_low"] == pytest.approx(0.625)
    assert isinstance(PROBE.combine(total([20, 0, 0], [5, 0, 0], [5, 0, 0]), {}), NotComputable)


@pytest.mark.parametrize(
    ("mae", "accuracy", "score"), [(3.76, 0.051, 1.53978), (4.0, 1.0, 4.0), (4.0, 0.0, 0.0), (5.0, 0.125, 2.6794)]
)
def test_the_score(mae: float, accuracy: float, score: float) -> None:
    assert openbhb_score(mae, accuracy) == pytest.approx(score, abs=1e-4)
