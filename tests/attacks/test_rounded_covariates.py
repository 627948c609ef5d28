"""Attacks on the rounding of numbers: what an iterate rounds to two values is a threshold that no account has seen.

A centre of 2e17 leaves of x − centre only multiples of 32, so that those above 48 are told apart from the others: three
patients, who pass no rule as a column of two values, make up every sum by it. Coefficients so small that β·z is rounded
do the same to counts of pairs. With the guard off the attack gives the sums; with it on such an iterate is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.agreement import COLUMNS
from fedage.common.analyses.base import IterateRefused
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.analyses.survival.concordance import ModelConcordance
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests.attacks.asked_of_a_site import Attacker
from tests.attacks.test_influence_survival import PATIENTS, campaign, hospital

BY_SITE = "cox:by-site"
FEW = slice(40, 43)
CENTRES = {
    "multiples of 32": (1.0, 1.5 * 2.0**57),
    "multiples of 32, below": (1.0, -1.5 * 2.0**57),
    "of values a thousand times as small": (2.0**-10, 1.5 * 2.0**47),
    "multiples of 16": (0.5, 1.5 * 2.0**56),
}


def with_three_above(unit: float) -> Cohort:
    """The other covariate is a body mass index from 17 to 46, and three patients' are 49 and more, times `unit`."""
    bmi = np.random.default_rng(5).normal(28, 4.5, PATIENTS).clip(17, 46)
    bmi[FEW] = [49.0, 49.3, 49.6]
    return hospital().with_columns(rare=bmi * unit)


def at(centre: float, *, scale: float, beta: float) -> dict[str, FloatArray]:
    return {
        "beta": np.array([0.0, beta]),
        "last_beta": np.zeros(2),
        "centre": np.array([60.0, centre]),
        "scale": np.array([13.0, scale]),
        "last_log_likelihood": np.asarray(0.0),
        "null_log_likelihood": np.asarray(0.0),
        "exchange": np.asarray(2.0),
    }


@pytest.mark.parametrize("which", CENTRES)
def test_no_centre_makes_two_values_of_a_covariate(which: str, tmp_path: Path) -> None:
    unit, centre = CENTRES[which]
    cohort = with_three_above(unit)
    rounded = (cohort["rare"] - centre) + centre
    values, counts = np.unique(rounded, return_counts=True)
    assert values.size <= 3
    assert counts.min() == 3, "the attack has its three patients"
    bare = Attacker(campaign(guard=False), cohort, tmp_path / "bare")
    columns = {COLUMNS: np.ones(2)}
    guarded = Attacker(campaign(), cohort, tmp_path / "guarded")
    assert guarded.agreed(BY_SITE) is not None
    for iterate in (
        {"centre": np.array([0.0, centre])},
        at(centre, scale=16 * unit, beta=0.0),
        at(centre, scale=16 * unit, beta=1.0),
    ):
        assert bare.ask(BY_SITE, iterate) is None
        assert guarded.ask(BY_SITE, {**iterate, **columns}) is None
        assert guarded.refusals[-1][0] == "iterate"
    honest = float(cohort["rare"].mean())
    assert guarded.ask(BY_SITE, {**at(honest, scale=float(cohort["rare"].std()), beta=0.1), **columns}) is not None


@pytest.mark.parametrize("offset", [1e9, -3e12, 1.7e17])
def test_values_that_are_large_themselves_keep_their_centre(offset: float, tmp_path: Path) -> None:
    """What the values are rounded to already, the centre does not round further."""
    cohort = with_three_above(1.0)
    cohort = cohort.with_columns(rare=offset + cohort["rare"] * max(1.0, np.spacing(abs(offset))))
    guarded = Attacker(campaign(), cohort, tmp_path)
    assert guarded.agreed(BY_SITE) is not None
    first = {"centre": np.array([0.0, float(cohort["rare"].mean())]), COLUMNS: np.ones(2)}
    assert guarded.ask(BY_SITE, first) is not None, guarded.refusals


@pytest.mark.parametrize("threshold", [25.0, 31.4, 40.05])
@pytest.mark.parametrize("beside", ["of two values", "the same for everybody"])
def test_no_coefficient_makes_a_threshold_of_pairs(beside: str, threshold: float) -> None:
    """Pairs of equal risk would be those on one side of a value that the coordinator chooses."""
    cohort = with_three_above(1.0)
    sex = cohort["is_male"] if beside == "of two values" else np.ones(PATIENTS)
    cohort = cohort.with_columns(sex=sex)
    cox = CoxBySite("cox:attack", ("sex", "rare"), subset="is_test")
    model = ModelConcordance("concordance:attack", cox, cox)
    # Next to 1 the distance of two numbers is 2e-16: half of it is passed at the threshold.
    scale = 1.0 / (np.spacing(1.0) / 2 / 20.0)
    iterate = at(threshold - 20.0, scale=scale, beta=1.0)
    iterate["centre"] = np.array([-1.0, threshold - 20.0])
    iterate["scale"], iterate["beta"] = np.array([1.0, scale]), np.array([1.0, 1.0])
    z = (cohort.matrix(("sex", "rare")) - iterate["centre"]) / iterate["scale"]
    for value in np.unique(sex):
        rounded = z.sum(axis=1)[sex == value]
        assert np.unique(rounded).size <= 3, "the attack makes few values of it"
    without = {**iterate, "beta": np.array([1.0, 0.0])}
    assert model.local(cohort, iterate)["tied"] == model.local(cohort, without)["tied"]
    seen = {**iterate, "scale": np.array([1.0, 5.0]), "centre": np.array([0.0, 28.0])}
    assert model.local(cohort, seen)["tied"] < model.local(cohort, without)["tied"] / 10


@pytest.mark.parametrize("which", CENTRES)
@pytest.mark.parametrize("minimum_count", [2, 10])
def test_no_centre_makes_two_values_of_a_feature(which: str, minimum_count: int) -> None:
    unit, centre = CENTRES[which]
    cohort = with_three_above(unit).with_columns(is_train=np.ones(PATIENTS), place=np.linspace(0, 0.999, PATIENTS))
    sums = TablePreparation(("rare",), penalty=1.0, minimum_count=minimum_count)
    with pytest.raises(IterateRefused, match="centre and spread of feature 1"):
        sums.local(cohort, {"centre": np.array([centre]), "spread": np.array([abs(centre)]), "error": np.zeros(1)})
    for honest in (28.0 * unit, 28.0 * unit + 1e4 * unit):
        sums.local(cohort, {"centre": np.array([honest]), "spread": np.array([4.0 * unit]), "error": np.zeros(1)})
