"""Crafted weights where the coordinator works together with a site: what one update gives without and with privacy.

Attack: model continuity bounds how far models move from round to round. A coordinator that has a colluding site send
the updates that lead to the crafted model stays within it, over more runs or longer ones, and under secure aggregation
takes that site's part off the sum, so that the victim's update stands alone. So here it is given all of it: the crafted
model, with the victim's own quantiles, and the bare update. Rule: privacy for each patient, which does not depend on
what model comes. Residual risk: without it, the records below.

Legend: n training patients, p features, k hidden units whose thresholds lie between neighbouring patients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.compute import private_training
from fedage.client.compute.private_training import PrivateTraining, train_privately
from fedage.client.compute.training import train_locally
from fedage.common import estimators
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import RoundsPhase, Samples
from fedage.common.privacy.accountant import Mechanism, noise_for
from fedage.common.privacy.noise import key_for

N, P = 40, 12
W, B, OUT = "correction.0.weight", "correction.0.bias", "correction.2.weight"
RATE, SLOPE = 0.2, 1000.0


def whole_records(trial: int, *, epsilon: float = np.inf, clip_norm: float = 1.0) -> int:
    """Of how many patients every feature comes out of one update, within 0.05 SD."""
    chance = np.random.default_rng(trial)
    z = chance.normal(size=(N, P))
    options: dict[str, Any] = {
        "features": ["*"],
        "start": "stated",
        "noise": 0.0,
        "hidden": [N],
        "age_scale": "linear",
        "ranges": {"*": [-2.0, 2.0]},
        "age_range_years": [20.0, 90.0],
    }
    (phase,) = estimators.make("table-mlp", options).for_table([f"x{k}" for k in range(P)]).phases
    assert isinstance(phase, RoundsPhase)
    model = {name: np.array(array) for name, array in phase.start({}, seed=trial).items()}
    direction = chance.normal(size=P)
    direction /= np.linalg.norm(direction)
    along = np.sort(z @ direction)
    # The best that there is: one threshold below each patient. So steep that a unit passes all or nothing.
    thresholds = np.append(along[0] - 1, (along[1:] + along[:-1]) / 2)
    model[W], model[B] = (
        (SLOPE * np.tile(direction, (N, 1))).astype(np.float32),
        (-SLOPE * thresholds).astype(np.float32),
    )
    model[OUT] = np.ones((1, N), dtype=np.float32)
    samples, targets = Samples({"row": z.astype(np.float32)}), {"age_years": chance.uniform(20, 90, N)}
    common: dict[str, Any] = {
        "training": Training(rounds=1, optimiser="sgd", learning_rate=RATE, batch_size=4096),
        "round_number": 1,
        "threads": 1,
        "device": "cpu",
    }
    if np.isinf(epsilon):
        update = train_locally(phase, model, samples, targets, rng_seed=1, **common)
    else:
        sigma = noise_for(epsilon, delta=1e-5, rate=1.0, steps=1)
        mechanism = Mechanism(sampling_rate=1.0, noise_multiplier=sigma, steps=1)
        private = PrivateTraining(mechanism=mechanism, clip_norm=clip_norm, key=key_for(b"imprint", str(trial)))
        update = train_privately(phase, model, samples, targets, private=private, **common)
    weights, biases = (update.weights[name].astype(np.float64) - model[name] for name in (W, B))
    return _found(weights, biases, z)


def _found(weights: NDArray[np.float64], biases: NDArray[np.float64], z: NDArray[np.float64]) -> int:
    """Of how many patients the record is the ratio of what two neighbouring units say between them."""
    dw = weights - np.vstack([weights[1:], np.zeros((1, P))])
    db = biases - np.append(biases[1:], 0.0)
    told = np.abs(db) > 1e-12
    records = dw[told] / db[told][:, None]
    return int(np.count_nonzero(np.abs(z[:, None] - records[None]).max(axis=2).min(axis=1) < 0.05))


def test_without_privacy_one_update_is_most_of_the_patients() -> None:
    found = [whole_records(trial) for trial in range(3)]
    print(f"without privacy: {found} of {N} whole records")
    assert min(found) > 0.8 * N


@pytest.mark.parametrize("epsilon", [8.0, 3.0, 1.0])
@pytest.mark.parametrize("clip_norm", [1.0, 1e3])
def test_with_privacy_no_record_comes_out(epsilon: float, clip_norm: float) -> None:
    found = [whole_records(trial, epsilon=epsilon, clip_norm=clip_norm) for trial in range(3)]
    print(f"ε {epsilon:g}, clip norm {clip_norm:g}: {found} of {N} whole records")
    assert max(found) == 0


def test_it_is_the_noise_that_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_training, "noised", lambda total, **_named: total)
    found = [whole_records(trial, epsilon=1.0, clip_norm=1e3) for trial in range(3)]
    print(f"clipped alone: {found} of {N} whole records")
    assert min(found) > 0.25 * N
