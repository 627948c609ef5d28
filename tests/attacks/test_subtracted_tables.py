"""A coordinator that slides and subtracts survival tables, through what a site answers with: its yield is nothing.

The site has 300 patients and monthly table times. Known to the attacker: the campaign file, every answer and refusal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute.contribute import contributions
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.survival.table_grid import TableGrid
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

MINIMUM = 10
TIMES = [round(k / 12, 6) for k in range(1, 61)]
SLOTS = len(TIMES) + 1
"""Table times that the site knows: those of the file, and 0."""
CAMPAIGN = parse_campaign(f"""
[campaign]
name = "curves"
purpose = "survival of everybody, for a test"
seed = 1
[table]
id = "subject"
age = "age"
[survival]
table_times_years = {TIMES}
""")


def patients(seed: int, *, at_zero: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    died, left = rng.exponential(5, 300), rng.uniform(0, 15, 300)
    died[:at_zero] = 0.0
    columns = {"time_years": np.minimum(died, left), "event": (died <= left).astype(float)}
    return Cohort({**columns, "age_years": rng.uniform(40, 80, 300), "is_test": np.ones(300)})


class Coordinator:
    """Asks one site; `tables` are the (ends, events, leaving) that it got."""

    def __init__(self, folder: Path, cohort: Cohort) -> None:
        self._folder, self._cohort = folder, cohort
        self.rules: set[str] = set()
        self.tables: list[tuple[tuple[int, ...], FloatArray, FloatArray]] = []

    def question(self, ends: tuple[int, ...], following: int, *, run: str, question: int = 1) -> int | None:
        """The end that the site names; None if it refuses."""
        about = {"following": np.asarray(float(following)), "question": np.asarray(float(question))}
        iterate = {"ends": flags(ends), **about}
        sums = self._ask("table-grid", iterate, run=run)
        return None if sums is None else int(np.flatnonzero(sums[: SLOTS + 1])[0])

    def table(self, ends: tuple[int, ...], *, run: str) -> None:
        sums = self._ask("kaplan-meier", {"ends": flags(ends)}, run=run)
        if sums is not None:
            blocks = sums[-4 * len(ends) :].reshape(4, len(ends))
            self.tables.append((ends, blocks[0], blocks[0] + blocks[2] + blocks[3]))

    def _ask(self, step: str, iterate: dict[str, FloatArray], *, run: str) -> FloatArray | None:
        told = contributions(CAMPAIGN, self._cohort, {step: iterate}, folder=self._folder, run=run, guard=True)
        self.rules |= {reason["rule"] for reason in told.withheld.values()}
        return told.sums.get(step)

    def smallest_difference(self) -> float:
        """The smallest group that two cumulative counts, of any tables, leave between them."""
        told = [pair for ends, _, left in self.tables for pair in zip(ends, np.cumsum(left), strict=True)]
        apart = [abs(a - b) for i, a in told for j, b in told if i != j]
        return min((value for value in apart if value > 0), default=np.inf)


def flags(ends: tuple[int, ...]) -> FloatArray:
    found = np.zeros(SLOTS)
    found[list(ends)] = 1
    return found


@pytest.mark.parametrize("seed", range(3))
def test_all_monthly_tables_and_their_coarsenings_are_refused_without_questions(tmp_path: Path, seed: int) -> None:
    attacker = Coordinator(tmp_path, patients(seed))
    for first in (*range(12), 20, 40):
        attacker.table((first,), run="r1")
        attacker.table(tuple(range(first, SLOTS)), run="r1")
    assert attacker.tables == []
    assert attacker.rules == {"table-grid", "iterate"}  # a table that ends at time 0 is none


@pytest.mark.parametrize("seed", range(3))
def test_questions_slid_month_by_month_name_no_end_twice(tmp_path: Path, seed: int) -> None:
    """Unbounded, the end named from each month on tells when the tenth patient after it leaves: nearly everybody."""
    attacker, named = Coordinator(tmp_path, patients(seed)), []
    for start in range(1, SLOTS - 1):
        settled = (start - 1,) if start > 1 else ()
        answer = attacker.question(settled, start, run="r1")
        if answer is not None:
            named.append((start, answer))
    starts = [start for start, answer in named if answer != SLOTS]
    assert len(starts) <= 2  # the first question, and at most one that goes on from an end it had named
    assert attacker.rules <= {"table-grid", "iterate"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("runs", "at_zero"), [(1, 0), (3, 0), (3, 4), (3, 30)])
def test_tables_of_many_grids_subtract_to_no_small_group(tmp_path: Path, seed: int, runs: int, at_zero: int) -> None:
    attacker, rng = Coordinator(tmp_path, patients(seed, at_zero=at_zero)), np.random.default_rng(seed)
    for run in (f"r{k}" for k in range(runs)):
        ends: tuple[int, ...] = ()
        following = 1
        while following < SLOTS:
            answer = attacker.question(ends, following, run=run)
            if answer is None or answer >= SLOTS:
                break
            later = min(answer + int(rng.integers(0, 4)), SLOTS - 1)  # as though another site asked for it
            if attacker.question(ends, later, run=run) == later:
                ends = (*ends, later)
            following = later + 1
        attacker.table(ends, run=run)
        for _ in range(20):
            other = tuple(sorted({*ends, int(rng.integers(0, SLOTS))}))
            attacker.table(other if rng.random() < 0.5 else ends[1:] or ends, run=run)
    assert attacker.tables
    assert attacker.smallest_difference() >= MINIMUM


@pytest.mark.parametrize("apart", [1, 3, 9])
def test_curves_and_strata_by_nearly_the_same_groups_are_not_subtracted(apart: int) -> None:
    """Events by a column less those by sex are of the few in whom the two differ: no interval has a few of them."""
    rng = np.random.default_rng(apart)
    n = 400
    male = (np.arange(n) % 2).astype(np.float64)
    said = male.copy()
    said[:apart] = 1 - said[:apart]
    cohort = Cohort(
        {
            "said": said,
            "is_male": male,
            "time_years": rng.exponential(2.0, n),
            "event": (rng.uniform(0, 1, n) < 0.6).astype(np.float64),
            "is_test": np.ones(n),
        }
    )
    times = (1.0, 2.0, 3.0)
    one = TableGrid("grid", times, gap="said", split_gap_at="zero", minimum_count=10)
    both = TableGrid(
        "grid", times, gap="said", split_gap_at="zero", strata=((("is_male",), ((0.0, 1.0),)),), minimum_count=10
    )
    assert isinstance(run_locally(one, {"a": cohort}), Done)
    assert not isinstance(run_locally(both, {"a": cohort}), Done)
    equal = cohort.with_columns(said=male)
    assert isinstance(run_locally(both, {"a": equal}), Done)
