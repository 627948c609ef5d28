"""Losses on whole years and on Gaussian embeddings, by hand and by loops."""

from __future__ import annotations

import math

import pytest
import torch

from fedage.common.losses.age_classes import age_class_loss, expected_age_years
from fedage.common.losses.ordinal_embedding import j_distance, kl_to_standard, order_loss


def two_years(first: int = 0) -> torch.Tensor:
    logits = torch.full((1, 1, 100), -1e9)
    logits[..., [50 - first, 60 - first]] = 0.0
    return logits


@pytest.mark.parametrize("first", [0, 20, 40])
def test_mean_variance_by_hand(first: int) -> None:
    loss = age_class_loss(two_years(first), torch.tensor([52.0]), first_years=first, cross_entropy=0)
    assert loss.item() == pytest.approx(0.2 * 9 / 2 + 0.05 * 25)
    assert expected_age_years(two_years(first), first_years=first).item() == pytest.approx(55)


@pytest.mark.parametrize(("age", "label"), [(52.4, 52), (52.6, 53), (-3.0, 0), (140.0, 99)])
def test_cross_entropy_is_that_of_the_nearest_whole_year(age: float, label: int) -> None:
    logits = torch.randn(3, 2, 100, generator=torch.Generator().manual_seed(0))
    loss = age_class_loss(logits, torch.tensor([age, 10.0]), first_years=0, mean=0, variance=0)
    expected = -logits.log_softmax(dim=-1)[:, 0, label].mean()
    assert loss[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_distances_by_hand() -> None:
    one, two = (
        (torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)),
        (torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0]]).log()),
    )
    assert j_distance(*one, *two).item() == pytest.approx(1.0)
    assert j_distance(*two, *one).item() == pytest.approx(1.0)
    assert j_distance(*two, *two).item() == 0
    assert kl_to_standard(*two).item() == pytest.approx(1.1534264)


def by_loops(mu: torch.Tensor, log_variance: torch.Tensor, ages: list[float], *, margin: float, kind: str) -> float:
    whole = [round(age) for age in ages]
    n, terms = len(whole), []
    for i in range(n):
        second = (i + 1) % n
        to_second = abs(whole[i] - whole[second])
        others = [(abs(abs(whole[i] - whole[k]) - to_second), k) for k in range(n) if k != i]
        others = [(off, k) for off, k in others if off > 0]
        if not others:
            continue
        third = min(others)[1]
        near, far = (j_distance(mu[[i]], log_variance[[i]], mu[[k]], log_variance[[k]]).item() for k in (second, third))
        sign = 1 if to_second > abs(whole[i] - whole[third]) else -1
        x = (far - near) * sign + margin
        if kind == "smooth":
            terms.append(math.log1p(math.exp(x)) if x < 50 else x)
        elif x > 0:
            terms.append(x)
    return sum(terms) / max(len(terms), 1)


@pytest.mark.parametrize("kind", ["smooth", "hinge"])
@pytest.mark.parametrize(
    "ages", [[50.0, 61.0, 40.0, 77.0, 52.0], [50.2, 50.4, 60.0], [30.0, 40.0, 50.0, 60.0], [41.0, 41.0, 41.0, 70.0]]
)
def test_the_order_of_embeddings_is_that_of_ages(ages: list[float], kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    mu, log_variance = (torch.randn(len(ages), 3, generator=generator) for _ in range(2))
    loss = order_loss(mu, log_variance, torch.tensor(ages), margin=2.0, kind=kind)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(by_loops(mu, log_variance, ages, margin=2.0, kind=kind), rel=1e-5)


@pytest.mark.parametrize("ages", [[], [50.0], [50.0, 60.0], [50.0, 50.0, 50.0]])
def test_there_is_no_order_of_too_few_or_equal_ages(ages: list[float]) -> None:
    mu = torch.randn(len(ages), 3, requires_grad=True)
    loss = order_loss(mu, torch.zeros(len(ages), 3), torch.tensor(ages))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("part", ["cross_entropy", "mean", "variance", "kl", "j", "smooth"])
def test_gradients_are_those_of_the_formulas(part: str) -> None:
    generator = torch.Generator().manual_seed(2)
    ages = torch.tensor([41.0, 45.0, 48.0, 40.0], dtype=torch.float64)
    mu, log_variance, logits = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((4, 3), (4, 3), (2, 4, 9))
    )
    if part in ("kl", "j", "smooth"):
        of_embedding = {
            "kl": lambda m, v: kl_to_standard(m, v).sum(),
            "j": lambda m, v: j_distance(m, v, m.roll(1, 0), v.roll(1, 0)).sum(),
            "smooth": lambda m, v: order_loss(m, v, ages),
        }[part]
        assert torch.autograd.gradcheck(of_embedding, (mu, log_variance))
        return
    weights = {"cross_entropy": 0.0, "mean": 0.0, "variance": 0.0, part: 1.0}
    assert torch.autograd.gradcheck(lambda x: age_class_loss(x, ages, first_years=40, **weights).sum(), (logits,))
