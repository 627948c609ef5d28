"""Groups and survival curves of several runs stand side by side wherever a run has them."""

from typing import Any

import pytest

from fedage.common.analyses.groups import _groups_compared
from fedage.common.analyses.survival import _curves_compared
from fedage.server.compare.runs import load_runs


def _difference(years: float) -> dict[str, Any]:
    found = {"difference_years": years, "se_years": 0.4, "ci95": [years - 0.8, years + 0.8], "t": 2.0, "df": 80}
    found |= {"p": 0.05, "cohens_d": 0.4, "residual_sd_years": 3.0}
    auc = {"auc": None, "auc_ci95": None, "auc_within_sites": None, "auc_within_sites_ci95": None}
    return {"gap": "gap_years", "n_group": 40, "n_reference": 50, **found, "unadjusted": dict(found), **auc}


def _groups(years: float) -> dict[str, Any]:
    of = {"column": "diagnosis", "equals": 1.0, "reference": 0.0, "covariates": ["age_years"]}
    return {**of, "corrected": _difference(years), "raw": None}


def _curves(times: list[float], survival: list[float]) -> dict[str, Any]:
    group = {"name": "high gap", "n": 60, "events": 20, "survival": survival, "median_survival": 4.5}
    return {"cox": [], "kaplan_meier": {"table_times": times, "groups": [group], "log_rank": {"chi2": 4.0, "p": 0.046}}}


def _texts(table: Any) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_differences_stand_side_by_side_and_a_reason_where_there_is_none(make_run) -> None:
    ended = {**_groups(0.0), "corrected": {"not_computed": "the run ended before"}}
    folders = [make_run("a", groups=_groups(1.25)), make_run("b", groups=_groups(2.5)), make_run("c", groups=ended)]
    shown = _groups_compared.compared(load_runs([*folders, make_run("d")]))
    (titled,) = shown.terminal
    a, b, c = _texts(titled.table)
    assert a[:7] == ["a", "corrected", "diagnosis = 1", "diagnosis = 0", "site, age_years", "1.25", "0.45 to 2.05"]
    assert (b[0], b[5], b[9:]) == ("b", "2.50", ["40", "50"])
    assert c[4] == "not computed: the run ended before"
    assert shown.sections[0].name == "groups"


@pytest.mark.parametrize(
    ("times", "headers"),
    [
        ([1.0, 2.0, 3.0], ["1 year", "2 years", "3 years"]),
        ([2.0, 3.0, 4.0], ["2 years", "3 years"]),
        ([5.0, 6.0, 7.0], []),
    ],
)
def test_curves_are_compared_at_times_that_all_have(make_run, times: list[float], headers: list[str]) -> None:
    a = make_run("a", survival=_curves([1.0, 2.0, 3.0], [0.9, 0.8, 0.7]))
    b = make_run("b", survival=_curves(times, [0.95, 0.85, 0.75]))
    none = make_run("c", survival={"cox": [], "kaplan_meier": {"not_computed": "it needs table times"}})
    shown = _curves_compared.compared(load_runs([a, b, none]))
    (titled,) = shown.terminal
    assert list(titled.table.headers[4:-3]) == headers
    rows = _texts(titled.table)
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert (
        rows[0][4 : 4 + len(headers)]
        == {3: ["90.0 %", "80.0 %", "70.0 %"], 2: ["80.0 %", "70.0 %"], 0: []}[len(headers)]
    )
    assert rows[0][-3:-1] == ["4.50", "3 years"]
    assert rows[2][1] == "not computed: it needs table times"


def test_runs_without_either_show_neither(make_run) -> None:
    runs = load_runs([make_run("a", survival=None), make_run("b", survival=None)])
    assert not _groups_compared.compared(runs).sections
    assert not _curves_compared.compared(runs).sections
