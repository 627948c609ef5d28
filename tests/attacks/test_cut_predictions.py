"""Lines and models that leave one patient's gap or prediction uncut, or cut only that one: sums of ages times them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute.contribute import BIAS_LINE, contributions
from fedage.common.analyses.columns import MAX_GAP_YEARS
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

FILE = """
[campaign]
name = "cut"
purpose = "Correct by a line that cuts all gaps but one"
seed = 7
[estimator]
name = "chest-ca"
[training]
rounds = 1
[privacy]
minimum_count = {minimum}
[bias]
scope = "pooled"
[survival]
[[survival.models]]
name = "gap"
covariates = ["gap_years"]
[[survival.models]]
name = "cole"
covariates = ["cole_gap_years"]
"""
N, MINIMUM, TARGET = 80, 10, 7
CORRECTED = "evaluation:test-corrected"


def campaign() -> Campaign:
    return parse_campaign(FILE.format(minimum=MINIMUM))


def patients(predicted: FloatArray | None = None, *, target_age: float = 44.0) -> Cohort:
    rng = np.random.default_rng(2)
    age = rng.uniform(60, 85, N)
    age[TARGET] = target_age
    predicted = age + rng.normal(0, 3, N) if predicted is None else predicted
    everybody = np.ones(N)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": predicted,
            "raw_gap_years": predicted - age,
            "healthy": everybody,
            "is_train": 0 * everybody,
            "is_validation": everybody,
            "is_test": everybody,
            "time_years": rng.exponential(5.0, N),
            "event": (rng.random(N) < 0.6).astype(np.float64),
        }
    )


def asked(
    cohort: Cohort,
    folder: Path,
    line: tuple[float, float] | None = None,
    *,
    steps: tuple[str, ...] = (CORRECTED, "cox:gap", "cox:cole"),
) -> tuple[set[str], dict[str, dict[str, str]]]:
    iterates: dict[str, dict[str, FloatArray]] = {step: {} for step in steps}
    if line is not None:
        iterates[BIAS_LINE] = {"line": np.array(line)}
    folder.mkdir(exist_ok=True)
    told = contributions(campaign(), cohort, iterates, folder=folder, run="r", guard=True)
    return set(told.sums), told.withheld


def cut_by(cohort: Cohort, line: tuple[float, float]) -> int:
    gap = cohort["predicted_years"] - (line[0] * cohort["age_years"] + line[1])
    return int(np.count_nonzero(np.abs(gap) > MAX_GAP_YEARS))


LINES = {
    "all but the youngest": (patients(), (4.9, -52.0), N - 1),
    "only the youngest": (patients(target_age=44.0), (0.2, 171.0), None),
    "only the oldest": (patients(target_age=100.0), (3.0, -55.0), None),
    "half of all": (patients(), (3.5, -50.0), None),
}


@pytest.mark.parametrize("which", LINES)
def test_a_line_that_cuts_gaps_is_refused_and_stays_the_run_s_only_line(which: str, tmp_path: Path) -> None:
    cohort, line, exactly = LINES[which]
    cut = cut_by(cohort, line)
    assert cut > 0
    assert exactly in (None, cut)
    sums, withheld = asked(cohort, tmp_path, line)
    assert not sums
    assert {reason["rule"] for reason in withheld.values()} == {"bias-line"}
    (words,) = {reason["detail"] for reason in withheld.values()}
    # The words are those for a slope that nobody may send; and the line counts, so none is tried until it passes.
    beyond = asked(cohort, tmp_path / "beyond", (6.0, 0.0))[1]
    assert {reason["detail"] for reason in beyond.values()} == {words}
    sums, _ = asked(cohort, tmp_path, (1.0, 0.0))
    assert not sums


def test_without_the_rule_the_sums_give_the_uncut_patient_s_age_and_prediction() -> None:
    cohort, (slope, intercept), _ = LINES["all but the youngest"]
    age, predicted = cohort["age_years"], cohort["predicted_years"]
    gap = np.clip(predicted - (slope * age + intercept), -MAX_GAP_YEARS, MAX_GAP_YEARS)
    over_all = gap.sum() + MAX_GAP_YEARS * N  # what the one patient's gap is above the bound
    with_age = (age * gap).sum() + MAX_GAP_YEARS * age.sum()
    found = with_age / over_all
    assert found == pytest.approx(age[TARGET], rel=1e-6)
    assert over_all - MAX_GAP_YEARS + slope * found + intercept == pytest.approx(predicted[TARGET], rel=1e-6)


def test_an_honest_line_is_answered_and_a_flat_one_costs_cole_s_gap_only(tmp_path: Path) -> None:
    sums, withheld = asked(patients(), tmp_path / "honest", (0.8, 12.0))
    assert (sums, withheld) == ({CORRECTED, "cox:gap", "cox:cole"}, {})
    sums, withheld = asked(patients(), tmp_path / "flat", (0.05, 68.0))
    assert sums == {CORRECTED, "cox:gap"}
    assert withheld["cox:cole"]["rule"] == "bias-line"


def crafted(value: float, others: FloatArray) -> FloatArray:
    predicted = np.full(N, value)
    predicted[: others.size] = others
    return predicted


MODELS = {
    "one above 0": crafted(0.0, np.array([51.0])),
    "one below 130": crafted(130.0, np.array([88.0])),
    "nine between": crafted(130.0, np.linspace(40, 90, MINIMUM - 1)),
    "two at 0, the others at 130": crafted(130.0, np.zeros(2)),
    "one apart from 60": crafted(60.0, np.array([61.0])),
}


@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("step", ["evaluation:test", "evaluation:validation", "bias", CORRECTED])
def test_a_model_that_tells_a_few_apart_is_not_evaluated(which: str, step: str, tmp_path: Path) -> None:
    iterate = {"mean_age": np.asarray(70.0)} if step == "evaluation:test" else {}
    iterates = {step: iterate, BIAS_LINE: {"line": np.array([0.8, 12.0])}}
    told = contributions(campaign(), patients(MODELS[which]), iterates, folder=tmp_path, run="r", guard=True)
    assert not told.sums
    assert told.withheld[step]["rule"] == "minimum-count"


@pytest.mark.parametrize("few", [0, MINIMUM, N - 2])
def test_a_model_that_is_the_same_for_all_or_apart_for_enough_is_evaluated(few: int, tmp_path: Path) -> None:
    predicted = crafted(130.0, np.linspace(40, 90, few))
    steps = ("evaluation:validation", "bias")
    sums, _ = asked(patients(predicted), tmp_path, steps=steps)
    assert sums == set(steps)
