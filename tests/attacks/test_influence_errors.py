"""One patient with an extreme age, prediction or error: what the sums of errors, lines and gaps by age tell of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.base import Again
from fedage.common.analyses.bias.bias_line import BiasLine
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule, require_sums
from fedage.common.statistics.statistic import FloatArray, Statistic
from tests.attacks.asked_of_a_site import Attacker

FILE = """
[campaign]
name = "errors"
purpose = "Read one patient's age from sums of errors"
seed = 5
[estimator]
name = "chest-ca"
[training]
rounds = 1
[privacy]
minimum_count = 10
[simulation]
guard = {guard}
[survival]
time_grid_years = 0.1
[analyses.planted-truth]
hazard_ratio_per_year = 1.05
gap_sd_years = 1.0
[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]
"""
N, TARGET = 160, 80
Change = Callable[[FloatArray, FloatArray], None]


def campaign(*, guard: bool) -> Campaign:
    text = FILE.format(guard=str(guard).lower())
    return parse_campaign(text if guard else text.replace("minimum_count = 10", "minimum_count = 1"))


def cohort(change: Change, *, seed: int = 1) -> Cohort:
    """Everybody is in every part, so that each step is asked of the target."""
    rng = np.random.default_rng(seed)
    age = 60 + rng.uniform(-1, 1, N)
    predicted = 10 + 0.8 * age + rng.normal(0, 0.05, N)
    change(age, predicted)
    return Cohort(
        {
            "age_years": age,
            "predicted_years": predicted,
            "raw_gap_years": predicted - age,
            "is_male": np.arange(N) % 2.0,
            "healthy": np.ones(N),
            "is_train": np.zeros(N),
            "is_validation": np.ones(N),
            "is_test": np.ones(N),
            "time_years": rng.exponential(5, N),
            "event": (rng.random(N) < 0.5).astype(float),
            "true_gap_years": rng.normal(0, 1, N),
        }
    )


def old(age: FloatArray, predicted: FloatArray) -> None:
    age[TARGET], predicted[TARGET] = 104.25, 10 + 0.8 * 104.25


def predicted_far_away(age: FloatArray, predicted: FloatArray) -> None:
    predicted[TARGET] = 97.75


def off_the_line(age: FloatArray, predicted: FloatArray) -> None:
    """Neither age nor prediction is extreme: the error is."""
    age[:], predicted[:] = np.linspace(40, 80, N), np.linspace(40, 80, N)
    predicted += np.random.default_rng(2).normal(0, 0.02, N)
    age[TARGET], predicted[TARGET] = 78.0, 42.5


def old_and_right(age: FloatArray, predicted: FloatArray) -> None:
    age[TARGET], predicted[TARGET] = 99.5, 99.5


EXTREME = {
    "an age": old,
    "a prediction": predicted_far_away,
    "an error": off_the_line,
    "both, and right": old_and_right,
}
STEPS = ("evaluation:test", "evaluation:validation", "bias")


def sums(one: Attacker, step: str) -> Statistic | None:
    """What leaves of a step's own sums of products, at an iterate of the attacker's."""
    iterate = {"mean_age": np.asarray(60.0)} if step == "evaluation:test" else {}
    return one.ask(step, iterate)


def extreme_of(total: Statistic, first: str, second: str) -> float:
    """A value so far from all others that it alone makes up the variance: mean ± √((n − 1) S), in the sums' unit."""
    n, mean = total.scalar("n"), total.scalar(first) / total.scalar("n")
    square = total.scalar(second) - n * mean**2
    # Of the two signs the attacker tries both; he asks where the many are, and knows it for their age.
    return mean + np.sqrt(square * (n - 1) / n)


@pytest.mark.parametrize("step", STEPS)
def test_without_a_guard_an_extreme_age_is_read_from_a_message(step: str, tmp_path: Path) -> None:
    one = Attacker(campaign(guard=False), cohort(old), tmp_path)
    got = sums(one, step)
    assert got is not None
    assert 60 + extreme_of(got, "age", "age_squared") == pytest.approx(104.25, abs=0.6)


def test_without_a_guard_an_extreme_prediction_is_read_from_a_message(tmp_path: Path) -> None:
    one = Attacker(campaign(guard=False), cohort(predicted_far_away), tmp_path)
    got = sums(one, "bias")
    assert got is not None
    assert 60 + extreme_of(got, "predicted", "predicted_squared") == pytest.approx(97.75, abs=0.6)


