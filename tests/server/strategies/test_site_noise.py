"""Noise for whole sites: its size for the weights in use, against how far one site moves the mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.common.campaign.types import Training
from fedage.server.campaign.strategies import RoundStart, SiteNoise, Spool, Update, make_strategy

SIGMA, CLIP = 1.5, 0.2
SIZE = 20_000
PATIENTS = {"north": 300, "south": 50, "west": 150}


def mean_of(
    folder: Path,
    changes: Mapping[str, NDArray[np.float32]],
    *,
    weighting: str = "patients",
    strategy: str = "fedavg",
    noise: SiteNoise | None = None,
    number: int = 1,
) -> NDArray[np.float64]:
    training = Training.model_validate({"rounds": 3, "weighting": weighting, "strategy": strategy})
    made = make_strategy(training, Spool(folder), learnt=("w",), noise=noise)
    weights = {"w": np.zeros(SIZE, np.float32), "fixed": np.zeros(3, np.float32)}
    made.configure(RoundStart(number=number, weights=weights, sites=tuple(changes)))
    for site, change in changes.items():
        made.accept(Update(site=site, change={"w": change, "fixed": np.zeros(3, np.float32)}, n=PATIENTS[site]))
    after = made.finish().weights
    assert not np.any(after["fixed"]), "what no training changes gets no noise"
    return after["w"].astype(np.float64)


def noise(*, key: bytes = b"k" * 32, sigma: float = SIGMA) -> SiteNoise:
    return SiteNoise(noise_multiplier=sigma, clip_norm=CLIP, key=key, learnt=("w",))


def updates(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Each of the L2 norm that a site clips to."""
    chance = np.random.default_rng(seed)
    drawn = {site: chance.normal(size=SIZE) for site in PATIENTS}
    return {site: (one * CLIP / np.linalg.norm(one)).astype(np.float32) for site, one in drawn.items()}


# By hand: equal weights σ C / 3; by patients the largest weight is 300 of 500.
@pytest.mark.parametrize(("weighting", "share"), [("equal", 1 / 3), ("patients", 300 / 500)])
def test_the_noise_has_the_size_of_the_weights_in_use(tmp_path: Path, weighting: str, share: float) -> None:
    changes = updates()
    bare = mean_of(tmp_path, changes, weighting=weighting)
    added = mean_of(tmp_path, changes, weighting=weighting, noise=noise()) - bare
    # The standard deviation of 20,000 normal numbers is known to 0.5 %; half the noise would be 100 errors away.
    assert added.std() == pytest.approx(SIGMA * CLIP * share, rel=0.025)
    assert abs(added.mean()) < 4 * SIGMA * CLIP * share / np.sqrt(SIZE)
    halved = mean_of(tmp_path, changes, weighting=weighting, noise=noise(sigma=SIGMA / 2)) - bare
    assert halved.std() < 0.6 * SIGMA * CLIP * share


@pytest.mark.parametrize("weighting", ["equal", "patients"])
def test_no_site_moves_the_mean_by_more_than_the_noise_is_made_for(tmp_path: Path, weighting: str) -> None:
    """A site's update replaced by zero, its weight kept: the neighbours that ε is told for."""
    changes = updates()
    bare = mean_of(tmp_path, changes, weighting=weighting)
    weights = dict.fromkeys(PATIENTS, 1) if weighting == "equal" else PATIENTS
    moved = {
        site: np.linalg.norm(
            bare - mean_of(tmp_path, changes | {site: np.zeros(SIZE, np.float32)}, weighting=weighting)
        )
        for site in PATIENTS
    }
    sensitivity = CLIP * max(weights.values()) / sum(weights.values())
    assert max(moved.values()) == pytest.approx(sensitivity, rel=1e-4)
    if weighting == "patients":
        assert max(moved.values()) > 1.7 * CLIP / 3, "σ C / n, as of equal weights, would be too little"


def test_noise_is_repeated_for_the_same_mean_and_another_for_any_other(tmp_path: Path) -> None:
    changes = updates()
    first = mean_of(tmp_path, changes, noise=noise())
    assert np.array_equal(first, mean_of(tmp_path, changes, noise=noise())), "a resumed run has the same bits"
    bare = mean_of(tmp_path, changes)
    nudged = changes | {"west": changes["west"] + np.float32(1e-6)}
    others = {
        "round": mean_of(tmp_path, changes, noise=noise(), number=2) - bare,
        "key": mean_of(tmp_path, changes, noise=noise(key=b"l" * 32)) - bare,
        "mean": mean_of(tmp_path, nudged, noise=noise()) - mean_of(tmp_path, nudged),
    }
    for what, other in others.items():
        assert abs(np.corrcoef(first - bare, other)[0, 1]) < 0.04, what


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedprox"])
def test_every_strategy_sees_the_noised_mean_only(tmp_path: Path, strategy: str) -> None:
    changes = {site: np.zeros(SIZE, np.float32) for site in PATIENTS}
    assert not np.any(mean_of(tmp_path, changes, strategy=strategy))
    assert np.std(mean_of(tmp_path, changes, strategy=strategy, noise=noise())) > 0
