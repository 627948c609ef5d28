"""Two campaigns of one coordinator ask the same patients on two grids of times, to subtract one from the other.

The site has 300 patients and answers over one account of the coordinator and the data set. Known to the attacker: the
campaign files, every answer and refusal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.compute.contribute import Account, contributions
from fedage.client.consent.accounts.table_grids import RULE, TIME_GRID_RULE
from fedage.common.analyses.agreement import COLUMNS
from fedage.common.analyses.base import Again, Done, Following, Gridded
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, join_iterates
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Statistic
from fedage.server.superlink.home import init_home
from tests.client.cohort.store.test_tables import ANALYSES
from tests.client.hospital import Hospital
from tests.client.test_tables_at_sites import site

N = 300
FILE = """
[campaign]
name = "{name}"
purpose = "survival of everybody, for a test"
seed = 1
[table]
age = "age"
[survival]
time = "{time}"
event = "{event}"
time_grid_years = {time_grid_years}
table_times_years = {times}
{more}
[[survival.models]]
name = "m"
covariates = ["age_years", "x"]
[privacy]
minimum_count = 10
largest_share = 1
patients_per_column = 0
"""
TIMES = [1.0, 2.0, 4.0, 8.0]


def campaign(
    name: str = "first",
    *,
    times: list[float] = TIMES,
    time_grid_years: float = 0.25,
    event: str = "event",
    time: str = "time_years",
    more: str = "",
) -> Campaign:
    return parse_campaign(
        FILE.format(name=name, times=times, time_grid_years=time_grid_years, event=event, time=time, more=more)
    )


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    rng = np.random.default_rng(11)
    died, left = rng.exponential(5, N), rng.uniform(0, 15, N)
    time, one = np.minimum(died, left), np.ones(N)
    return Cohort(
        {
            "age_years": rng.uniform(40, 80, N),
            "x": rng.normal(size=N),
            "group": (np.arange(N) % 2).astype(float),
            "is_male": (np.arange(N) % 3 == 0).astype(float),
            "time_years": time,
            "other_time": rng.permutation(time),
            "event": (died <= left).astype(float),
            "died_of_it": ((died <= left) & (rng.random(N) < 0.7)).astype(float),
            "healthy": one,
            "is_train": 0 * one,
            "is_validation": 0 * one,
            "is_test": one,
        }
    )


class Coordinator:
    """Asks one site over one account, in whatever campaign, as an honest coordinator would ask."""

    def __init__(self, folder: Path, cohort: Cohort, *, shared: bool = True) -> None:
        self._folder, self._cohort, self._shared = folder, cohort, shared
        self.refusals: list[tuple[str, str]] = []
        self.run = "r1"

    def ask(self, asked: Campaign, step: str, iterate: dict[str, FloatArray]) -> Statistic | None:
        state, account = self._folder / asked.digest, self._folder / "account"
        for folder in (state, account):
            folder.mkdir(exist_ok=True)
        told = contributions(
            asked,
            self._cohort,
            {step: iterate},
            folder=state,
            run=self.run,
            guard=True,
            account=Account(folder=account, patients="the same") if self._shared else None,
        )
        if step not in told.sums:
            self.refusals.append((told.withheld[step]["rule"], told.withheld[step]["detail"]))
            return None
        return Statistic(layout=registered(asked)[step].layout(iterate), vector=told.sums[step], smallest=None)

    def settle(self, asked: Campaign) -> dict[str, FloatArray] | None:
        """What asks for the table of the intervals that the site can tell; None if it names none."""
        grid, curves = registered(asked)["table-grid"], registered(asked)["kaplan-meier"]
        assert isinstance(curves, Following)
        iterate = dict(grid.first())
        while (found := self.ask(asked, grid.name, iterate)) is not None:
            outcome = grid.combine(found, iterate)
            if not isinstance(outcome, Again):
                return dict(curves.begin(outcome.result)) if isinstance(outcome, Done) else None
            iterate = dict(outcome.iterate)
        return None

    def table(self, asked: Campaign) -> dict[float, tuple[float, float]] | None:
        """Events and all who left by each end in years, over all groups; None if the site gives no table."""
        iterate = self.settle(asked)
        return None if iterate is None else self.table_at(asked, iterate)

    def table_at(self, asked: Campaign, iterate: dict[str, FloatArray]) -> dict[float, tuple[float, float]] | None:
        found = self.ask(asked, "kaplan-meier", iterate)
        if found is None:
            return None
        curves = registered(asked)["kaplan-meier"]
        assert isinstance(curves, Gridded)
        ends = [curves.times[end] for end in np.flatnonzero(iterate["ends"])]
        events = found["events"].sum(axis=0)
        left = events + found["censored"].sum(axis=0)
        return {
            end: (float(died), float(gone))
            for end, died, gone in zip(ends, np.cumsum(events), np.cumsum(left), strict=True)
        }

    def model(self, asked: Campaign) -> FloatArray | None:
        """Gradient and information at β = 0."""
        iterate: dict[str, FloatArray] = {COLUMNS: np.ones(2)}
        found = self.ask(asked, "cox:m", iterate)
        return None if found is None else np.concatenate([found["gradient"], found["information"]])


def beside(cohort: Cohort, end: float, *, after: int) -> float:
    """An end by which that many patients more, or fewer, have left."""
    times = np.sort(cohort["time_years"])
    place = int(np.searchsorted(times, end, side="right")) + after
    return round(float((times[place - 1] + times[place]) / 2), 9)


@pytest.mark.parametrize("after", [1, -1, 3, 12])
@pytest.mark.parametrize("moved", [0, 3])
def test_tables_at_ends_a_little_apart_are_subtracted_to_nobody(
    tmp_path: Path, cohort: Cohort, after: int, moved: int
) -> None:
    times = [beside(cohort, end, after=after) if place == moved else end for place, end in enumerate(TIMES)]
    second = campaign("second", times=times)
    (tmp_path / "alone").mkdir()
    unbounded = Coordinator(tmp_path / "alone", cohort, shared=False)
    one, two = unbounded.table(campaign()), unbounded.table(second)
    assert one is not None
    assert two is not None  # each table for itself may leave, and their difference is of so many patients
    assert two[times[moved]][1] - one[TIMES[moved]][1] == after
    coordinator = Coordinator(tmp_path, cohort)
    first, later = coordinator.table(campaign()), coordinator.table(second)
    assert first == one
    assert later is not None
    assert later.items() <= first.items()  # nothing new: the ends that both have


@pytest.mark.parametrize("asked", ["the questions", "the table", "the table that was settled before"])
def test_tables_of_other_ends_alone_are_refused_in_the_same_words(tmp_path: Path, cohort: Cohort, asked: str) -> None:
    coordinator = Coordinator(tmp_path, cohort)
    others = [
        campaign(f"n{number}", times=[beside(cohort, end, after=after) for end in TIMES])
        for number, after in enumerate((1, -1, 2, 12))
    ]
    settled = [coordinator.settle(other) if "before" in asked else None for other in others]
    assert coordinator.refusals == []
    assert coordinator.table(campaign()) is not None
    for other, iterate in zip(others, settled, strict=True):
        if asked == "the questions":
            assert coordinator.settle(other) is None
        else:
            last = {"ends": np.array([0.0, 0.0, 0.0, 0.0, 1.0])}
            assert ("before" in asked) == (iterate is not None)
            assert coordinator.table_at(other, last if iterate is None else iterate) is None
    assert len(coordinator.refusals) == len(others)
    assert {rule for rule, _ in coordinator.refusals} == {RULE}
    assert len(set(coordinator.refusals)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"event": "died_of_it"},
        {"more": 'curves_by = "group"'},
        {"more": 'strata = ["is_male"]'},
        {"times": [0.5, *TIMES, 9.0]},
        {"times": [2.0, 8.0]},
    ],
    ids=["another event", "other groups", "strata", "more times", "fewer times"],
)
def test_an_honest_later_campaign_gets_its_tables_at_the_ends_given_before(
    tmp_path: Path, cohort: Cohort, change: dict[str, Any]
) -> None:
    coordinator = Coordinator(tmp_path, cohort)
    first = coordinator.table(campaign())
    assert first is not None
    later = coordinator.table(campaign("second", **change))
    assert later
    assert set(later) <= set(first)
    assert coordinator.refusals == []


def test_the_same_times_are_given_again_in_every_campaign_and_run(tmp_path: Path, cohort: Cohort) -> None:
    coordinator = Coordinator(tmp_path, cohort)
    first, model = coordinator.table(campaign()), coordinator.model(campaign())
    assert first is not None
    assert model is not None
    for number in range(2):
        coordinator.run = f"r{number}"
        for name in ("first", "second"):
            assert coordinator.table(campaign(name)) == first
            np.testing.assert_array_equal(coordinator.model(campaign(name)), model)
    assert coordinator.table(campaign("another-outcome", times=[1.5, 3.0], time="other_time")) is not None


@pytest.mark.parametrize("years", [0.250004, 0.0, 0.5])
@pytest.mark.parametrize("change", [{}, {"event": "died_of_it"}, {"more": 'strata = ["is_male"]'}], ids=str)
def test_sums_of_a_second_rounding_of_the_same_times_are_refused(
    tmp_path: Path, cohort: Cohort, years: float, change: dict[str, Any]
) -> None:
    coordinator = Coordinator(tmp_path, cohort)
    times: list[float] = [] if years == 0 else TIMES
    second = campaign("second", time_grid_years=years, times=times, **change)
    first = coordinator.model(campaign(**change))
    assert first is not None
    assert coordinator.model(second) is None
    assert coordinator.ask(second, "cox:m", {}) is None  # nor does it say which columns pass at that rounding
    rule, words = coordinator.refusals[-1]
    assert rule == TIME_GRID_RULE
    assert str(years) not in words
    np.testing.assert_array_equal(coordinator.model(campaign("third", **change)), first)


def test_without_the_account_a_second_rounding_moves_one_patient(tmp_path: Path, cohort: Cohort) -> None:
    """What the rule is against: the sums differ, by the change of one patient's slot."""
    time, years = cohort["time_years"].copy(), 0.25 * (1 + 5e-6)
    time[np.flatnonzero(cohort["event"])[0]] = 4.00001
    assert np.count_nonzero(np.ceil(time / years) != np.ceil(time / 0.25)) == 1
    coordinator = Coordinator(tmp_path, cohort.with_columns(time_years=time), shared=False)
    one, two = coordinator.model(campaign()), coordinator.model(campaign("second", time_grid_years=years))
    assert one is not None
    assert two is not None
    assert np.abs(one - two).max() > 1e-6


