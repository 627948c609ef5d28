"""Validation errors and bias line with privacy for each patient, at a real home: noised, paid for, the same again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.audit.entries import micro
from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.client.compute import predictions
from fedage.client.compute.contribute import Contributions
from fedage.client.inbox import private_sums
from fedage.client.inbox.gate import Work, admit
from fedage.client.inbox.private_total import total_of
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.evaluation.metrics import TEST, VALIDATION
from fedage.common.analyses.plan import registered
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import mechanism_of, noise_of_validation
from fedage.common.estimators.validation_noise import ValidationNoise
from fedage.common.privacy.accountant import epsilon
from fedage.common.protocol.messages import ANALYSE, Reply, join_iterates
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import Hospital
from tests.client.test_private_sums import ONE, STEP, TEXT, charges, made
from tests.deploy.test_simulate_private import FILE

BOTH = {"bias": {}, VALIDATION: {}}
MLP = FILE + "noise_multiplier = 1.0\n"
ROWS = {"bias": 5, VALIDATION: 2}


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


@pytest.fixture
def hospital(coordinator: CoordinatorHome, tmp_path: Path) -> Hospital:
    return made(coordinator, tmp_path)


def noise(hospital: Hospital) -> ValidationNoise:
    found = noise_of_validation(hospital.campaign, phases_known(hospital.campaign), patients=100)
    assert found is not None
    return found


def work_of(hospital: Hospital) -> Work:
    return admit(hospital.site, hospital.request(ANALYSE), {})


def predict(hospital: Hospital, *, run: str, model: str, years: float) -> None:
    """Keep ages that a model of this name predicts, as the site keeps those of a run's model."""
    cohort = work_of(hospital).site_cohort
    predictions.keep(
        hospital.site.state_dir(hospital.campaign.digest),
        run=run,
        columns={"predicted_years": cohort.cohort["age_years"] + years},
        model=model,
        snapshot=predictions.cohort_digest(cohort.cohort, snapshot=cohort.snapshot),
    )


def ask(hospital: Hospital, *, run: str = "r1", steps: dict[str, Any] = BOTH) -> tuple[Reply, dict[str, np.ndarray]]:
    return hospital.send(hospital.request(ANALYSE, run=run), join_iterates(steps))


def noises_of(hospital: Hospital, step: str, *, models: int) -> np.ndarray:
    """The noise of sums that are 0, under so many models, in noise multipliers; without a charge."""
    work = dataclasses.replace(work_of(hospital), terms=None)
    steps: dict[str, Analysis] = dict(registered(work.campaign))
    bare = Contributions(sums={step: np.zeros(steps[step].layout({}).size)}, withheld={})
    left = [
        private_sums.with_noise(work, bare, work.site_cohort.cohort, steps, model=str(k)).sums[step]
        for k in range(models)
    ]
    finished = noise(hospital).finished.noise_multiplier
    assert all(one[-1] == finished**2 for one in left)
    return np.array(left)[:, :-1].ravel() / finished


def has_the_noise(drawn: np.ndarray) -> bool:
    """Whether the SD is 1 and the mean 0, within five standard errors."""
    return abs(drawn.std() - 1) < 5 / np.sqrt(2 * drawn.size) and abs(drawn.mean()) < 5 / np.sqrt(drawn.size)


