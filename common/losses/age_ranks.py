"""TSAN's losses of ages to each other (Cheng et al., IEEE TMI 2021): ranks, and differences between patients.

Notation: x predicted ages, Ω true ages, e = x − Ω, n patients in the batch. Ranks are divided by n and descend: the
oldest patient has 1/n, the youngest 1, ties share the mean of theirs.

- ranks: the mean of (soft rank of x − rank of Ω)², with soft rank (1 + Σ_{j≠i} σ((x_j − x_i)/τ)) / n. The published
  loss has a pretrained recurrent network in its place, of one batch size; this is our own, for any.
- differences: the mean of ((x_i − x_j) − (Ω_i − Ω_j))² over all ordered pairs, which is 2 · Var(e), Var the population
  variance. The published loss draws B such pairs; this is its expectation.

Shape legend: B patients, ages in years.
"""

from __future__ import annotations

import torch


def ranks(ages: torch.Tensor) -> torch.Tensor:
    """Ranks (B,) of ages (B,), divided by B."""
    above = (ages[None] > ages[:, None]).double().sum(dim=1)
    level = (ages[None] == ages[:, None]).double().sum(dim=1)  # with the patient's own
    return (above + (level + 1) / 2) / len(ages)


def soft_ranks(ages: torch.Tensor, *, temperature_years: float) -> torch.Tensor:
    """Differentiable ranks (B,) of ages (B,), divided by B; below the ages' differences in τ they are `ranks`."""
    above = torch.sigmoid((ages[None] - ages[:, None]) / temperature_years)
    # A patient's own 1/2 is taken out.
    return (above.sum(dim=1) + 0.5) / len(ages)


def rank_loss(predicted: torch.Tensor, ages: torch.Tensor, *, temperature_years: float) -> torch.Tensor:
    """Scalar, of predicted and true ages (B,)."""
    apart = soft_ranks(predicted, temperature_years=temperature_years) - ranks(ages).to(predicted.dtype)
    return torch.as_tensor(apart.square().mean())


def difference_loss(predicted: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
    """Scalar in years², of predicted and true ages (B,)."""
    return 2 * (predicted - ages).var(correction=0)
