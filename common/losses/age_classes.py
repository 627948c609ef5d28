"""Age as one of K whole years: cross-entropy, and the mean-variance loss (Pan et al., CVPR 2018).

Notation: classes c = first … first + K − 1 in years, p = softmax(logits), m = Σ p·c, Ω the age. Shape legend: R rows, D
draws of an embedding (1 where nothing is drawn).
"""

from __future__ import annotations

import torch
from torch.nn import functional


def expected_age_years(logits: torch.Tensor, *, first_years: float) -> torch.Tensor:
    """The mean m = Σ p·c of logits (…, K), in years (…)."""
    return (logits.softmax(dim=-1) * _classes(logits, first_years)).sum(dim=-1)


def age_class_loss(
    logits: torch.Tensor,
    age_years: torch.Tensor,
    *,
    first_years: float,
    cross_entropy: float = 1.0,
    mean: float = 0.2,
    variance: float = 0.05,
) -> torch.Tensor:
    """CE(round Ω)·w₁ + ½(m − Ω)²·w₂ + Σ p(c − m)²·w₃ of each row, (R,), the mean over draws.

    None of the three bends at a patient's error. With p = ½ at 50 and 60 and Ω = 52 the last two are 0.2·4.5 + 0.05·25:

    >>> logits = torch.full((1, 1, 100), -1e9)
    >>> logits[..., [50, 60]] = 0.0
    >>> round(float(age_class_loss(logits, torch.tensor([52.0]), first_years=0, cross_entropy=0)), 4)
    2.15

    Parameters
    ----------
    logits
        (D, R, K).
    age_years
        Ω (R,); an age that rounds to no class counts as the nearest one for the cross-entropy.
    first_years
        The first class.
    cross_entropy, mean, variance
        Weights; those given here are the paper's, 0 leaves a part out.
    """
    draws, rows, classes = logits.shape
    p, c = logits.softmax(dim=-1), _classes(logits, first_years)
    m = (p * c).sum(dim=-1)  # (D, R)
    total = torch.zeros(rows, dtype=logits.dtype, device=logits.device)
    if cross_entropy:
        label = (age_years - first_years).round().long().clamp(0, classes - 1)
        each = functional.cross_entropy(logits.flatten(0, 1), label.repeat(draws), reduction="none")
        total = total + cross_entropy * each.view(draws, rows).mean(dim=0)
    if mean:
        total = total + mean * 0.5 * (m - age_years).square().mean(dim=0)
    if variance:
        total = total + variance * (p * (c - m[..., None]).square()).sum(dim=-1).mean(dim=0)
    return total


def _classes(logits: torch.Tensor, first_years: float) -> torch.Tensor:
    return first_years + torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