@pytest.mark.parametrize(
    "change",
    [
        ('covariates = ["raw_gap_years", "is_male"]', 'covariates = ["raw_gap_years", "area"]'),
        ('column = "dx"', 'column = "area"'),
        ("missing = [-9999]", "missing = [-9999, 1]"),
        ("Ask three tables", "Ask all three tables"),
    ],
    ids=["another covariate", "other groups", "another missing value", "nothing else"],
)
def test_a_deployed_site_knows_its_patients_whatever_a_file_reads_of_them(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    """Through real messages: an account by what is read would be another one for each file."""
    coordinator = init_home(tmp_path / "c", hosts=("localhost",))
    site(tmp_path / "a", "a", coordinator).rules.close()
    text = ANALYSES.replace("minimum_count = 1", "minimum_count = 2").replace(
        "[survival]", "[survival]\ntime_grid_years = {years}"
    )
    first, same = (parse_campaign(text.replace("{years}", years)) for years in ("0.25", "0.250"))
    second = parse_campaign(text.replace("{years}", "0.250004").replace(*change))
    hospital = Hospital(tmp_path / "a" / "home", coordinator.signing_key(), campaign=first)
    hospital.policy("[disclosure]\nminimum_count = 2\n")
    rules = []
    for asked in (first, second, same):
        hospital.campaign = asked
        hospital.site.rules.approve(asked)
        reply, _ = hospital.send(hospital.request(ANALYSE), join_iterates({"cox:crude": {}}))
        assert reply.status == "ok"
        rules.append(reply.info["withheld"].get("cox:crude", {}).get("rule"))
    assert [rule == TIME_GRID_RULE for rule in rules] == [False, True, False]
