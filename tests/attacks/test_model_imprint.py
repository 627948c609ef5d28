"""Crafted weights that put single patients' records into an update: what they give with and without the rule.

Each hidden unit lets those patients through who lie beyond a value of one projection of their features; the gradients
of two neighbouring units differ by whoever lies between, and the ratio to the bias's gradient is that patient's record
(the "imprint" of Fowl et al. 2022). The yield is the number of training patients whose whole record comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.inbox import handlers
from fedage.common.estimators.configure import step_limits
from fedage.common.networks.steps import learnt_norm
from tests.attacks.table_attacker import FEATURES, ROUNDS, Attacker
from tests.of_estimators import roles

W, B, OUT = "correction.0.weight", "correction.0.bias", "correction.2.weight"
UNITS = 64
Arrays = Mapping[str, NDArray[Any]]


def imprinted(
    first: Arrays, *, slope: float, thresholds: NDArray[np.float64], direction: NDArray[np.float64], out: float
) -> dict[str, NDArray[Any]]:
    """The model whose first hidden units pass those beyond each threshold of direction · z."""
    model = {name: np.array(array) for name, array in first.items()}
    k = len(thresholds)
    model[W][:k], model[B][:k] = slope * direction, -slope * thresholds
    model[OUT][0, :k] = out
    return model


def records(update: Arrays, *, units: int, rate: float = 0.2) -> NDArray[np.float64]:
    """What neighbouring units' gradients say between them, (k + 1, p) in the model's standard deviations."""
    weights = np.vstack([update[W][:units].astype(np.float64), np.zeros((1, FEATURES))]) / rate
    biases = np.append(update[B][:units].astype(np.float64), 0.0) / rate
    dw, db = weights[:-1] - weights[1:], biases[:-1] - biases[1:]
    told = np.abs(db) > 1e-9
    return dw[told] / db[told][:, None]


def whole_records(found: NDArray[np.float64], attacker: Attacker, first: Arrays) -> int:
    """How many training patients' every feature is among what was found, within 0.05 of its standard deviation."""
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    z = (x[attacker.part("is_train")] - first["means"]) * first["units"]
    unit = z.std(axis=0)
    if not len(found):
        return 0
    distance = np.abs(z[:, None] - found[None]) / unit
    return int(np.count_nonzero(distance.max(axis=2).min(axis=1) < 0.05))


def public(attacker: Attacker) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and SDs that a preparation tells honestly: the attacker knows them."""
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    return x.mean(axis=0), x.std(axis=0)


def best_outside(attacker: Attacker) -> dict[str, Any]:
    means, sds = public(attacker)
    sums = attacker.crafted_sums(means, sds)
    first = attacker.first(sums)
    direction = np.random.default_rng(7).normal(size=FEATURES)
    direction /= np.linalg.norm(direction)
    spread = float(np.sqrt(FEATURES))  # features move together: the projection's SD lies between 1 and this
    thresholds = np.linspace(-0.6 * spread, 0.6 * spread, UNITS)
    model = imprinted(first, slope=100.0, thresholds=thresholds, direction=direction, out=1.0)
    return {"sums": sums, "first": first, "model": model, "units": UNITS}


def inside(
    attacker: Attacker, *, units: int, around_sd: float, stretch: float, budget: float | None = None
) -> dict[str, Any]:
    """The sharpest model of so many units within the path of a run, around a place of the first feature.

    `budget` is how much of the path it may take; if not given, all.
    """
    limits = step_limits(attacker.campaign)
    assert limits is not None
    means, sds = public(attacker)
    centre, scale = means.copy(), sds.copy()
    centre[0], scale[0] = means[0] + around_sd * sds[0], sds[0] / stretch
    sums = attacker.crafted_sums(centre, scale)
    first = attacker.first(sums)
    direction = np.eye(FEATURES)[0]
    # Neighbouring patients of a normal feature lie about SD √(2π) / n apart at its middle.
    gap = stretch * np.sqrt(2 * np.pi) / len(attacker.part("is_train"))
    thresholds = (np.arange(units) - (units - 1) / 2) * gap
    arrays = roles(attacker.campaign, attacker.names)
    assert arrays is not None
    if budget is None:
        budget = min(limits.path_norm, (ROUNDS - 1) * limits.step_norm) * 0.999

    def model(slope: float) -> dict[str, NDArray[Any]]:
        return imprinted(first, slope=slope, thresholds=thresholds, direction=direction, out=0.3)

    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        made = model(middle)
        change = {name: made[name] - first[name] for name in made}
        low, high = (middle, high) if learnt_norm(change, arrays) <= budget else (low, middle)
    steps = int(np.ceil(budget / limits.step_norm * 1.001))
    return {"sums": sums, "first": first, "model": model(low), "units": units, "steps": steps}


def run_attack(attacker: Attacker, attack: Mapping[str, Any], *, bounded: bool) -> int:
    """The yield of one run."""
    run, first, sums = attacker.new_run(), attack["first"], attack["sums"]
    path = attacker.walk(first, attack["model"], steps=attack["steps"]) if bounded else [attack["model"]]
    update: Arrays = {}
    for number, model in enumerate(path, start=1):
        reply, update, _ = attacker.send(model, run=run, round_number=number, sums=sums if number == 1 else None)
        assert reply.status == "ok", reply.reason
    return whole_records(records(update, units=attack["units"]), attacker, first)


@pytest.fixture
def no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site without model continuity, as every site was."""
    monkeypatch.setattr(handlers, "admit_model", lambda *_args, **_named: None)


