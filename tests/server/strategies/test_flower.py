"""Flower's own strategies, inside FedAge's rounds."""

import random
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp import strategy as flowers
from flwr.serverapp.strategy import FedAdam, FedMedian, FedTrimmedAvg
from flwr.supercore.task_identity import TaskIdentity

from fedage.server.campaign.strategies import FedAvg, RoundStart, Spool, Strategy, Update
from fedage.server.campaign.strategies.flower import FlowerStrategy


@pytest.fixture(autouse=True)
def in_a_run() -> None:
    """Flower makes no message outside of a task of a run, which every ServerApp is."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


SITES = ("a", "b", "c", "d")
PATIENTS = {"a": 10, "b": 40, "c": 25, "d": 5}


def start(number: int = 1) -> RoundStart:
    rng = np.random.default_rng(number)
    weights = {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}
    return RoundStart(number=number, weights=weights, sites=SITES)


def changes(begun: RoundStart) -> dict[str, Update]:
    rng = np.random.default_rng(9)
    return {
        site: Update(
            site=site,
            change={name: rng.normal(size=a.shape).astype(np.float32) for name, a in begun.weights.items()},
            n=PATIENTS[site],
        )
        for site in SITES
    }


def made_by(strategy: Strategy, *, order: tuple[str, ...] = SITES) -> dict[str, np.ndarray]:
    begun = start()
    assert strategy.configure(begun).sites == SITES
    updates = changes(begun)
    for site in order:
        strategy.accept(updates[site])
    return strategy.finish().weights


def wrapped(strategy: flowers.Strategy, folder: Path, *, seed: int = 1) -> FlowerStrategy:
    return FlowerStrategy(strategy, Spool(folder / "flower"), seed=seed)


def test_flowers_averaging_is_ours(tmp_path: Path) -> None:
    ours = made_by(FedAvg(Spool(tmp_path / "ours")))
    theirs = made_by(wrapped(flowers.FedAvg(), tmp_path))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=0, atol=1e-6)


def test_a_median_is_that_of_the_trained_models(tmp_path: Path) -> None:
    begun = start()
    trained = np.stack([begun.weights["w"] + update.change["w"] for update in changes(begun).values()])
    theirs = made_by(wrapped(FedMedian(), tmp_path))
    np.testing.assert_allclose(theirs["w"], np.median(trained, axis=0), atol=1e-6)


def test_a_trimmed_mean_leaves_out_the_ends(tmp_path: Path) -> None:
    begun = start()
    trained = np.sort(np.stack([begun.weights["b"] + update.change["b"] for update in changes(begun).values()]), axis=0)
    theirs = made_by(wrapped(FedTrimmedAvg(beta=0.25), tmp_path))
    np.testing.assert_allclose(theirs["b"], trained[1:3].mean(axis=0), atol=1e-6)


def test_adaptive_steps_keep_their_moments_from_round_to_round(tmp_path: Path) -> None:
    eta, tau, beta_1, beta_2 = 0.1, 1e-3, 0.9, 0.99
    strategy = wrapped(FedAdam(eta=eta, tau=tau, beta_1=beta_1, beta_2=beta_2), tmp_path)
    m, v = 0.0, 0.0
    weights = start().weights["b"].astype(np.float64)
    total = sum(PATIENTS.values())
    for number in (1, 2, 3):
        begun = RoundStart(number=number, weights={"b": weights.astype(np.float32)}, sites=SITES)
        strategy.configure(begun)
        updates = [Update(site=s, change={"b": changes(start())[s].change["b"]}, n=PATIENTS[s]) for s in SITES]
        for update in updates:
            strategy.accept(update)
        mean = sum(u.n * u.change["b"].astype(np.float64) for u in updates) / total
        m = beta_1 * m + (1 - beta_1) * mean
        v = beta_2 * v + (1 - beta_2) * mean**2
        # Flower's FedAdam corrects the bias of the moments by the step's size (Kingma and Ba 2015, end of section 2).
        rate = eta * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1))
        weights = weights + rate * m / (np.sqrt(v) + tau)
        np.testing.assert_allclose(strategy.finish().weights["b"], weights, atol=1e-5)


def test_the_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    results = [made_by(wrapped(flowers.FedAvg(), tmp_path), order=order) for order in (SITES, SITES[::-1])]
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


def test_the_sites_it_samples_are_those_that_are_asked_by_the_runs_seed(tmp_path: Path) -> None:
    def chosen(seed: int) -> list[tuple[str, ...]]:
        strategy = wrapped(flowers.FedAvg(fraction_train=0.5), tmp_path, seed=seed)
        return [strategy.configure(start(number)).sites for number in range(1, 9)]

    state = random.getstate()
    first = chosen(1)
    assert random.getstate() == state
    assert all(len(sites) == 2 and list(sites) == sorted(sites) for sites in first)
    assert len(set(first)) > 1
    random.seed(5)
    assert chosen(1) == first
    assert chosen(2) != first


def test_one_that_wants_more_sites_than_there_are_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wants 5 sites"):
        wrapped(flowers.FedAvg(min_train_nodes=5), tmp_path).configure(start())


class Nothing(flowers.FedAvg):
    def aggregate_train(self, *_: object) -> tuple[None, None]:
        return None, None


def test_one_that_makes_no_model_ends_the_round(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made no model"):
        made_by(wrapped(Nothing(), tmp_path))