@pytest.mark.parametrize("step", [*STEPS, "error-curve:test", "evaluation:test-corrected", "planted-truth"])
@pytest.mark.parametrize("change", EXTREME.values(), ids=EXTREME)
def test_no_message_is_made_up_by_one_patient(change: Change, step: str, tmp_path: Path) -> None:
    """Refused by name, or none of the columns whose products it holds is dominated by the target."""
    one = Attacker(campaign(guard=True), cohort(change), tmp_path)
    got = sums(one, step)
    if got is None:
        assert one.refusals[0][0] in {"influence", "bias-line"}
        assert not any(character.isdigit() for character in one.refusals[0][1].replace("10", ""))
        return
    assert step in {"error-curve:test", "planted-truth"}, "every sum of ages, predictions and errors has to be refused"
    if step == "error-curve:test":
        error = one.cohort["predicted_years"] - one.cohort["age_years"]
        centred = (error - error.mean()) ** 2
        assert centred.max() <= 0.5 * centred.sum()


@pytest.mark.parametrize("seed", range(4))
def test_an_ordinary_site_answers_them_all(seed: int, tmp_path: Path) -> None:
    def ordinary(age: FloatArray, predicted: FloatArray) -> None:
        rng = np.random.default_rng(seed)
        age[:] = rng.uniform(40, 85, N)
        predicted[:] = 12 + 0.8 * age + rng.standard_t(4, N) * 3

    one = Attacker(campaign(guard=True), cohort(ordinary), tmp_path)
    for step in (*STEPS, "error-curve:test", "evaluation:test-corrected", "gap-by-age:raw", "gap-by-age:corrected"):
        got = sums(one, step)
        assert got is not None, one.refusals
        analysis = one.steps[step]
        iterate = {"mean_age": np.asarray(60.0)} if step == "evaluation:test" else {}
        assert not isinstance(analysis.combine(got, iterate), Again)


@pytest.mark.parametrize("values", [(100.0,), (60.0, -55.0), (-80.0,)])
def test_a_bin_of_ages_made_up_by_one_gap_is_withheld_and_does_not_follow(
    values: tuple[float, ...], tmp_path: Path
) -> None:
    """Σgap² of everybody less those of the bins shown is that of the bins withheld together: nobody's alone."""

    def one_gap_a_bin(age: FloatArray, predicted: FloatArray) -> None:
        age[:] = np.linspace(40, 80, N)
        predicted[:] = age + np.random.default_rng(3).normal(0, 4, N)
        for place, gap in enumerate(values):
            predicted[20 + 60 * place] = age[20 + 60 * place] + gap

    one = Attacker(campaign(guard=True), cohort(one_gap_a_bin), tmp_path)
    got = one.ask("gap-by-age:raw", {})
    assert got is not None
    gap, age = one.cohort["raw_gap_years"], one.cohort["age_years"]
    edges = np.array(one.steps["gap-by-age:raw"].edges_years)  # type: ignore[attr-defined]
    where = np.clip(np.searchsorted(edges, age, side="right") - 1, 0, edges.size - 2)
    withheld = gap[got["counts"][where] == 0]
    assert got.scalar("withheld") == withheld.size >= 10
    for each in (withheld, *(gap[where == number] for number in np.flatnonzero(got["counts"]))):
        centred = (each - each.mean()) ** 2
        assert centred.max() <= 0.5 * centred.sum() or each.size == N
    dominated = [where[20 + 60 * place] for place in range(len(values))]
    assert not got["counts"][dominated].any()


def test_what_the_rule_bounds() -> None:
    """Of columns that pass, no patient has more than half of any released product; whoever has is refused."""
    rng, rule = np.random.default_rng(7), InfluenceRule(minimum_count=5)
    passed = refused = 0
    for _ in range(400):
        n = int(rng.integers(10, 40))
        columns = rng.standard_t(rng.integers(1, 6), (n, 2))
        columns = np.column_stack([columns, columns[:, 1] - columns[:, 0]])
        group = Group(of="patients", columns=np.empty((n, 0)), always=columns, names_always=("a", "b", "c"))
        centred = columns - columns.mean(axis=0)
        shares = [np.abs(x * y).max() / np.abs(x * y).sum() for x in centred.T for y in centred.T]
        try:
            require_sums([group], rule)
        except InfluenceRefused:
            refused += 1
            continue
        passed += 1
        assert max(shares) <= 0.5 + 1e-9
        assert np.diagonal(centred @ np.linalg.pinv(centred)).max() <= 0.9
    assert passed > 50
    assert refused > 50


def test_every_analysis_that_sends_sums_of_products_is_asked() -> None:
    """A layout with a square in it belongs to an analysis that the rule knows, or that agrees on its columns before."""
    from fedage.common.analyses.agreement import Agreed
    from fedage.common.analyses.base import Following, Summing
    from fedage.common.analyses.plan import registered

    assert isinstance(BiasLine(), Summing)
    for step, analysis in registered(campaign(guard=True)).items():
        if isinstance(analysis, (Agreed, Following)) or step == "table-grid":
            continue
        names = {field.name for field in analysis.layout({}).fields}
        if names & {"cross", "age_squared", "squared_error", "error", "likely"}:
            assert isinstance(analysis, Summing), step
        elif "gap_squared" in names:
            assert getattr(analysis, "influence", None) is not None, step
