"""Every count of every message that leaves a site is classified here, and none tells of a few patients.

The answers of real sites to a whole campaign are walked. A count that nobody has classified fails the test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.compute.contribute import contributions
from fedage.client.inbox.flower_records import read_payload, read_request
from fedage.common.analyses.base import Analysis, Following
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import ROW, Samples
from fedage.common.protocol.messages import Reply, Request, split_payload
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Field, Statistic
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite, answer_of
from tests.of_estimators import preparation

MINIMUM = 5
CELL, FLAG, NO_PATIENTS = "0 or at least the minimum count, or withheld", "0 or 1", "not a count of patients"
OF_INFO = {
    "patients": CELL,
    "minimum_count": NO_PATIENTS,
    "parts.*": CELL,
    "excluded.*": CELL,
    "rejected_files.*": CELL,
    "rejected_samples.*": CELL,
    "n": CELL,
    "clipped": FLAG,
}
_LEFT_OUT = {"left_out": CELL, "left_out_few": FLAG}
OF_SUMS: dict[str, dict[str, str]] = {
    "evaluation": {
        "n": CELL,
        **_LEFT_OUT,
        "within_5_low": CELL,
        "within_5_high": CELL,
        "from_mean_n": CELL,
        "from_mean_bound_n": CELL,
    },
    "bias": {"n": CELL, **_LEFT_OUT},
    "predicted-by-age": {"n": CELL, **_LEFT_OUT, "withheld": CELL, "counts": CELL},
    "gap-by-age": {"n": CELL, **_LEFT_OUT, "withheld": CELL, "counts": CELL},
    "error-curve": {"n": CELL, **_LEFT_OUT, "low": CELL, "high": CELL},
    "groups": {
        "n_group": CELL,
        "n_reference": CELL,
        **_LEFT_OUT,
        "one_group_only": CELL,
        "without_variance": FLAG,
        "fails": FLAG,
        **{f"{who}_{where}": CELL for who in ("group", "reference") for where in ("first", "last")},
    },
    "cox": {
        "n": CELL,
        **_LEFT_OUT,
        "events": CELL,
        "fails": FLAG,
        "deaths": CELL,
        "leaving": CELL,
        "at_risk": CELL,
    },
    "table-grid": {
        "between_table_times": FLAG,
        "next_end": FLAG,
        "single_intervals": FLAG,
        "start_together": FLAG,
        "n": CELL,
        "lower": CELL,
        "upper": CELL,
    },
    "kaplan-meier": {
        "n": CELL,
        **_LEFT_OUT,
        "events": CELL,
        "events_inside": CELL,
        "censored": CELL,
        "censored_at_end": CELL,
    },
    "table-preparation": {"n": CELL, **_LEFT_OUT, "fails": FLAG, "present": CELL, "below": CELL},
    "planted-truth": {"n": CELL, **_LEFT_OUT},
}
"""By kind of step, each block of whole numbers."""
DIFFERENCES = {
    "evaluation": [("n", "within_5_low"), ("n", "within_5_high"), ("n", "from_mean_n")],
    "cox": [("n", "events")],
}
"""Counts of a statistic whose difference is one of patients too."""

TRAINED = """
[campaign]
name = "counts"
purpose = "Walk every count of every message"
seed = 4
[estimator]
name = "table-mlp"
[estimator.options]
features = ["f*"]
hidden = [4]
[table]
age = "age"
[cohort]
train_on = "healthy"
[cohort.healthy]
column = "ill"
equals = 0
[training]
rounds = 1
[privacy]
minimum_count = 5
patients_per_column = 0
largest_share = 1
[groups]
column = "ill"
equals = 1
reference = 0
covariates = ["age_years"]
[survival]
table_times_years = [2, 5]
[[survival.models]]
name = "by-site"
covariates = ["gap_years", "score"]
[[survival.models]]
name = "one-baseline"
covariates = ["gap_years"]
by_site = false
"""
FOLDS = f"{TRAINED}\n[validation]\nfolds = 3\n"
ANALYSED = TRAINED.replace("hidden = [4]", "").replace('features = ["f*"]', "")
ANALYSED = ANALYSED.replace('[estimator]\nname = "table-mlp"\n[estimator.options]\n', "")
ANALYSED = ANALYSED.replace("[training]\nrounds = 1\n", "").replace(
    'age = "age"', 'age = "age"\npredicted = "predicted"'
)
ANALYSED = ANALYSED.replace("gap_years", "raw_gap_years")


@dataclass(frozen=True)
class Left:
    """One message that left a site."""

    request: Request
    asked: Mapping[str, Any]
    reply: Reply
    payload: Mapping[str, np.ndarray]


@dataclass
class Recorder(InProcessGrid):
    """A grid that keeps what every site answered."""

    members: Iterable[MemorySite]
    left: list[Left] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.members, meddle=self._see)
        self._asked: dict[str, tuple[Request, dict[str, Any]]] = {}

    def _see(self, message: Message, _node: int) -> Message:
        request, _ = read_request(message)
        self._asked[message.metadata.message_id] = (request, read_payload(message))
        return message

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        for message in replies:
            reply, payload = answer_of(message)
            request, asked = self._asked[message.metadata.reply_to_message_id]
            self.left.append(Left(request, asked, reply, payload))
        return replies


def site(name: str, folder: Path, *, seed: int, few: int, n: int = 150) -> MemorySite:
    """A hospital of which `few` patients lack a score, are of no group, and so on."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(40, 80, n)
    gap = rng.normal(0, 4, n)
    x = np.column_stack([age + gap + rng.normal(0, 2, n), rng.normal(0, 1, n)])
    time = rng.exponential(6, n)
    score, ill = rng.normal(0, 1, n), (np.arange(n) % 3 == 0).astype(float)
    score[:few] = np.nan
    x[n - few :, 1] = np.nan
    ill[few : 2 * few] = np.nan
    ill[2 * few : 3 * few] = 2.0
    predicted = np.where(np.arange(n) < few, 250.0, age + gap)
    columns = {
        "age_years": age,
        "is_male": np.arange(n) % 2.0,
        "ill": ill,
        "score": score,
        "time_years": np.minimum(time, 10.0),
        "event": (time < 10).astype(float),
        **{f"feature:f{j}": x[:, j] for j in range(2)},
    }
    if seed % 2:
        columns |= {"predicted_years": predicted, "raw_gap_years": predicted - age}
    found = SiteCohort(
        cohort=Cohort(columns),
        samples=Samples({ROW: np.nan_to_num(x).astype(np.float32)}),
        features=("f0", "f1"),
        excluded={"age-outside-cohort": few, "no-age": 2 * few},
        rejected_files={"not-readable": few, "other": 40},
        rejected_samples={"too-small": few},
    )
    return MemorySite(name, found, folder, unit=rng.random(n))


