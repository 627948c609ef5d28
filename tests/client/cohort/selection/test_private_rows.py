"""Under differential privacy no column beside the images comes or goes with one patient: the site refuses instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.selection.row import with_row
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import ROW, Samples
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort

N = 200
TEXT = """
[campaign]
name = "films"
purpose = "Learn ages from films and sex, with privacy"
seed = 3
[estimator]
name = "chest-ca"
[estimator.options]
sex_input = true
[training]
rounds = 2
[privacy]
minimum_count = 10
"""
PRIVATE = 'mode = "sample"\nnoise_multiplier = 1.0\ndelta = 1e-5\nclip_norm = 1.0\n'
Sexes = Callable[[], np.ndarray]


def few_women() -> np.ndarray:
    return np.where(np.arange(N) < 6, 0.0, 1.0)


def men_alone() -> np.ndarray:
    return np.ones(N)


def few_known() -> np.ndarray:
    return np.where(np.arange(N) < 8, np.arange(N) % 2.0, np.nan)


def few_unknown() -> np.ndarray:
    return np.where(np.arange(N) < 5, np.nan, np.arange(N) % 2.0)


def beside(sexes: np.ndarray, *, private: bool) -> Samples:
    campaign = parse_campaign(TEXT + (PRIVATE if private else ""))
    ages = np.linspace(20, 80, N)
    cohort = with_parts(Cohort({"age_years": ages, "is_male": sexes}), np.arange(N) / N, campaign)
    assert campaign.estimator is not None
    estimator = make("chest-ca", campaign.estimator.options)
    samples, _ = with_row(Samples({}), cohort, campaign, estimator)
    return samples


@pytest.mark.parametrize("sexes", [few_women, men_alone, few_known, few_unknown])
def test_a_private_training_is_refused_where_another_leaves_the_column_out(sexes: Sexes) -> None:
    assert np.isnan(beside(sexes(), private=False).arrays[ROW]).all()
    with pytest.raises(RequestRefused, match="under differential privacy nothing is left out by that") as refused:
        beside(sexes(), private=True)
    assert refused.value.rule == "influence"


@pytest.mark.parametrize("private", [False, True])
def test_a_column_that_enough_differ_in_is_taken(private: bool) -> None:
    sexes = np.arange(N) % 2.0
    np.testing.assert_array_equal(beside(sexes, private=private).arrays[ROW][:, 0], sexes)
