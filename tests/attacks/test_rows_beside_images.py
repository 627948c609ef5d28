"""What an update tells of one patient's value beside the image: nothing that the influence rule does not let through.

The attack knows everything but one value of one patient, and compares the update of the site with the one that each
value would give.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.compute.training import train_locally
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import ROW, RoundsPhase, Samples
from tests.plugins.pictures import pictures
from tests.plugins.test_beside_images import campaign_text, in_memory, made_of, people

pytestmark = pytest.mark.usefixtures("installed")

TARGET, PATIENTS = 5, 60
Values = NDArray[np.float64]


def rare(value: float, score: Values) -> Values:
    """A diagnosis that the target has or nobody."""
    return np.where(np.arange(score.size) == TARGET, value, 0.0)


def beside(value: float, score: Values) -> Values:
    """The other column once more, but for the target."""
    return np.where(np.arange(score.size) == TARGET, score + value, score)


def missing(value: float, score: Values) -> Values:
    """A value that everybody has, maybe but for the target."""
    return np.where(np.arange(score.size) == TARGET, np.nan if value else 0.5, -score)


def update(make: Callable[[float, Values], Values], value: float, *, minimum: int) -> dict[str, Values]:
    """What the site adds to the model when the target has this value."""
    campaign, found = (
        parse_campaign(campaign_text(clinical="score other", minimum=minimum, may_lack=True)),
        people(PATIENTS, 3),
    )
    found["is_male"] = np.arange(PATIENTS) % 2.0
    found["other"] = make(value, found["score"])
    samples, _ = in_memory(campaign.text, found)
    samples = Samples({"chest": pictures(60 + found["seen"], 1), ROW: samples[ROW]}, samples.present)
    phase, training = made_of(campaign).phases[0], campaign.training
    assert isinstance(phase, RoundsPhase)
    assert training is not None
    before = phase.start({}, seed=1)
    after = train_locally(
        phase, before, samples, {"age_years": found["age_years"]}, training=training, round_number=1, rng_seed=1,
        threads=1, device="cpu", minimum_count=minimum,
    )  # fmt: skip
    return {name: array - before[name] for name, array in after.weights.items()}


@pytest.mark.parametrize("make", [rare, beside, missing])
def test_an_update_is_the_same_whatever_the_one_value_is(make: Callable[[float, Values], Values]) -> None:
    one, other = (update(make, value, minimum=5) for value in (0.0, 1.0))
    if make is beside:  # an exact copy is one column twice, and told as such
        one = update(make, 2.0, minimum=5)
    for name, change in one.items():
        np.testing.assert_array_equal(change, other[name], err_msg=name)
    assert not one["row.weight"][:, 1].any()
    without = [update(make, value, minimum=1)["row.weight"] for value in (0.0, 1.0)]
    assert np.abs(without[0] - without[1]).max() > 1e-4, "the control: without the rule the value shows"
