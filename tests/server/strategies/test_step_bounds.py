"""No strategy moves the model further in a round, or in a run, than the sites allow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.campaign.types import Training
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits, StepTooLong, step_between
from fedage.server.campaign.strategies import RoundStart, Spool, Update, make_strategy
from fedage.server.campaign.strategies.updates import limited_step

LIMITS = StepLimits(step_norm=0.5, path_norm=2.2)
ROLES = ArrayRoles(learnt=("w", "b"))
STRATEGIES = [
    'strategy = "fedavg"',
    'strategy = "fedavg"\nweighting = "equal"',
    'strategy = "fedprox"',
    'strategy = "fedavgm"\nserver_learning_rate = 5.0',
    'strategy = "fedadam"\nserver_learning_rate = 2.0',
    'strategy = "scaffold"\noptimiser = "sgd"',
    'strategy = "fedbn"',
]


def models(training: Training, folder: Path, *, rounds: int) -> list[dict[str, np.ndarray]]:
    """The model after each round, of updates as long as a site may send them, all the same way."""
    strategy = make_strategy(training, Spool(folder), learnt=ROLES.learnt)
    weights, path, found = {"w": np.zeros((3, 2), np.float32), "b": np.zeros(4, np.float32)}, 0.0, []
    change = {name: np.full_like(array, 0.5 / np.sqrt(10)) for name, array in weights.items()}
    for number in range(1, rounds + 1):
        strategy.configure(RoundStart(number=number, weights=weights, sites=("a", "b"), learning_rate=0.1))
        for site, n in (("a", 10), ("b", 30)):
            strategy.accept(Update(site=site, change=change, n=n, steps=4))
        made = strategy.finish()
        weights, norm, _ = limited_step(weights, made.weights, ROLES, limits=LIMITS, path=path)
        path += norm
        found.append(weights)
    return found


@pytest.mark.parametrize("text", STRATEGIES)
def test_each_step_and_the_path_are_within_the_bounds_that_sites_hold(text: str, tmp_path: Path) -> None:
    keys = dict(line.split(" = ") for line in text.splitlines())
    values = {key: value.strip('"') if '"' in value else float(value) for key, value in keys.items()}
    training = Training.model_validate({"rounds": 8, **values})
    found = models(training, tmp_path, rounds=8)
    start = {name: np.zeros_like(array) for name, array in found[0].items()}
    steps = [
        step_between(before, after, ROLES, limits=LIMITS) for before, after in zip([start, *found], found, strict=False)
    ]
    assert max(steps) <= LIMITS.step_norm * 1.001
    assert steps[0] == pytest.approx(LIMITS.step_norm, rel=0.02)  # each of them would go as far or further
    assert sum(steps) == pytest.approx(LIMITS.path_norm, rel=1e-3)
    # A site that was away allows as many steps as rounds it missed, and not one fewer.
    for missed in (1, 2, 3):
        assert step_between(start, found[missed], ROLES, limits=LIMITS, rounds=missed + 1) > missed * LIMITS.step_norm
        with pytest.raises(StepTooLong):
            step_between(start, found[missed], ROLES, limits=LIMITS, rounds=missed)
