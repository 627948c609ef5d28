"""SCAFFOLD against the published recursion, written out by site on losses whose gradients are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fedage.common.networks.control_variates import ControlVariates, reach
from fedage.common.protocol.control import control_of, counted_round
from fedage.server.campaign.strategies import RoundStart, Scaffold, Spool, Update, UpdateRefused, check_update

RATE = 0.05
CURVATURES = {"a": np.array([1.0, 4.0, 0.5]), "b": np.array([3.0, 0.2, 2.0]), "c": np.array([0.3, 1.0, 5.0])}
CENTRES = {"a": np.array([1.0, -2.0, 0.5]), "b": np.array([-3.0, 1.0, 2.0]), "c": np.array([0.0, 4.0, -1.0])}
STEPS = {"a": 5, "b": 11, "c": 2}
PATIENTS = {"a": 40, "b": 25, "c": 90}


def gradient(site: str, w: np.ndarray) -> np.ndarray:
    return CURVATURES[site] * (w - CENTRES[site])


def optimum() -> np.ndarray:
    """Of Σ nᵢ fᵢ, the objective that weights by patients have."""
    total = sum(PATIENTS[site] * CURVATURES[site] for site in PATIENTS)
    return np.asarray(sum(PATIENTS[site] * CURVATURES[site] * CENTRES[site] for site in PATIENTS) / total)


@dataclass
class Paper:
    """Algorithm 1 with option II, every control variate in one place, float64."""

    x: np.ndarray = field(default_factory=lambda: np.zeros(3))
    own: dict[str, np.ndarray] = field(default_factory=dict)

    def control(self) -> np.ndarray:
        total = sum(PATIENTS[site] for site in self.own)
        return np.asarray(sum(PATIENTS[site] * self.own[site] for site in self.own) / total) if total else np.zeros(3)

    def round(self, sites: str, *, lost: str = "") -> None:
        c, updates = self.control(), {}
        for site in sites:
            y, own = self.x.copy(), self.own.get(site, np.zeros(3))
            for _ in range(STEPS[site]):
                y = y - RATE * (gradient(site, y) + c - own)
            if site not in lost:
                updates[site] = (y - self.x, own - c + (self.x - y) / (STEPS[site] * RATE))
        total = sum(PATIENTS[site] for site in updates)
        self.x = self.x + sum(PATIENTS[site] * update for site, (update, _) in updates.items()) / total
        self.own |= {site: own for site, (_, own) in updates.items()}


@dataclass
class Sites:
    """The same by the product's strategy and control variates, each site knowing its own by round."""

    strategy: Scaffold
    allowed: float = np.inf
    x: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.float32))
    kept: dict[str, dict[int, dict[str, np.ndarray]]] = field(default_factory=lambda: {site: {} for site in PATIENTS})
    number: int = 0

    def round(self, sites: str, *, lost: str = "") -> None:
        self.number += 1
        start = RoundStart(number=self.number, weights={"w": self.x}, sites=tuple(sites), learning_rate=RATE)
        payload = self.strategy.configure(start).payload
        for site in sites:
            counted = counted_round(payload, site=site) or 0
            control = ControlVariates(control_of(payload), self.kept[site].get(counted, {}), self.allowed)
            added = control.correction(steps=STEPS[site], rate=RATE).get("w", np.zeros(3))
            y = self.x.astype(np.float64)
            for _ in range(STEPS[site]):
                y = y - RATE * (gradient(site, y) + added)
            change = {"w": (y - self.x).astype(np.float32)}
            self.kept[site][self.number] = dict(control.own_after(change, steps=STEPS[site], rate=RATE))
            if site not in lost:
                share = control.share(steps=STEPS[site], rate=RATE)
                n, steps = PATIENTS[site], STEPS[site]
                self.strategy.accept(Update(site=site, change=change, n=n, steps=steps, control_share=share))
        self.x = self.strategy.finish().weights["w"]


def scaffold(folder: Path) -> Scaffold:
    return Scaffold(Spool(folder / "updates"), learnt=["w"])


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(["abc"] * 6, id="everybody"),
        pytest.param(["ab", "abc", "c", "bc", "a", "abc"], id="who is there"),
        pytest.param(["abc", "abc!b", "abc", "bc!c", "abc!ab", "abc"], id="updates that do not count"),
        pytest.param(["a", "ab", "abc", "abc", "abc!a", "ac"], id="sites that come later"),
    ],
)
def test_rounds_are_those_of_the_paper(rounds: list[str], tmp_path: Path) -> None:
    paper, sites = Paper(), Sites(scaffold(tmp_path))
    for each in rounds:
        there, _, lost = each.partition("!")
        paper.round(there, lost=lost)
        sites.round(there, lost=lost)
        np.testing.assert_allclose(sites.x, paper.x, rtol=0, atol=2e-5)


def test_control_variates_reach_the_optimum_that_averaging_misses(tmp_path: Path) -> None:
    sites, plain = Sites(scaffold(tmp_path)), Sites(scaffold(tmp_path / "plain"), allowed=0.0)
    for _ in range(400):
        sites.round("abc")
        x = plain.x
        plain.strategy.restore({})  # no control variates: federated averaging
        plain.kept = {site: {} for site in PATIENTS}
        plain.round("abc")
    assert np.abs(plain.x - x).max() < 1e-6  # it has come to rest, elsewhere
    assert np.abs(plain.x - optimum()).max() > 0.3
    assert np.abs(sites.x - optimum()).max() < 1e-3


def test_a_restored_strategy_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole, cut = Sites(scaffold(tmp_path / "whole")), Sites(scaffold(tmp_path / "cut"))
    for each in ("abc", "ab", "bc"):
        whole.round(each)
        cut.round(each)
    other = scaffold(tmp_path / "other")
    other.restore(cut.strategy.state())
    cut.strategy = other
    for each in ("ac", "abc"):
        whole.round(each)
        cut.round(each)
    np.testing.assert_array_equal(whole.x, cut.x)


@pytest.mark.parametrize(("norm", "steps", "rate"), [(1e6, 10, 0.1), (3.0, 1000, 0.01), (1e-3, 10**6, 1.0)])
def test_a_control_variate_moves_no_model_further_than_a_step(norm: float, steps: int, rate: float) -> None:
    sent = {"w": np.full(16, norm / 4, dtype=np.float32)}
    control = ControlVariates(sent, {}, 0.5)
    assert 0 < control.share(steps=steps, rate=rate) < 1
    assert reach(control.correction(steps=steps, rate=rate), steps=steps, rate=rate) == pytest.approx(0.5, rel=1e-5)
    assert ControlVariates(sent, {}, 1e9).share(steps=steps, rate=rate) == 1.0
    assert not ControlVariates(sent, {}, 0.0).correction(steps=steps, rate=rate)["w"].any()


@pytest.mark.parametrize("steps", [0, -1, 21, 10**9])
def test_an_update_of_more_steps_than_its_patients_make_does_not_count(steps: int) -> None:
    update = Update(site="a", change={"w": np.zeros(3, dtype=np.float32)}, n=10, steps=steps)
    with pytest.raises(UpdateRefused, match="the steps"):
        check_update(update, {"w": np.zeros(3, dtype=np.float32)}, patients=10, most_steps=20)
