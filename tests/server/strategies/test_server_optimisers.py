"""Server optimisers against Flower's, on parameters; a normalisation's buffers are averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp import strategy as flowers
from flwr.supercore.task_identity import TaskIdentity

from fedage.common.campaign.types import Training
from fedage.server.campaign.strategies import (
    FedAdam,
    FedAvg,
    FedAvgM,
    RoundStart,
    Spool,
    Strategy,
    Update,
    make_strategy,
)
from fedage.server.campaign.strategies.flower import FlowerStrategy


@pytest.fixture(autouse=True)
def in_a_run() -> None:
    """Flower makes no message outside of a task of a run, which every ServerApp is."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


PATIENTS = {"a": 10, "b": 25, "c": 40}
LEARNT = ("w", "b")
Made = Callable[[Path], Strategy]


def momentum(folder: Path) -> Strategy:
    return FedAvgM(Spool(folder), learnt=LEARNT, rate=0.7, momentum=0.8)


def adam(folder: Path) -> Strategy:
    return FedAdam(Spool(folder), learnt=LEARNT, rate=0.05, beta_1=0.9, beta_2=0.99, tau=1e-3)


def rounds(strategy: Strategy, *, first: int, last: int, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Some rounds, the updates of each drawn by its number."""
    for number in range(first, last + 1):
        rng = np.random.default_rng(number)
        strategy.configure(RoundStart(number=number, weights=weights, sites=tuple(PATIENTS)))
        for site, n in PATIENTS.items():
            change = {name: 0.1 * rng.normal(size=a.shape).astype(np.float32) for name, a in weights.items()}
            strategy.accept(Update(site=site, change=change, n=n))
        weights = strategy.finish().weights
    return weights


def start(*more: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(3, 2)).astype(np.float32) for name in (*LEARNT, *more)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (momentum, flowers.FedAvgM(server_learning_rate=0.7, server_momentum=0.8)),
        (adam, flowers.FedAdam(eta=0.05, beta_1=0.9, beta_2=0.99, tau=1e-3)),
    ],
)
def test_parameters_move_as_flowers_strategies_move_them(tmp_path: Path, ours: Made, theirs: flowers.Strategy) -> None:
    found = rounds(ours(tmp_path / "ours"), first=1, last=4, weights=start())
    wanted = rounds(FlowerStrategy(theirs, Spool(tmp_path / "theirs"), seed=1), first=1, last=4, weights=start())
    for name in LEARNT:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-6)


@pytest.mark.parametrize("ours", [momentum, adam])
def test_buffers_are_averaged(tmp_path: Path, ours: Made) -> None:
    """A variance near zero: the adaptive step of Flower's FedAdam would drive it below."""
    weights = {**start(), "norm.running_var": np.full(2, 1e-3, dtype=np.float32)}
    strategy, mean = ours(tmp_path / "a"), FedAvg(Spool(tmp_path / "b"))
    for each in (strategy, mean):
        each.configure(RoundStart(number=1, weights=weights, sites=("a", "b")))
        for site in ("a", "b"):
            change = {name: np.full_like(array, -5e-4) for name, array in weights.items()}
            each.accept(Update(site=site, change=change, n=10))
    moved, averaged = strategy.finish().weights, mean.finish().weights
    np.testing.assert_array_equal(moved["norm.running_var"], averaged["norm.running_var"])
    assert (moved["norm.running_var"] > 0).all()
    assert not np.array_equal(moved["w"], averaged["w"])


@pytest.mark.parametrize("ours", [momentum, adam])
def test_a_strategy_goes_on_from_its_state_bit_for_bit(tmp_path: Path, ours: Made) -> None:
    whole = rounds(ours(tmp_path / "whole"), first=1, last=4, weights=start("buffer"))
    before, after = ours(tmp_path / "before"), ours(tmp_path / "after")
    weights = rounds(before, first=1, last=2, weights=start("buffer"))
    after.restore(before.state())
    for name, array in rounds(after, first=3, last=4, weights=weights).items():
        assert array.tobytes() == whole[name].tobytes(), name


def test_weights_may_be_equal(tmp_path: Path) -> None:
    # Updates of 1 by 10 patients and of 4 by 30: (1 + 4) / 2 instead of (10 + 120) / 40.
    strategy = FedAvg(Spool(tmp_path), equal=True)
    strategy.configure(RoundStart(number=1, weights={"w": np.zeros(2, dtype=np.float32)}, sites=("a", "b")))
    for site, value, n in (("a", 1.0, 10), ("b", 4.0, 30)):
        strategy.accept(Update(site=site, change={"w": np.full(2, value, dtype=np.float32)}, n=n))
    np.testing.assert_array_equal(strategy.finish().weights["w"], np.float32([2.5, 2.5]))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, FedAvg),
        ({"strategy": "fedprox"}, FedAvg),
        ({"strategy": "fedavgm", "server_momentum": 0.5}, FedAvgM),
        ({"strategy": "fedadam", "server_learning_rate": 0.1}, FedAdam),
    ],
)
def test_a_file_names_its_strategy(tmp_path: Path, settings: dict[str, object], kind: type[Strategy]) -> None:
    training = Training.model_validate({"rounds": 3, **settings})
    assert type(make_strategy(training, Spool(tmp_path), learnt=LEARNT)) is kind
