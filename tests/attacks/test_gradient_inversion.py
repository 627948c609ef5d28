"""Gradient inversion of a single patient: exact against a bare update, of no use against one with privacy.

Attack: of a network whose first layer is dense, the gradient of a hidden unit's weights is a multiple of the patient's
row (Phong et al. 2018). Rule: differential privacy bounds what an update tells of anybody. Here the attacker even knows
that one patient was trained on, and weighs the hidden units as is best under noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.compute.private_training import PrivateTraining, train_privately
from fedage.client.compute.training import train_locally
from fedage.common import estimators
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import RoundsPhase, Samples
from fedage.common.privacy.accountant import Mechanism, noise_for
from fedage.common.privacy.noise import key_for

FEATURES = 40
OPTIONS = {
    "features": ["*"],
    "start": "stated",
    "noise": 0.0,
    "hidden": [8],
    "age_scale": "linear",
    "ranges": {"*": [-2.0, 2.0]},
    "age_range_years": [20.0, 90.0],
}
W = "correction.0.weight"


Arrays = Mapping[str, NDArray[Any]]


def bare_update(
    trial: int, *, epsilon: float = np.inf
) -> tuple[NDArray[np.float32], Arrays, Arrays, Callable[[Arrays], NDArray[np.float64]]]:
    """A patient's row, the model that was trained on it alone, the update, and the row that follows from an update."""
    chance = np.random.default_rng(trial)
    row = chance.normal(size=(1, FEATURES)).astype(np.float32)
    made = estimators.make("table-mlp", OPTIONS).for_table([f"x{k}" for k in range(FEATURES)])
    (phase,) = made.phases
    assert isinstance(phase, RoundsPhase)
    model = phase.start({}, seed=trial)
    # Later than at its start a model's last layer is not 0.
    model["correction.2.weight"] = chance.normal(size=(1, 8)).astype(np.float32)
    # Small steps, as weights have 32 bits; a clipped gradient is short.
    rate = 1e-7 if np.isinf(epsilon) else 1e-2
    training = Training(rounds=1, optimiser="sgd", learning_rate=rate, batch_size=16)
    samples, targets = Samples({"row": row}), {"age_years": np.array([80.0])}
    if np.isinf(epsilon):
        update = train_locally(
            phase, model, samples, targets, training=training, round_number=1, rng_seed=1, threads=1, device="cpu"
        )
    else:
        sigma = noise_for(epsilon, delta=1e-5, rate=1.0, steps=1)
        update = train_privately(
            phase,
            model,
            samples,
            targets,
            training=training,
            private=PrivateTraining(
                mechanism=Mechanism(sampling_rate=1.0, noise_multiplier=sigma, steps=1),
                clip_norm=1.0,  # shorter than the gradient: the attacker gets all of it
                key=key_for(b"inversion", str(trial)),
            ),
            round_number=1,
            threads=1,
            device="cpu",
        )

    def inverted(change: Arrays) -> NDArray[np.float64]:
        # Each hidden unit shows the row, by its weight in the sum that follows, which the attacker knows.
        found: NDArray[np.float64] = model["correction.2.weight"][0] @ (change[W].astype(np.float64) / rate)
        return found

    change = {name: array.astype(np.float64) - model[name] for name, array in update.weights.items()}
    return row[0], model, change, inverted


def recovered(*, epsilon: float, trial: int) -> float:
    """Correlation of the row that is recovered with the true one."""
    row, _, change, inverted = bare_update(trial, epsilon=epsilon)
    return float(np.corrcoef(inverted(change), row)[0, 1])


def test_the_bare_update_of_one_patient_is_the_record() -> None:
    assert min(recovered(epsilon=np.inf, trial=trial) for trial in range(3)) > 0.99


@pytest.mark.parametrize("epsilon", [8.0, 3.0, 1.0])
def test_with_privacy_the_record_is_not_recovered(epsilon: float) -> None:
    found = [recovered(epsilon=epsilon, trial=trial) for trial in range(6)]
    print(f"ε {epsilon:g}: mean correlation {np.mean(found):.3f}, largest {np.max(found):.3f}")
    assert np.mean(found) < 0.5
