"""Whether an update tells when one patient had the event: two cohorts that differ in that alone give one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedage.client.compute.model import targets_of
from fedage.client.compute.training import train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.statistics.cohort import Cohort
from tests.common.estimators.planted_outcomes import TINY, views_of

MINIMUM = 5
RISK: dict[str, Any] = {**TINY, "outcome": "risk"}
Columns = dict[str, np.ndarray]


def patients() -> Columns:
    """Two events in the second year, enough in the first and the third, the others followed for long."""
    time, event = np.full(30, 9.0), np.zeros(30)
    time[:6], event[:6] = 0.5, 1.0
    time[6:8], event[6:8] = 1.5, 1.0
    time[8:14], event[8:14] = 2.5, 1.0
    rng = np.random.default_rng(0)
    return {
        "age_years": rng.uniform(40, 80, 30),
        "sign": rng.uniform(-1, 1, 30),
        "time_years": time,
        "event": event,
        "cancer": np.where(np.arange(30) < 12, 1.0, 0.0),
    }


def update(columns: Columns, options: dict[str, Any]) -> dict[str, bytes]:
    """What a site's training makes of them."""
    estimator = make("breast-outcome", options)
    age, outcome = estimator.phases
    first = outcome.start(age.start({}, seed=1), seed=1)
    targets = targets_of(estimator, Cohort(columns), np.arange(30), minimum_count=MINIMUM)
    training = Training(rounds=1, batch_size=15, optimiser="sgd", learning_rate=0.1)
    made = train_locally(
        outcome, first, views_of(columns, 3), targets, training=training, round_number=1, rng_seed=2, threads=1,
        device="cpu", minimum_count=MINIMUM,
    )  # fmt: skip
    return {name: array.tobytes() for name, array in made.weights.items()}


def one_year_later(columns: Columns) -> None:
    columns["time_years"][6] = 2.5


def another_patient_than_this_one(columns: Columns) -> None:
    columns["time_years"][[6, 9]] = 2.5, 1.5


def within_its_year(columns: Columns) -> None:
    columns["time_years"][0] = 0.01


@pytest.mark.parametrize("form", [{}, {"risk_form": "additive-hazard"}])
@pytest.mark.parametrize("change", [one_year_later, another_patient_than_this_one, within_its_year])
def test_when_a_few_had_the_event_shows_in_no_update(change: Callable[[Columns], None], form: dict[str, Any]) -> None:
    columns, other = patients(), patients()
    change(other)
    assert update(columns, {**RISK, **form}) == update(other, {**RISK, **form})


def test_when_enough_had_it_does() -> None:
    columns, other = patients(), patients()
    for each, year in ((columns, 1.5), (other, 2.5)):
        each["time_years"][14:20], each["event"][14:20] = year, 1.0
    assert update(columns, RISK) != update(other, RISK)


@pytest.mark.parametrize("few", [1, 2, 4])
@pytest.mark.parametrize(
    "options", [RISK, {**TINY, "outcome": "diagnosis", "outcome_column": "cancer"}], ids=["risk", "diagnosis"]
)
def test_who_of_a_few_had_it_shows_in_no_update(few: int, options: dict[str, Any]) -> None:
    columns, other = patients(), patients()
    for each, start in ((columns, 0), (other, 20)):
        each["event"][:] = 0.0
        each["time_years"][:] = 9.0
        each["event"][start : start + few] = 1.0
        each["cancer"] = each["event"].copy()
    other["time_years"] = columns["time_years"].copy()
    assert update(columns, options) == update(other, options)
