"""Contrastive losses against published numbers and slow loops."""

import math

import numpy as np
import pytest
import torch

from fedage.common.losses.contrastive import age_weights, exponential, threshold, y_aware

Z = torch.tensor([(1, 0), (0.8, 0.6), (0, 1), (-0.6, 0.8)], dtype=torch.float64)
AGES = torch.tensor([20.0, 22.0, 40.0, 70.0])


def weights(kernel: str = "rbf", width: float = 2.0) -> torch.Tensor:
    return age_weights(AGES, kernel=kernel, width_years=width)


def slow(z: np.ndarray, w: np.ndarray, tau: float, loss: str) -> float:
    """Each sum as its formula reads."""
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    s, total = unit @ unit.T / tau, 0.0
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        terms, norm = 0.0, 0.0
        for k in others:
            pushed = [s[i, t] * (1 - w[i, t]) for t in others if t != k or loss == "kept"]
            over = {
                "exp": pushed,
                "kept": pushed,
                "y-aware": [s[i, t] for t in others],
                "threshold": [s[i, t] for t in others if w[i, t] < w[i, k]],
            }[loss]
            if over:
                terms += w[i, k] * (math.log(sum(math.exp(value) for value in over)) - s[i, k])
                norm += w[i, k]
        total += terms / norm
    return total / len(z)


LOSSES = {
    "exp": exponential,
    "kept": lambda z, w, temperature: exponential(z, w, temperature=temperature, keep_positive=True),
    "y-aware": y_aware,
    "threshold": threshold,
}


@pytest.mark.parametrize(
    ("found", "published"),
    [
        (y_aware(Z, weights(), temperature=0.1), 0.5638921),
        (exponential(Z, weights(), temperature=0.1), -3.9979447),
        (exponential(Z, weights(), temperature=0.1, keep_positive=True), -1.1559079),
    ],
)
def test_published_numbers(found: torch.Tensor, published: float) -> None:
    assert float(found) == pytest.approx(published, abs=2e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("kernel", "width"), [("rbf", 2.0), ("gaussian", 3.0), ("cauchy", 1.0), ("rbf", 20.0)])
@pytest.mark.parametrize("views", [1, 2])
def test_against_sums_written_out(loss: str, kernel: str, width: float, views: int) -> None:
    rng = np.random.default_rng(5)
    z, ages = rng.normal(size=(7 * views, 3)), torch.from_numpy(rng.integers(20, 80, 7) + 0.5).repeat(views)
    w = age_weights(ages, kernel=kernel, width_years=width)
    found = LOSSES[loss](torch.from_numpy(z), w, temperature=0.5)
    assert float(found) == pytest.approx(slow(z, w.numpy(), 0.5, loss), rel=2e-5, abs=1e-6)


def test_kernels_are_the_published_ones() -> None:
    d = torch.tensor([0.0, 3.0])
    assert age_weights(d, kernel="rbf", width_years=2)[0].tolist() == pytest.approx([1, math.exp(-9 / 8)])
    assert age_weights(d, kernel="gaussian", width_years=2)[0].tolist() == pytest.approx(
        [0.3989423 / 2, 0.3989423 / 2 * math.exp(-9 / 8)]
    )
    assert age_weights(d, kernel="cauchy", width_years=2)[0].tolist() == pytest.approx([1, 1 / (1 + 9 / 4)])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_patients_changes_nothing_and_gradients_are_finite(loss: str) -> None:
    rng = torch.Generator().manual_seed(1)
    z, ages = torch.randn(9, 4, generator=rng, requires_grad=True), torch.linspace(20, 95, 9)
    order = torch.randperm(9, generator=rng)
    first = LOSSES[loss](z, age_weights(ages, kernel="rbf", width_years=2), temperature=0.1)
    again = LOSSES[loss](z[order], age_weights(ages[order], kernel="rbf", width_years=2), temperature=0.1)
    assert first.item() == pytest.approx(again.item(), rel=1e-5)
    first.backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_a_loss_is_lower_where_near_ages_are_near() -> None:
    ages = torch.linspace(20, 80, 12)
    angle = (ages - 20) / 60 * math.pi
    by_age = torch.stack([angle.cos(), angle.sin()], dim=1)
    mixed = by_age[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    w = age_weights(ages, kernel="rbf", width_years=5)
    for loss in LOSSES.values():
        assert float(loss(by_age, w, temperature=0.5)) < float(loss(mixed, w, temperature=0.5))


def test_patients_of_one_age_have_nobody_farther_away() -> None:
    w = age_weights(torch.full((4,), 50.0), kernel="rbf", width_years=2)
    assert float(threshold(Z, w, temperature=0.1)) == 0.0
