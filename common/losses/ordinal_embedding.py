"""Probabilistic ordinal embeddings (Li et al., CVPR 2021): each row a Gaussian N(μ, diag σ²), in the order of the ages.

Shape legend: R rows, E dimensions; μ and log σ² are (R, E).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Triplet = Literal["smooth", "hinge"]


def kl_to_standard(mu: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − log σ² − 1), (R,).

    >>> round(float(kl_to_standard(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0]]).log())), 7)
    1.1534264
    """
    return 0.5 * (mu.square() + log_variance.exp() - log_variance - 1).sum(dim=-1)


def j_distance(
    mu: torch.Tensor, log_variance: torch.Tensor, other_mu: torch.Tensor, other_log_variance: torch.Tensor
) -> torch.Tensor:
    """KL in both directions, summed: ½ Σ [(σ₁² + δ²)/σ₂² + (σ₂² + δ²)/σ₁²] − E with δ = μ₁ − μ₂, (R,).

    >>> one, two = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    >>> float(j_distance(one, torch.zeros(1, 2), two, torch.tensor([[2.0, 1.0]]).log()))
    1.0
    """
    first, second, square = log_variance.exp(), other_log_variance.exp(), (mu - other_mu).square()
    return (0.5 * ((first + square) / second + (second + square) / first) - 1.0).sum(dim=-1)


def order_loss(
    mu: torch.Tensor,
    log_variance: torch.Tensor,
    age_years: torch.Tensor,
    *,
    margin: float = 5.0,
    kind: Triplet = "smooth",
) -> torch.Tensor:
    """How far distances of embeddings are from the order of distances of ages, scalar; 0 for fewer than three rows.

    Each row is an anchor; the second row is the next one, the third that whose difference from the anchor's age is
    nearest to the second's without being equal. The one nearer in age shall be nearer by the margin. Ages are compared
    in whole years.

    Parameters
    ----------
    age_years
        Ω (R,).
    margin
        In the distance's own unit.
    kind
        `hinge` as published, max(0, x), the mean over triplets with x > 0; it bends where a triplet of patients passes
        the margin. `smooth`, our own, is log(1 + eˣ), the mean over all triplets: a loss that bends tells of patients.
    """
    rows = len(age_years)
    if rows < 3:
        return mu.sum() * 0
    age = age_years.round()
    apart = (age[:, None] - age[None]).abs()  # (R, R)
    second = torch.roll(torch.arange(rows, device=age.device), -1)
    to_second = apart.gather(1, second[:, None])  # (R, 1)
    off = (apart - to_second).abs()
    off = off.masked_fill(off == 0, torch.inf)
    off.fill_diagonal_(torch.inf)
    third = off.argmin(dim=1)
    sign = torch.sign(to_second.squeeze(1) - apart.gather(1, third[:, None]).squeeze(1))
    sign = torch.where(off.amin(dim=1).isinf(), 0.0, sign)  # no third row of another difference
    near, far = (j_distance(mu, log_variance, mu[other], log_variance[other]) for other in (second, third))
    missing = (far - near) * sign + margin
    counts = sign != 0
    if kind == "hinge":
        counts = counts & (missing > 0)
    missing = missing.clamp(min=0) if kind == "hinge" else functional.softplus(missing)
    return (missing * counts).sum() / counts.sum().clamp(min=1)
