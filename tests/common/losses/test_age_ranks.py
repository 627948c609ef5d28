"""TSAN's losses of ages to each other: published numbers, a slow loop, and what they must not depend on."""

import math

import pytest
import torch

from fedage.common.losses.age_ranks import difference_loss, rank_loss, ranks, soft_ranks

AGES = torch.tensor([20.0, 22.0, 40.0, 70.0], dtype=torch.float64)
PREDICTED = torch.tensor([30.0, 25.0, 60.0, 50.0], dtype=torch.float64)


def test_ranks_descend_and_ties_share_theirs() -> None:
    assert ranks(AGES).tolist() == [1.0, 0.75, 0.5, 0.25]
    assert ranks(PREDICTED).tolist() == [0.75, 1.0, 0.25, 0.5]
    assert ranks(torch.tensor([20.0, 22.0, 22.0, 70.0])).tolist() == [1.0, 0.625, 0.625, 0.25]
    assert ranks(torch.tensor([5.0, 5.0])).tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("tau", "soft", "loss"), [(1.0, [0.7516732, 0.9983268, 0.2500114, 0.4999886], 0.06208026), (5.0, None, 0.04184229)]
)
def test_soft_ranks_are_those_recomputed(tau: float, soft: list[float] | None, loss: float) -> None:
    if soft is not None:
        assert soft_ranks(PREDICTED, temperature_years=tau).tolist() == pytest.approx(soft, abs=1e-7)
    assert rank_loss(PREDICTED, AGES, temperature_years=tau).item() == pytest.approx(loss, abs=1e-8)


def test_soft_ranks_become_ranks_as_the_temperature_falls_and_so_the_loss_tells_spearmans_correlation() -> None:
    assert soft_ranks(PREDICTED, temperature_years=0.01).tolist() == pytest.approx(ranks(PREDICTED).tolist())
    loss, n = rank_loss(PREDICTED, AGES, temperature_years=0.01).item(), len(AGES)
    assert loss == pytest.approx(0.0625)
    assert 1 - 6 * n**2 * loss / (n**2 - 1) == pytest.approx(0.6)


def test_a_slow_loop_gives_the_same_soft_ranks() -> None:
    x = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 10
    slow = [(1 + sum(1 / (1 + math.exp(-(x[j] - x[i]).item() / 3)) for j in range(9) if j != i)) / 9 for i in range(9)]
    assert soft_ranks(x, temperature_years=3.0).tolist() == pytest.approx(slow, abs=1e-12)


def test_the_loss_of_differences_is_the_mean_over_all_ordered_pairs() -> None:
    assert difference_loss(PREDICTED, AGES).item() == pytest.approx(433.375)
    pairs = [((PREDICTED[i] - PREDICTED[j]) - (AGES[i] - AGES[j])).item() ** 2 for i in range(4) for j in range(4)]
    assert difference_loss(PREDICTED, AGES).item() == pytest.approx(sum(pairs) / 16)
    # The published sum of squared error, hard ranks and differences.
    mse = (PREDICTED - AGES).square().mean().item()
    assert mse + 10 * (0.0625 + difference_loss(PREDICTED, AGES).item()) == pytest.approx(4561.625)


def test_neither_loss_sees_a_common_shift_of_predictions() -> None:
    for loss in (difference_loss, lambda x, ages: rank_loss(x, ages, temperature_years=4.0)):
        assert loss(PREDICTED + 13.0, AGES).item() == pytest.approx(loss(PREDICTED, AGES).item())
        order = torch.tensor([2, 0, 3, 1])
        assert loss(PREDICTED[order], AGES[order]).item() == pytest.approx(loss(PREDICTED, AGES).item())


def test_gradients_are_those_of_finite_differences() -> None:
    x = PREDICTED.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: rank_loss(y, AGES, temperature_years=5.0), (x,))
    assert torch.autograd.gradcheck(lambda y: difference_loss(y, AGES), (x,))