@pytest.mark.usefixtures("no_rule")
def test_without_the_rule_one_update_gives_whole_records(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    found = run_attack(attacker, best_outside(attacker), bounded=False)
    print(f"without the rule: {found} of {len(attacker.part('is_train'))} whole records in one update")
    assert found >= 9


def test_the_same_models_are_refused(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    attack = best_outside(attacker)
    first, made = attack["first"], attack["model"]
    arrays, limits = roles(attacker.campaign, attacker.names), step_limits(attacker.campaign)
    assert arrays is not None
    assert limits is not None
    length = learnt_norm({name: made[name] - first[name] for name in made}, arrays)

    def at(distance: float) -> dict[str, NDArray[Any]]:
        return {name: (a + (made[name] - a) * (distance / length)).astype(np.float32) for name, a in first.items()}

    steps, path = limits.step_norm, limits.path_norm
    assert steps < path < (ROUNDS - 1) * steps < length
    for number, model, rule in (
        (1, made, "first-model"),
        (1, at(0.5 * steps), "first-model"),
        (2, made, "model-step"),
        (2, at(1.01 * steps), "model-step"),
        (ROUNDS, made, "model-step"),
        (ROUNDS, at(1.01 * path), "model-path"),
        (ROUNDS, at(0.9 * (ROUNDS - 1) * steps), "model-path"),
        (ROUNDS // 2, at(1.01 * path), "model-path"),
    ):
        reply, update, _ = attacker.send(model, run=attacker.new_run(), round_number=number, sums=attack["sums"])
        assert (reply.status, reply.rule, update) == ("refused", rule, {}), (number, rule)


def test_inside_the_bound_a_run_gives_few_records(tmp_path: Path) -> None:
    """Measured over the attacker's choices: how many units, around which place, and how far features are stretched."""
    best = 0
    for seed in range(3):
        attacker = Attacker(tmp_path / str(seed), seed=seed)
        for units in (3, 8, 16, 64):
            for around_sd, stretch in ((0.0, 9.0), (1.0, 5.0), (1.8, 4.5)):
                attack = inside(attacker, units=units, around_sd=around_sd, stretch=stretch)
                found = run_attack(attacker, attack, bounded=True)
                best = max(best, found)
                print(seed, units, around_sd, stretch, attack["steps"], found)
    print(f"inside the bound: at most {best} whole records in a run")
    assert best <= 2
