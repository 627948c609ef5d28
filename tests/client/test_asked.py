"""How often a site is asked: runs of a campaign, its rounds, one model a round, and none that picks patients out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute.model import estimator_of, predict
from fedage.client.compute.predictions import with_correction
from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, AccountsUnavailable
from fedage.client.consent.accounts.run_limits import RunLimits
from fedage.client.consent.policy import parse_policy, policy_text
from fedage.common.analyses.columns import bound_of
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Request,
    RequestRefused,
    join_iterates,
    join_model,
)
from fedage.common.statistics.cohort import Cohort
from tests.client.hospital import POLICY, VALIDATION, Hospital, Template, refused

ACCOUNT = {"coordinator": "cc" * 32, "data_set": "all", "at_most_in_all": 100}


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path)


def request(run: str = "r1", *, digest: str = "ab" * 32, fold: int = 0, round: int = 1) -> Request:
    return Request(kind=TRAIN, digest=digest, run=run, fold=fold, round=round)


def test_runs_are_counted_once_by_campaign_and_for_good(tmp_path: Path) -> None:
    asked = RunLimits(tmp_path)
    for run in ("r1", "r2", "r1"):
        asked.begin_run(request(run), at_most=2, **ACCOUNT)
    with pytest.raises(RequestRefused) as refusal:
        asked.begin_run(request("r3"), at_most=2, **ACCOUNT)
    assert refusal.value.rule == "runs"
    again = RunLimits(tmp_path)
    again.begin_run(request("r2"), at_most=2, **ACCOUNT)
    again.begin_run(request("r3", digest="cd" * 32), at_most=2, **ACCOUNT)
    with pytest.raises(RequestRefused):
        again.begin_run(request("r3"), at_most=1, **ACCOUNT)
    again.begin_run(request("r3"), at_most=3, **ACCOUNT)


def test_a_round_of_a_fold_has_one_model(tmp_path: Path) -> None:
    asked = RunLimits(tmp_path)
    for _ in range(2):
        asked.bring_model(request(), model="a" * 64)
    with pytest.raises(RequestRefused) as refusal:
        asked.bring_model(request(), model="b" * 64)
    assert refusal.value.rule == "another-model"
    for other in (request("r2"), request(fold=1), request(round=2), request(digest="cd" * 32)):
        asked.bring_model(other, model="b" * 64)


def test_the_runs_of_all_campaigns_on_a_data_set_are_counted_together(tmp_path: Path) -> None:
    asked = RunLimits(tmp_path)
    few = {**ACCOUNT, "at_most_in_all": 3}
    for number in range(3):
        asked.begin_run(request("r1", digest=f"{number:02x}" * 32), at_most=2, **few)
    for run, digest in (("r1", "aa"), ("r2", "00"), ("r9", "02")):
        with pytest.raises(RequestRefused) as refusal:
            asked.begin_run(request(run, digest=digest * 32), at_most=2, **few)
        assert refusal.value.rule == "runs"
    asked.begin_run(request("r1", digest="00" * 32), at_most=2, **few)  # begun before
    for other in ({"data_set": "other"}, {"coordinator": "dd" * 32}, {"at_most_in_all": 4}):
        asked.begin_run(
            request("r5", digest=f"{len(other)}{ord(next(iter(other))[0]):03x}" * 16), at_most=2, **few | other
        )
    asked.close()
    again = RunLimits(tmp_path)
    with pytest.raises(RequestRefused):
        again.begin_run(request("r6", digest="ee" * 32), at_most=2, **few)


def test_a_hospital_answers_so_many_runs_over_a_data_set_whatever_the_file(hospital: Hospital) -> None:
    hospital.policy("[requests]\nruns = 3\n" + POLICY)
    first = hospital.campaign
    for number in range(4):
        hospital.campaign = parse_campaign(first.text.replace('purpose = "', f'purpose = "{number} '))
        hospital.site.rules.approve(hospital.campaign)
        reply = hospital.ask(TRAIN, round=1)
        assert (reply.status == "ok") if number < 3 else (refused(reply, hospital) == "runs")
    assert any("at most 3 runs" in one for one in policy_text(parse_policy("[requests]\nruns = 3\n")))


def test_a_locked_account_answers_nothing(tmp_path: Path) -> None:
    asked = RunLimits(tmp_path, lock_wait_s=0.1)
    other = sqlite3.connect(tmp_path / ACCOUNTS_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AccountsUnavailable, match="locked"):
        asked.begin_run(request(), at_most=2, **ACCOUNT)
    other.close()


def test_a_hospital_answers_so_many_runs_of_a_campaign_and_its_policy_says_how_many(hospital: Hospital) -> None:
    hospital.policy("[requests]\nruns_per_campaign = 2\n" + POLICY)
    assert hospital.ask(TRAIN, round=1).status == "ok"
    assert hospital.ask(EVALUATE).status == "ok"
    assert hospital.ask(EVALUATE, run="r2").status == "ok"
    for kind in (TRAIN, EVALUATE, ANALYSE):
        assert refused(hospital.ask(kind, run="r3", round=1), hospital) == "runs"
    assert hospital.ask(DESCRIBE, run="r3").status == "ok"  # says nothing that another run has not said
    assert hospital.ask(ANALYSE).status == "ok"
    hospital.start()
    assert refused(hospital.ask(EVALUATE, run="r4"), hospital) == "runs"
    hospital.policy("[requests]\nruns_per_campaign = 3\n" + POLICY)
    assert hospital.ask(EVALUATE, run="r4").status == "ok"
    assert any(
        "3 runs of each campaign" in one for one in policy_text(parse_policy("[requests]\nruns_per_campaign = 3\n"))
    )


def test_a_run_has_the_rounds_of_its_file_and_one_model_in_each(hospital: Hospital) -> None:
    for number in (0, 3, 1_000_000):
        assert refused(hospital.ask(TRAIN, round=number), hospital) == "round"
    assert hospital.ask(TRAIN, round=1).status == "ok"
    assert hospital.ask(TRAIN, round=1).status == "ok"  # the same model, asked for anew
    other = {name: array * 1.01 for name, array in hospital.weights().items()}
    reply, sums = hospital.send(
        hospital.request(TRAIN, round=1), {**join_model(other), **join_iterates({VALIDATION: {}})}
    )
    assert refused(reply, hospital) == "another-model"
    assert sums == {}
    other = {name: array + np.float32(1e-4) for name, array in hospital.weights().items()}
    reply, _ = hospital.send(hospital.request(TRAIN, round=2), {**join_model(other), **join_iterates({VALIDATION: {}})})
    assert reply.status == "ok"


@pytest.mark.parametrize("scale", [1e3, 1e12, -1e12, 1e30])
def test_no_model_makes_a_patient_implausible(hospital: Hospital, scale: float) -> None:
    """Sums over all validation patients, and over all but one whose prediction is out of range, would give the one."""
    weights = {
        name: (array * np.float32(scale) if array.ndim > 1 else array) for name, array in hospital.weights().items()
    }
    payload = {**join_model(weights), **join_iterates({VALIDATION: {}})}
    reply, sums = hospital.send(hospital.request(EVALUATE, run="r2"), payload)
    assert refused(reply, hospital) == "model-step"
    assert sums == {}
    found = hospital.site.cohort(hospital.campaign)
    estimator = estimator_of(hospital.campaign, found)
    predicted = predict(hospital.site, estimator, found, weights, rows=np.arange(found.cohort.n))["predicted_years"]
    assert np.all((predicted >= 0) & (predicted <= 130))


def test_no_line_makes_a_patient_implausible() -> None:
    chance = np.random.default_rng(1)
    age = chance.uniform(0, 100, 500)
    cohort = Cohort({"age_years": age, "predicted_years": chance.uniform(0, 130, 500)})
    for slope, intercept in ((1.0, 0.0), (5.0, -200.0), (0.05, 200.0), (1.0, 120.0), (0.05, -200.0)):
        corrected = with_correction(cohort, slope=slope, intercept=intercept)
        for column in ("corrected_years", "gap_years", "cole_gap_years"):
            assert np.all(np.abs(corrected[column]) <= bound_of(column))
    plain = with_correction(cohort, slope=0.9, intercept=5.0)
    assert np.allclose(plain["gap_years"], cohort["predicted_years"] - (0.9 * age + 5.0))
