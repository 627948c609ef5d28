"""Steps of many sizes in one function of age: its sum, to sixteen digits, counts the patients of each step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import with_parts
from fedage.common.analyses.base import Iterate
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from tests.attacks.asked_of_a_site import Attacker

CAMPAIGN = parse_campaign(
    """
[campaign]
name = "digits"
purpose = "Write the patients of each age into the digits of a sum"
seed = 3
[table]
id = "id"
age = "age"
predicted = "predicted"
[cohort]
age_min_years = 40
age_max_years = 80
[privacy]
minimum_count = 10
[analyses.rank-correlation]
"""
)
BASE, BINS = 256.0, 400


def _digits(start: int) -> np.ndarray:
    """Ranks of bins of 0.1 years: 0, then five steps of a power of the base each, then a half, then 1."""
    ranks = np.zeros(BINS)
    for k in range(5):
        ranks[start + 4 * k :] = BASE ** (k - 5)
    ranks[start + 20 :], ranks[250:] = 0.5, 1.0
    return ranks


def _site() -> Cohort:
    rng = np.random.default_rng(5)
    age = np.round(rng.uniform(40, 80, 120), 1)
    predicted = age + rng.normal(0, 4, 120)
    columns = {"age_years": age, "predicted_years": predicted, "raw_gap_years": predicted - age}
    return with_parts(Cohort(columns), np.linspace(0, 0.999, 120), CAMPAIGN)


@pytest.mark.parametrize("start", [20, 60, 140])
def test_no_step_of_any_analysis_takes_a_function_of_age(start: int, tmp_path: Path) -> None:
    attacker = Attacker(campaign=CAMPAIGN, cohort=_site(), folder=tmp_path)
    brought: list[Iterate] = [
        {"ranks": np.stack([_digits(start), np.linspace(0, 1, BINS)]), "off": np.zeros((2, BINS))},
        {"ranks": _digits(start)},
        {"points": 40 + np.arange(BINS) / 10, "values": _digits(start)},
    ]
    for step in attacker.steps:
        for iterate in brought:
            assert attacker.ask(step, iterate) is None
    assert {rule for rule, _ in attacker.refusals} == {"iterate"}


def test_honest_steps_are_answered(tmp_path: Path) -> None:
    attacker = Attacker(campaign=CAMPAIGN, cohort=_site(), folder=tmp_path)
    told = attacker.everything("rank-correlation")
    assert len(told) == 1
    assert float(told[0]["n"]) == 120
