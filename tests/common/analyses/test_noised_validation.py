"""Noised errors and line: without noise the bare figures, one patient moves the sums by 1 at most, folds compose."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.bias.bias_line import BiasLine
from fedage.common.analyses.bias.noised_line import NoisedLine
from fedage.common.analyses.evaluation.metrics import Evaluation
from fedage.common.analyses.evaluation.noised_errors import NoisedErrors
from fedage.common.analyses.noised_validation import SUMS, VARIANCE, NoisedValidation, ValidationBounds
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import (
    all_epsilon,
    judged_rounds,
    mechanism_of,
    noise_of_validation,
    trainings_of,
)
from fedage.common.privacy.accountant import epsilon
from fedage.common.privacy.noise import SecretRandom, key_for, noised
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic, total
from tests.deploy.test_simulate_private import FILE

ADULTS = ValidationBounds(youngest_years=20, oldest_years=80, error_years=20)
CHILDREN = ValidationBounds(youngest_years=0, oldest_years=18, error_years=6)
OLD = ValidationBounds(youngest_years=60, oldest_years=95, error_years=30)
ALL = [ADULTS, CHILDREN, OLD]


def cohort(bounds: ValidationBounds, *, n: int = 120, seed: int = 0) -> Cohort:
    chance = np.random.default_rng(seed)
    age = chance.uniform(bounds.youngest_years, bounds.oldest_years, n)
    middle = (bounds.youngest_years + bounds.oldest_years) / 2
    error = np.clip(
        0.3 * (middle - age) + 0.1 * bounds.error_years * chance.normal(size=n), -bounds.error_years, bounds.error_years
    )
    one = np.ones(n)
    return Cohort({"age_years": age, "predicted_years": age + error, "is_validation": one, "healthy": one})


def figures(bounds: ValidationBounds) -> tuple[NoisedErrors, NoisedLine]:
    return NoisedErrors("errors", "is_validation", bounds), NoisedLine("line", "is_validation", bounds)


def with_noise(analysis: NoisedValidation, sites: dict[str, Cohort], *, sd: float, trial: int = 0) -> Statistic:
    """The sum of what the sites send, each with noise of its own."""
    layout, sent = analysis.layout({}), {}
    for site, patients in sites.items():
        random = SecretRandom(key_for(b"test", site, str(trial)))
        made = noised(analysis.local(patients, {})[SUMS], sd=sd, random=random)
        sent[site] = Statistic(layout, layout.flatten({SUMS: made, VARIANCE: sd**2}), None)
    return total(layout, sent)


@pytest.mark.parametrize("bounds", ALL)
def test_with_noise_of_a_huge_epsilon_the_figures_are_the_bare_ones(bounds: ValidationBounds) -> None:
    sites = {"a": cohort(bounds), "b": cohort(bounds, seed=1)}
    errors, line = figures(bounds)
    bare = run_locally(Evaluation("v", "is_validation", baseline=False), sites)
    fitted = run_locally(BiasLine(), sites)
    found, through = (each.combine(with_noise(each, sites, sd=1e-9), {}) for each in (errors, line))
    for outcome in (bare, fitted, found, through):
        assert isinstance(outcome, Done)
    assert found.result["n"] == through.result["n"] == 240
    assert found.result["mae_years"] == pytest.approx(bare.result["mae_years"], rel=1e-7)
    for name in ("slope", "intercept_years", "mean_age_years"):
        assert through.result[name] == pytest.approx(fitted.result[name], rel=1e-6)


@pytest.mark.parametrize("bounds", ALL)
@pytest.mark.parametrize("age", [-1e9, 0.0, 50.0, 129.0, math.nan])
@pytest.mark.parametrize("predicted", [-1e300, 0.0, 70.0, 1e9, math.inf, math.nan])
def test_one_patient_moves_the_sums_by_one_at_most(bounds: ValidationBounds, age: float, predicted: float) -> None:
    others = cohort(bounds, n=20)
    more = Cohort({name: np.append(column, 1.0) for name, column in others.columns.items()})
    more.columns["age_years"][-1], more.columns["predicted_years"][-1] = age, predicted
    for analysis in figures(bounds):
        moved = analysis.local(more, {}).vector - analysis.local(others, {}).vector
        assert np.linalg.norm(moved) <= 1 + 1e-12


@pytest.mark.parametrize("bounds", ALL)
def test_the_stated_noise_is_that_of_the_figures(bounds: ValidationBounds) -> None:
    sites = {site: cohort(bounds, n=400, seed=k) for k, site in enumerate("abc")}
    errors, line = figures(bounds)
    found: dict[str, list[float]] = {"mae_years": [], "noise_sd_years": [], "slope": [], "slope_noise_sd": []}
    for trial in range(150):
        for analysis in (errors, line):
            outcome = analysis.combine(with_noise(analysis, sites, sd=4.0, trial=trial), {})
            assert isinstance(outcome, Done)
            for name in found:
                found[name] += [outcome.result[name]] if name in outcome.result else []
    # The SD of 150 has a standard error of 6 %; that of the slope leaves smaller terms out.
    assert np.std(found["mae_years"]) == pytest.approx(np.mean(found["noise_sd_years"]), rel=0.3)
    assert np.std(found["slope"]) == pytest.approx(np.mean(found["slope_noise_sd"]), rel=0.3)


def test_an_error_beyond_the_bound_counts_as_the_bound() -> None:
    far = cohort(ADULTS, n=10)
    far.columns["predicted_years"][:] = far["age_years"] + 50
    outcome = figures(ADULTS)[0].combine(with_noise(figures(ADULTS)[0], {"a": far}, sd=1e-9), {})
    assert isinstance(outcome, Done)
    assert outcome.result["mae_years"] == pytest.approx(20.0)


@pytest.mark.parametrize("sd", [30.0, 100.0, 1000.0])
def test_noise_that_outweighs_the_patients_gives_no_figure(sd: float) -> None:
    for analysis in figures(ADULTS):
        assert isinstance(analysis.combine(with_noise(analysis, {"a": cohort(ADULTS, n=5)}, sd=sd), {}), NotComputable)


@pytest.mark.parametrize(
    ("more", "rounds"),
    [("", 2), ("[validation]\nfolds = 3\n", 2), ("[validation]\nfolds = 4\nfinal_model = true\n", 2)],
)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_all_of_a_campaign_together_costs_its_epsilon_and_the_validation_its_share(
    more: str, rounds: int, share: float
) -> None:
    campaign = parse_campaign(FILE + f"epsilon = 3.0\nvalidation_share = {share}\n" + more)
    estimator = phases_known(campaign)
    noise = noise_of_validation(campaign, estimator, patients=100)
    assert noise is not None
    assert judged_rounds(campaign, estimator) == noise.rounds == rounds
    told = noise.told(rounds=rounds * campaign.models, finished=2)
    assert epsilon(told, delta=1e-5) == pytest.approx(share * 3.0, rel=2e-3)
    assert epsilon(noise.together, delta=1e-5) == pytest.approx(share * 3.0, rel=2e-3)
    training = mechanism_of(campaign, estimator, patients=100)
    spent = epsilon([*[training] * trainings_of(campaign, estimator), *told], delta=1e-5)
    assert spent == all_epsilon(campaign, estimator, training, patients=100)  # to the last digit, as a ledger refuses
    assert 2.99 < spent <= 3.0
    weaker = dataclasses.replace(noise.finished, noise_multiplier=noise.finished.noise_multiplier / 2)
    assert epsilon([weaker] * 2, delta=1e-5) > share * 3.0


@pytest.mark.parametrize(
    ("options", "cohort_limits", "largest", "expected"),
    [
        ("[20, 80]", "", None, (20, 80, 20)),
        ("[20, 80]", "age_min_years = 50\nage_max_years = 70\n", None, (50, 70, 20 / 3)),
        ("[0, 18]", "", 4.5, (0, 18, 4.5)),
    ],
)
def test_bounds_follow_from_the_file_alone(
    options: str, cohort_limits: str, largest: float | None, expected: tuple[float, float, float]
) -> None:
    text = FILE.replace("[20, 80]", options) + "epsilon = 3.0\n"
    text += f"largest_error_years = {largest}\n" if largest else ""
    bounds = ValidationBounds.of(parse_campaign(f"{text}[cohort]\n{cohort_limits}"))
    assert (bounds.youngest_years, bounds.oldest_years, bounds.error_years) == pytest.approx(expected)