def answers(text: str, folder: Path, *, few: int) -> tuple[Campaign, list[Left]]:
    """What two hospitals answer to an honest coordinator."""
    campaign = parse_campaign(text)
    analysed = campaign.estimator is None
    grid = Recorder([site(name, folder, seed=seed + analysed, few=few) for name, seed in (("a", 2), ("b", 4))])
    place = Place(folder=folder / "out", run="r1", environment="simulation", guard=True, sites_there=2)
    place.folder.mkdir(parents=True)
    conduct(PollingGrid(grid, poll_s=0.001), campaign, place, key=None, admitted=None)
    return campaign, grid.left


def counts_of_info(info: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Every whole number of a reply's head, and every None where one may stand, by its name."""
    for name, value in info.items():
        if isinstance(value, Mapping) and name != "withheld":
            yield from ((f"{name}.*", count) for _, count in counts_of_info(value))
        elif value is None or isinstance(value, int):
            yield name, value


def told(count: float) -> bool:
    return count == 0 or count >= MINIMUM


def steps_of(campaign: Campaign) -> dict[str, Analysis]:
    steps = dict(registered(campaign))
    first = preparation(campaign, ("f0", "f1"))
    return steps if first is None else {**steps, first.name: first}


def statistics(campaign: Campaign, message: Left) -> Iterator[tuple[str, Statistic]]:
    """The sums of a message, with what their entries are."""
    steps, (_, iterates) = steps_of(campaign), split_payload(message.asked)
    for step, vector in message.payload.items():
        if step in steps:
            yield step, Statistic(layout=steps[step].layout(iterates[step]), vector=vector, smallest=None)


def kind_of(step: str) -> str:
    return step.partition(":")[0]


def must_be_classified(step: str, block: Field) -> str:
    rules = OF_SUMS[kind_of(step)]
    assert block.name in rules, f"{step} sends the whole number {block.name}, which nobody has classified"
    return rules[block.name]


@pytest.mark.parametrize("few", [1, MINIMUM - 1, MINIMUM])
@pytest.mark.parametrize("text", [TRAINED, FOLDS, ANALYSED], ids=["parts", "folds", "analyses"])
def test_no_count_of_any_message_is_of_a_few(text: str, few: int, tmp_path: Path) -> None:
    campaign, left = answers(text, tmp_path, few=few)
    assert {message.request.kind for message in left} >= {"query.describe", "query.analyse"}
    answered: set[str] = set()
    for message in left:
        assert message.reply.status == "ok", message.reply.reason
        for path, count in counts_of_info(message.reply.info):
            assert path in OF_INFO, f"a reply tells {path}, which nobody has classified"
            rule = OF_INFO[path]
            assert count is None or rule is NO_PATIENTS or (count in (0, 1) if rule is FLAG else told(count)), path
        for step, statistic in statistics(campaign, message):
            answered.add(kind_of(step))
            for block in (each for each in statistic.layout.fields if each.whole):
                rule, values = must_be_classified(step, block), statistic[block.name].ravel()
                assert all(value in (0, 1) if rule is FLAG else told(value) for value in values), (step, block.name)
            for one, other in DIFFERENCES.get(kind_of(step), ()):
                blocks = {block.name for block in statistic.layout.fields}
                if {one, other} <= blocks:
                    assert told(statistic.scalar(one) - statistic.scalar(other)), (step, one, other)
    assert answered >= {"evaluation", "predicted-by-age", "gap-by-age", "error-curve", "groups", "cox"}


@pytest.mark.parametrize("few", [1, MINIMUM - 1])
def test_the_parts_of_a_site_and_its_analyses_differ_by_nobody_or_enough(few: int, tmp_path: Path) -> None:
    """Complementary counts: what was described less what an analysis is over."""
    for text in (TRAINED, FOLDS, ANALYSED):
        campaign, left = answers(text, tmp_path / str(len(text)), few=few)
        for name in "ab":
            mine = [message for message in left if message.reply.site == name]
            info = next(message.reply.info for message in mine if message.request.kind == "query.describe")
            parts = [count for count in info["parts"].values() if count is not None]
            assert told(info["patients"] - sum(parts)) or len(parts) < len(info["parts"])
            part = sum(parts) if campaign.validation.folds or campaign.estimator is None else info["parts"]["test"]
            over = {
                round(statistic.scalar("n"))
                for message in mine
                for step, statistic in statistics(campaign, message)
                if kind_of(step) in {"evaluation", "cox", "predicted-by-age"}
                and "n" in {block.name for block in statistic.layout.fields}
                and (message.request.kind != "train" and step != "evaluation:validation")
                and statistic["n"].shape == ()
            }
            for one in over:
                for other in (*over, part):
                    assert other is None or told(abs(one - other)), (text[-30:], over, part)


def test_every_analysis_withholds_how_few_it_left_out(tmp_path: Path) -> None:
    """Also those left out for what is known only once there is a prediction."""
    campaign = parse_campaign(ANALYSED)
    cohort = site("a", tmp_path, seed=3, few=0).found.cohort
    columns = {name: values.copy() for name, values in cohort.columns.items()}
    columns |= {"healthy": np.ones(cohort.n), "is_test": np.ones(cohort.n), "is_validation": np.ones(cohort.n)}
    seen = 0
    for few in (1, MINIMUM - 1, MINIMUM):
        lacking = {name: values.copy() for name, values in columns.items()}
        for name in ("predicted_years", "raw_gap_years", "score", "time_years"):
            lacking[name][:few] = np.nan
        for step, analysis in registered(campaign).items():
            if isinstance(analysis, Following) or step == "table-grid":
                continue
            asked = {step: analysis.first()}
            got = contributions(campaign, Cohort(lacking), asked, folder=tmp_path / f"{few}", run="r", guard=True)
            if step not in got.sums:
                continue
            layout = analysis.layout(asked[step])
            if "left_out" in {block.name for block in layout.fields}:
                seen += 1
                statistic = Statistic(layout=layout, vector=got.sums[step], smallest=None)
                withheld = few < MINIMUM
                assert statistic.scalar("left_out") == (0 if withheld else few), step
                assert statistic.scalar("left_out_few") == withheld, step
    assert seen >= 9
