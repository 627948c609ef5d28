"""Ages as probabilities of bins: soft labels, their divergence from predicted ones, and what these predict.

After SFCN (Peng et al. 2021). Notation: bin i covers [b_i, b_i + w) years, its centre is c_i; Ω age, σ the label's SD;
p_i = Φ((b_i + w − Ω)/σ) − Φ((b_i − Ω)/σ). Unlike the published label, p is divided by its sum: away from the first and
the last bin by 3 σ that changes it by less than 0.3 %, and nearer the published one is no distribution.

Shape legend: B patients, K bins.
"""

from __future__ import annotations

import torch


def edges_years(first: float, last: float, width: float) -> torch.Tensor:
    """Edges of the bins, (K + 1,) float64, from `first` to `last` years."""
    count = round((last - first) / width)
    return first + width * torch.arange(count + 1, dtype=torch.float64)


def soft_labels(ages: torch.Tensor, edges: torch.Tensor, *, sd: float) -> torch.Tensor:
    """Probabilities (B, K) of the bins for ages (B,), all in years; rows sum to 1.

    An age so far out that no bin has any probability gives rows that are not finite: leave such patients out.
    """
    below = torch.special.ndtr((edges.to(ages.device) - ages.double()[:, None]) / sd)  # (B, K + 1)
    mass = below.diff(dim=1)
    return torch.as_tensor(mass / mass.sum(dim=1, keepdim=True)).float()


def divergence(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of Σ p (ln p − ln q), scalar; both (B, K)."""
    each = torch.special.xlogy(labels, labels) - labels * log_probabilities
    return torch.as_tensor(each).sum(dim=1).mean()


def mean_and_sd_years(log_probabilities: torch.Tensor, edges: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean Σ q c and SD √Σ q (c − mean)² of the predicted distributions, (B,) each in years.

    Every q counts as all at its bin's centre, as in the published age; the SD of a single bin is 0.
    """
    q = log_probabilities.double().exp()
    centres = ((edges[1:] + edges[:-1]) / 2).to(q.device)
    mean = q @ centres
    variance = (q * (centres - mean[:, None]) ** 2).sum(dim=1)
    return mean, variance.sqrt()
