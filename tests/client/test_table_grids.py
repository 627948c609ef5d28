"""The account of a site's intervals: one path of questions a run, one grid of tables a campaign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE
from fedage.client.consent.accounts.table_grids import TableGrids
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.base import Again, Done, Iterate
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.analyses.survival.table_grid import TableGrid
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic

MINIMUM = 10
MONTHS = tuple(k / 12 for k in range(1, 61))
GRID = TableGrid("table-grid", MONTHS, minimum_count=MINIMUM)
CURVES = KaplanMeier("kaplan-meier", MONTHS, gap=None, minimum_count=MINIMUM, grid=GRID)
MODEL = CoxPooled("cox:x", ("x",), MONTHS, minimum_count=MINIMUM, grid=GRID)


def patients(seed: int = 0, n: int = 300) -> Cohort:
    rng = np.random.default_rng(seed)
    died, left = rng.exponential(5, n), rng.uniform(0, 15, n)
    columns = {"time_years": np.minimum(died, left), "event": (died <= left).astype(float)}
    return Cohort({**columns, "x": rng.normal(size=n), "is_test": np.ones(n)})


def account(folder: Path, run: str = "r1", minimum: int = MINIMUM) -> TableGrids:
    return TableGrids(folder, run=run, minimum_count=minimum)


def answer(
    grids: TableGrids, analysis: TableGrid | KaplanMeier | CoxPooled, cohort: Cohort, iterate: Iterate
) -> Statistic:
    """As a site answers: account, sums, account."""
    statistic = grids.accounted(analysis, iterate).local(cohort, iterate)
    grids.answered(analysis, iterate, statistic)
    return statistic


def ask(ends: tuple[int, ...], following: int, question: int = 1) -> Iterate:
    flags = np.zeros(len(MONTHS))
    flags[list(ends)] = 1
    return {"ends": flags, "following": np.asarray(float(following)), "question": np.asarray(float(question))}


def tables(ends: tuple[int, ...]) -> Iterate:
    return {"ends": ask(ends, 0)["ends"]}


def settled(grids: TableGrids, sites: list[Cohort]) -> tuple[int, ...]:
    """The grid of the first of these sites with the others; only the first keeps the account."""
    iterate = GRID.first()
    while True:
        total = answer(grids, GRID, sites[0], iterate)
        for other in sites[1:]:
            total = total + GRID.local(other, iterate)
        outcome = GRID.combine(total, iterate)
        if not isinstance(outcome, Again):
            assert isinstance(outcome, Done)
            return tuple(outcome.result["ends"])
        iterate = outcome.iterate


def refused(grids: TableGrids, analysis: TableGrid | KaplanMeier | CoxPooled, iterate: Iterate) -> str:
    with pytest.raises(Withheld) as refusal:
        grids.accounted(analysis, iterate)
    assert refusal.value.rule == "table-grid"
    return refusal.value.detail


def test_an_honest_run_is_answered_again_and_again(tmp_path: Path) -> None:
    sites, grids = [patients(k) for k in range(3)], account(tmp_path)
    ends = settled(grids, sites)
    assert len(ends) > 1
    for _ in range(2):
        answer(grids, CURVES, sites[0], tables(ends))
        answer(grids, MODEL, sites[0], {**tables(ends), "exact": np.asarray(0.0)})
    assert settled(account(tmp_path, "r2"), sites) == ends


def test_a_later_run_with_other_sites_gets_the_same_grid_or_a_coarser_one(tmp_path: Path) -> None:
    sites = [patients(k) for k in range(4)]
    first = settled(account(tmp_path), sites[:2])
    answer(account(tmp_path), CURVES, sites[0], tables(first))
    for run, there in (("r2", sites[:1]), ("r3", sites), ("r4", [sites[0], patients(9, n=90)])):
        later = settled(account(tmp_path, run), there)
        assert set(later) <= set(first)
        answer(account(tmp_path, run), CURVES, sites[0], tables(later))


def test_two_grids_are_never_given(tmp_path: Path) -> None:
    cohort, grids = patients(), account(tmp_path)
    ends = settled(grids, [cohort])
    answer(grids, CURVES, cohort, tables(ends))
    missing = [end for end in range(60) if end not in ends]
    for other in ((missing[0], *ends[1:]), (*ends[:-1], missing[-1]), tuple(range(60)), (missing[len(missing) // 2],)):
        for analysis, more in ((CURVES, {}), (MODEL, {"exact": np.asarray(0.0)})):
            assert "given before" in refused(account(tmp_path, "r2"), analysis, {**tables(other), **more})


@pytest.mark.parametrize("finer", ["before any question", "an end not named", "all ends", "one end more"])
def test_a_grid_finer_than_what_the_site_has_named_is_refused(tmp_path: Path, finer: str) -> None:
    cohort, grids = patients(), account(tmp_path)
    if finer == "before any question":
        assert "said it can tell" in refused(grids, CURVES, tables((20, 40)))
        return
    ends = settled(grids, [cohort])
    missing = min(set(range(60)) - set(ends))
    other = {
        "an end not named": (missing,),
        "all ends": tuple(range(60)),
        "one end more": tuple(sorted({*ends, missing})),
    }
    assert "said it can tell" in refused(grids, CURVES, tables(other[finer]))
    answer(grids, CURVES, cohort, tables(ends))


def test_questions_go_forward_only(tmp_path: Path) -> None:
    cohort, grids = patients(), account(tmp_path)
    first = int(np.flatnonzero(answer(grids, GRID, cohort, ask((), 0))["next_end"])[0])
    answer(grids, GRID, cohort, ask((), first, 2))
    answer(grids, GRID, cohort, ask((), first + 3, 3))  # another site asks for a later end
    for back in (ask((), first), ask((), 0), ask((first,), first + 1), ask((first + 1,), first + 2)):
        refused(grids, GRID, back)
    later = answer(grids, GRID, cohort, ask((first + 3,), first + 4, 4))
    assert np.flatnonzero(later["next_end"])[0] > first + 3


def test_without_a_minimum_no_account_is_kept(tmp_path: Path) -> None:
    grids = account(tmp_path, minimum=1)
    for analysis in (CURVES, GRID):
        assert grids.accounted(analysis, ask((1, 5), 9)) is analysis
    assert not (tmp_path / ACCOUNTS_FILE).exists()


def test_an_account_that_cannot_be_kept_withholds(tmp_path: Path) -> None:
    (tmp_path / ACCOUNTS_FILE).write_text("no database")
    with pytest.raises(Withheld) as refusal:
        account(tmp_path).accounted(GRID, GRID.first())
    assert refusal.value.rule == "store-unavailable"
