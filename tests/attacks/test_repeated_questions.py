"""A coordinator that asks again and again, over several campaigns, finds out nobody's age, membership or covariate."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.compute.contribute import Account, contributions
from fedage.client.consent.accounts.thresholds import Thresholds
from fedage.client.consent.approvals import ApprovalError
from fedage.client.consent.cohort_distance import CohortsTogetherClose, CohortsUsedUp, SnapshotTooClose
from fedage.client.consent.frozen_values import FrozenValues
from fedage.client.consent.snapshots import Snapshots
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, join_iterates
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic
from tests.client.hospital import CAMPAIGN, TEST, Hospital, Template, refused

MINIMUM = 10
MESSAGES_MINIMUM = 3
"""Of the hospital that answers messages."""


def patients(numbers: Any) -> tuple[str, ...]:
    return tuple(f"{number:032x}" for number in sorted(numbers))


def frozen(numbers: Any) -> FrozenValues:
    return FrozenValues(patients=patients(numbers))


def offer(snapshots: Snapshots, numbers: Any, *, at_most: int | None = None) -> str:
    """The rule that refuses a cohort; empty if it is frozen."""
    members = set(numbers)
    digest = f"{abs(hash(frozenset(members))) % 2**64:064x}"
    try:
        snapshots.freeze("all", digest=digest, frozen_values=frozen(members), minimum_count=MINIMUM, at_most=at_most)
    except (SnapshotTooClose, CohortsUsedUp) as refusal:
        return refusal.rule
    return ""


# Sets of which each pair is far apart, and that leave one patient, or a few, over.
TOGETHER = {
    "C is A and B and one more": (range(50), range(50, 100), range(101)),
    "C is A and B without one": (range(50), range(50, 100), range(1, 100)),
    "C is A without B, and one more": (range(100), range(60), [*range(60, 100), 200]),
    "A and B overlap in one": (range(50), range(49, 100), range(100)),
    "C is A and B and D and nine more": (range(40), range(40, 80), range(80, 120), range(129)),
    "C is A and B without D, and one more": (range(50), range(50, 100), range(30), [*range(30, 100), 500]),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_sets_that_leave_a_few_over_together_are_refused(tmp_path: Path, name: str) -> None:
    *before, last = TOGETHER[name]
    for order in itertools.permutations(range(len(before))):
        folder = tmp_path / "".join(map(str, order))
        folder.mkdir()
        snapshots = Snapshots(folder)
        for number in order:
            assert offer(snapshots, before[number]) == ""
        with pytest.raises(CohortsTogetherClose):
            snapshots.freeze("all", digest="f" * 64, frozen_values=frozen(last), minimum_count=MINIMUM)
        snapshots.close()


def test_sets_that_leave_nobody_or_enough_over_are_taken(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    for numbers in (range(50), range(50, 100), range(100), range(100, 120), range(25, 75)):
        assert offer(snapshots, numbers) == ""
    assert offer(snapshots, range(110)) == ""
    snapshots.close()


def test_a_refusal_cannot_be_asked_for_until_it_tells_who_is_near(tmp_path: Path) -> None:
    """The bisection of the oldest patient's age: each offer, refused or not, is one of the different cohorts."""
    snapshots = Snapshots(tmp_path)
    assert offer(snapshots, range(100), at_most=6) == ""
    rules = [offer(snapshots, range(100 + extra), at_most=6) for extra in range(1, 30)]
    assert rules[:5] == ["snapshot-too-close"] * 5
    assert set(rules[5:]) == {"cohorts"}
    assert offer(snapshots, range(100), at_most=6) == ""  # what was frozen may be used again
    assert offer(snapshots, range(101), at_most=6) == "snapshot-too-close"  # and what was refused stays so
    snapshots.close()


AGES = {"17 months": 1.4, "a half": 62.5, "bisected": 84.996, "a year beside the grid": 61.0}