@pytest.mark.parametrize("step", ["bias", VALIDATION])
def test_the_sums_have_noise_of_the_charged_size_another_for_each_model(hospital: Hospital, step: str) -> None:
    drawn = noises_of(hospital, step, models=700 // ROWS[step])
    assert has_the_noise(drawn)
    # Noise lies on a grid, so that two of 700 may agree by chance; noise used twice would agree in half of them.
    assert np.unique(drawn).size > 0.98 * drawn.size


@pytest.mark.parametrize("part", [0.5, 0.75, 1.5, 2.0])
def test_noise_of_another_size_is_noticed(hospital: Hospital, monkeypatch: pytest.MonkeyPatch, part: float) -> None:
    whole = private_sums.noised
    monkeypatch.setattr(private_sums, "noised", lambda total, *, sd, random: whole(total, sd=part * sd, random=random))
    assert not has_the_noise(noises_of(hospital, "bias", models=140))


def test_they_are_charged_as_said_and_a_resumed_run_gets_the_same_bits_for_nothing(hospital: Hospital) -> None:
    predict(hospital, run="r1", model="m1", years=4.0)
    reply, sums = ask(hospital)
    assert reply.status == "ok", reply.reason
    assert set(sums) == {"bias", VALIDATION}
    told = reply.info["privacy"]
    assert told["epsilon"] == pytest.approx(epsilon([noise(hospital).finished] * 2, delta=1e-5))
    assert hospital.last().entry.epsilon_micro == micro(told["epsilon"])
    hospital.site.rules.close()
    hospital.start()
    predict(hospital, run="r2", model="m1", years=4.0)
    again, same = ask(hospital, run="r2")
    for step in sums:
        np.testing.assert_array_equal(sums[step], same[step])
    assert again.info["privacy"] == told
    assert charges(hospital) == 2
    assert hospital.last().entry.epsilon_micro == 0
    hospital.must_be_intact(reply, again)


def test_another_model_is_charged_though_it_predicts_the_same(hospital: Hospital) -> None:
    for run, model in (("r1", "m1"), ("r2", "m2")):
        predict(hospital, run=run, model=model, years=4.0)
    first, second = (ask(hospital, run=run)[1] for run in ("r1", "r2"))
    assert charges(hospital) == 4
    for step in first:
        assert np.abs(first[step] - second[step]).max() > 0.01


def test_beyond_what_the_file_says_they_are_withheld_and_the_rest_is_told(hospital: Hospital) -> None:
    ask(hospital, steps={STEP: {}})
    spent = epsilon([ONE, *noise(hospital).together], delta=1e-5)
    for run, years in (("r1", 4.0), ("r2", 5.0)):
        predict(hospital, run=run, model=f"of {run}", years=years)
    assert ask(hospital)[0].info["privacy"]["epsilon"] == pytest.approx(spent, rel=1e-9)
    reply, sums = ask(hospital, run="r2", steps={**BOTH, TEST: {}})
    assert set(sums) == {TEST}
    assert {reply.info["withheld"][step]["rule"] for step in BOTH} == {"campaign-epsilon"}
    assert charges(hospital) == 3


def test_beyond_the_data_sets_budget_they_are_withheld_too(coordinator: CoordinatorHome, tmp_path: Path) -> None:
    poor = made(coordinator, tmp_path, budget=0.1)
    predict(poor, run="r1", model="m1", years=4.0)
    reply, sums = ask(poor)
    assert not sums
    assert {withheld["rule"] for withheld in reply.info["withheld"].values()} == {"budget"}
    assert charges(poor) == 0


def test_switched_off_they_are_bare_and_cost_nothing(coordinator: CoordinatorHome, tmp_path: Path) -> None:
    bare = made(coordinator, tmp_path, text=TEXT + "validation_share = 0\n")
    predict(bare, run="r1", model="m1", years=4.0)
    reply, sums = ask(bare, steps={VALIDATION: {}})
    layout = registered(bare.campaign)[VALIDATION].layout({})
    # Everybody is of one age: what the influence rule says to that is no part of this test.
    if VALIDATION in sums:
        assert layout.block(sums[VALIDATION], "error") / layout.block(sums[VALIDATION], "n") == pytest.approx(4.0)
    assert "privacy" not in reply.info
    assert charges(bare) == 0


def test_a_site_corrects_its_own_ages_by_its_own_line_and_not_by_a_noised_one(hospital: Hospital) -> None:
    from fedage.client.compute import contribute

    cohort = work_of(hospital).site_cohort.cohort
    age = np.linspace(30, 70, cohort.n)
    ready = cohort.with_columns(age_years=age, predicted_years=20 + 0.6 * age, is_validation=1.0 + 0 * age)
    slope, intercept = contribute._own_line(ready, minimum_count=3)
    assert (slope, intercept) == (pytest.approx(0.6), pytest.approx(20.0))


@pytest.mark.parametrize("folds", [3, 6, 7])
def test_no_fold_is_refused_for_what_the_others_have_spent(
    coordinator: CoordinatorHome, tmp_path: Path, folds: int
) -> None:
    unequal = made(coordinator, tmp_path, text=f"{MLP}minimum_count = 3\n[validation]\nfolds = {folds}\n")
    work = work_of(unequal)
    estimator = phases_known(work.campaign)
    trained = [
        int((parts_for_fold(work.site_cohort.cohort, work.campaign, fold)["is_train"] == 1).sum())
        for fold in range(folds)
    ]
    assert len(set(trained)) > 1
    noises = noise_of_validation(work.campaign, estimator, patients=100)
    assert noises is not None
    spent = [mechanism_of(work.campaign, estimator, patients=count) for count in trained for _ in range(3)]
    assert epsilon([*spent, *noises.together], delta=1e-5) <= total_of(work, estimator).epsilon