@pytest.mark.parametrize("name", AGES)
@pytest.mark.parametrize("which", ["age_min_years", "age_max_years"])
def test_age_limits_lie_on_a_coarse_grid(template: Template, tmp_path: Path, name: str, which: str) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.campaign = parse_campaign(f"{CAMPAIGN}\n[cohort]\n{which} = {AGES[name]}\n")
    with pytest.raises(ApprovalError, match="whole multiples of 5 years"):
        hospital.site.rules.approve(hospital.campaign)
    assert refused(hospital.ask(), hospital) == "age-limits"
    hospital.policy("[disclosure]\nminimum_count = 3\nage_step_years = 0\n")
    hospital.site.rules.approve(hospital.campaign)


def test_a_hospital_for_children_may_allow_single_years(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy("[disclosure]\nminimum_count = 3\nage_step_years = 1\n")
    hospital.campaign = parse_campaign(f"{CAMPAIGN}\n[cohort]\nage_min_years = 41\n")
    hospital.site.rules.approve(hospital.campaign)
    hospital.campaign = parse_campaign(f"{CAMPAIGN}\n[cohort]\nage_min_years = 41.5\n")
    assert refused(hospital.ask(), hospital) == "age-limits"


def test_forty_slightly_different_files_are_not_all_approved(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy("[requests]\ncampaigns = 12\n[approval]\nmode = 'automatic'\n[disclosure]\nminimum_count = 3\n")
    rules = []
    for number in range(40):
        text = CAMPAIGN.replace('purpose = "', f'purpose = "{number} ')
        hospital.campaign = parse_campaign(text)
        rules.append(hospital.ask(DESCRIBE).rule)
    assert rules[:12] == [""] * 12
    assert set(rules[12:]) == {"campaigns"}


ANALYSES = """
[campaign]
name = "{name}"
purpose = "ask the same patients again"
seed = {seed}
[table]
id = "who"
age = "age"
[survival]
time = "time_years"
event = "event"
[[survival.models]]
name = "{model}"
covariates = ["age_years", "x"]
[privacy]
minimum_count = 10
largest_share = 1
patients_per_column = 0
"""


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    rng = np.random.default_rng(4)
    n = 120
    columns = {name: rng.normal(size=n) for name in ("x",)}
    columns["age_years"] = rng.uniform(40, 80, n)
    columns["time_years"] = rng.exponential(5, n).round(1) + 0.1
    columns["event"] = (rng.random(n) < 0.6).astype(float)
    flags = {name: np.full(n, value) for name, value in (("is_test", 1.0), ("is_train", 0.0), ("is_validation", 0.0))}
    return Cohort({**columns, **flags, "healthy": np.ones(n), "is_male": np.full(n, np.nan)})


def iterate(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "beta": rng.uniform(-1, 1, 2),
        "last_beta": np.zeros(2),
        "centre": np.array([60.0, 0.0]),
        "scale": np.array([12.0, 1.0]),
        "last_log_likelihood": np.asarray(-1e6),
        "null_log_likelihood": np.asarray(-1e6),
        "exchange": np.asarray(2.0),
    }


@pytest.mark.parametrize("vary", ["nothing", "the model's name", "the campaign", "the run", "the seed"])
def test_a_model_is_answered_at_so_many_coefficients_whatever_it_is_called(
    tmp_path: Path, cohort: Cohort, vary: str
) -> None:
    rng = np.random.default_rng(0)
    answered = 0
    for number in range(120):
        changes = {"name": "a", "seed": 1, "model": "m"}
        key = {"the model's name": "model", "the campaign": "name", "the seed": "seed"}.get(vary)
        if key is not None:
            changes[key] = number if key == "seed" else f"n{number}"
        campaign = parse_campaign(ANALYSES.format(**changes))
        step = f"cox:{changes['model']}"
        told = contributions(
            campaign,
            cohort,
            {step: _agreed(campaign, step, iterate(rng))},
            folder=tmp_path / campaign.digest,
            run=f"r{number}" if vary == "the run" else "r",
            guard=True,
            account=Account(folder=tmp_path, patients="the same"),
        )
        answered += step in told.sums
        if step not in told.sums:
            assert told.withheld[step]["rule"] == "iterate"
    assert answered == 60


def _agreed(campaign: Any, step: str, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The iterate as it travels once the sites agreed on all columns."""
    assert isinstance(registered(campaign)[step], Agreed)
    return {**block, COLUMNS: np.ones(2)}


def test_an_honest_fit_is_answered_again_and_again(tmp_path: Path, cohort: Cohort) -> None:
    campaign = parse_campaign(ANALYSES.format(name="a", seed=1, model="m"))
    block = iterate(np.random.default_rng(1))
    for number in range(100):
        told = contributions(
            campaign,
            cohort,
            {"cox:m": _agreed(campaign, "cox:m", block)},
            folder=tmp_path / "state",
            run=f"r{number}",
            guard=True,
            account=Account(folder=tmp_path, patients="the same"),
        )
        assert "cox:m" in told.sums


@pytest.mark.parametrize("apart", [1, 2, MESSAGES_MINIMUM])
@pytest.mark.parametrize(
    "change", [("front-door", "another"), ("rounds = 2", "rounds = 3"), ('purpose = "', 'purpose = "another ')]
)
def test_a_threshold_in_each_of_two_campaigns_tells_no_age(
    template: Template, tmp_path: Path, apart: int, change: tuple[str, str]
) -> None:
    """Through real messages: the counts at two thresholds a little apart, one in each campaign, would tell an age."""
    hospital = template.copy(tmp_path)
    other = parse_campaign(CAMPAIGN.replace(*change, 1))
    assert other.digest != hospital.campaign.digest
    cohort = hospital.site.cohort(hospital.campaign).cohort
    ages = np.sort(cohort["age_years"][cohort["is_test"] == 1])
    middle = len(ages) // 2
    first = _counts_at(hospital, (ages[middle - 1] + ages[middle]) / 2)
    assert first is not None
    assert first.any()
    hospital.site.rules.approve(other)
    hospital.campaign = other
    second = _counts_at(hospital, (ages[middle - 1 + apart] + ages[middle + apart]) / 2)
    assert (second is not None and bool(second.any())) == (apart >= MESSAGES_MINIMUM)


def _counts_at(hospital: Hospital, years: float) -> np.ndarray | None:
    """What the test patients' evaluation says of the patients on each side of a threshold; None if withheld."""
    assert hospital.ask(EVALUATE).status == "ok"
    reply, sums = hospital.send(hospital.request(ANALYSE), join_iterates({TEST: _mean(years)}))
    assert reply.status == "ok"
    if TEST not in sums:
        return None
    analysis = registered(hospital.campaign)[TEST]
    found = Statistic(layout=analysis.layout(_mean(years)), vector=sums[TEST], smallest=None)
    return np.array([found.scalar("from_mean_n"), found.scalar("from_mean")])


@pytest.mark.parametrize("second", ["another run", "another campaign", "the part by another seed"])
def test_a_threshold_a_little_apart_is_answered_in_no_other_campaign(
    tmp_path: Path, cohort: Cohort, second: str
) -> None:
    analysis = Evaluation("evaluation:test", "is_test", "x", minimum_count=MINIMUM)
    ages = np.sort(cohort["age_years"])
    for number, apart in enumerate((1, 3, MINIMUM - 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        first = Thresholds(folder, run="a r", minimum_count=MINIMUM, patients="the same")
        first.require(analysis, cohort, _mean(ages[50]))
        later = Thresholds(
            folder, run="a s" if second == "another run" else "b r", minimum_count=MINIMUM, patients="the same"
        )
        asked = cohort
        if second == "the part by another seed":
            asked = cohort.with_columns(is_test=(np.arange(cohort.n) % 2).astype(float))
        with pytest.raises(Withheld, match="threshold"):
            later.require(analysis, asked, _mean(ages[50 + apart]))
        later.require(analysis, cohort, _mean(ages[50]))  # the same value tells nothing new


def _mean(years: float) -> dict[str, np.ndarray]:
    return {"mean_age": np.asarray(years)}
