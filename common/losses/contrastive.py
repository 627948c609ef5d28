"""Contrastive losses that place patients by age: y-aware, threshold and L^exp (arXiv 2507.01794; ISBI 2023).

Notation: z embeddings on the unit sphere, Ω ages in years, d = |Ω_i − Ω_k|; s_k = z_i·z_k / τ and w_k = K(d) for an
anchor i and each k ≠ i; the anchor is in no sum. A loss is the mean over anchors of

- y-aware: −Σ_k (w_k/Σw) log[e^{s_k} / Σ_t e^{s_t}]
- threshold: −Σ_k (w_k/Σw) log[e^{s_k} / Σ_{t: w_t < w_k} e^{s_t}]; a k that nobody is farther away than is left out
- L^exp: −Σ_k (w_k/Σw) log[e^{s_k} / Σ_{t≠k} e^{s_t(1−w_t)}]

The public code of L^exp keeps k in its last sum (`keep_positive`), and multiplies each loss by τ/0.07, which is not
done here. A shift of s changes L^exp: its exponents are summed as they stand.

Shape legend: N samples (all views of a batch), D dimensions.
"""

from __future__ import annotations

import math

import torch

from fedage.common.losses.names import AgeKernel


def age_weights(ages: torch.Tensor, *, kernel: AgeKernel, width_years: float) -> torch.Tensor:
    """Weights w (N, N), float64, of ages (N,) in years.

    `rbf` is exp(−d²/2σ²), `cauchy` 1/(1 + γd²), and `gaussian` the normal density of SD σ, as in the public code, so
    that its largest value is 0.3989/σ. In float32 an anchor 28 years from all others would have no weight left.

    Parameters
    ----------
    width_years
        σ, of `cauchy` 1/√γ.
    """
    squared = (ages[:, None] - ages[None]).double() ** 2
    if kernel == "cauchy":
        weights = 1 / (1 + squared / width_years**2)
    else:
        weights = torch.exp(-squared / (2 * width_years**2))
        if kernel == "gaussian":
            weights = weights / (width_years * math.sqrt(2 * math.pi))
    return weights


def y_aware(z: torch.Tensor, weights: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Scalar, of embeddings (N, D) and weights (N, N)."""
    s, others = _similarities(z, temperature)
    below = torch.logsumexp(s.masked_fill(~others, -math.inf), dim=1, keepdim=True)
    return _mean_over_anchors(s, weights, below, others)


def threshold(z: torch.Tensor, weights: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Scalar, of embeddings (N, D) and weights (N, N)."""
    s, others = _similarities(z, temperature)
    farther = (weights[:, None, :] < weights[:, :, None]) & others[:, None, :]  # (N, N, N): anchor, k, t
    counted = others & farther.any(dim=2)
    # Where nobody is farther away the sum is empty; any t stands in, and the term is left out.
    farther = farther | ~counted[:, :, None]
    return _mean_over_anchors(s, weights, _log_sums(s, farther), counted)


def exponential(
    z: torch.Tensor, weights: torch.Tensor, *, temperature: float, keep_positive: bool = False
) -> torch.Tensor:
    """L^exp, scalar, of embeddings (N, D) and weights (N, N); N at least 3."""
    s, others = _similarities(z, temperature)
    pushed = s * (1 - weights).to(s.dtype)
    if keep_positive:
        below = torch.logsumexp(pushed.masked_fill(~others, -math.inf), dim=1, keepdim=True)
        return _mean_over_anchors(s, weights, below, others)
    apart = others[:, None, :] & others[None]  # t neither the anchor nor k
    apart = apart | ~others[:, :, None]
    return _mean_over_anchors(s, weights, _log_sums(pushed, apart), others)


def _similarities(z: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities s (N, N) in float32, also under autocast, and who is not the anchor (N, N)."""
    unit = torch.nn.functional.normalize(z.float(), dim=1)
    return unit @ unit.T / temperature, ~torch.eye(len(z), dtype=torch.bool, device=z.device)


def _log_sums(s: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    """Logarithms of Σ_t e^{s_it} over the t of each anchor i and k, (N, N), of s (N, N) and `over` (N, N, N)."""
    return torch.logsumexp(s[:, None, :].expand(over.shape).masked_fill(~over, -math.inf), dim=2)


def _mean_over_anchors(
    s: torch.Tensor, weights: torch.Tensor, log_below: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """The mean of Σ_k (w_k/Σw) (log below − s_k); an anchor that is near nobody, to the last digit, counts as 0."""
    w = weights.masked_fill(~counted, 0.0)
    share = w / w.sum(dim=1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
    return (share.to(s.dtype) * (log_below - s)).sum(dim=1).mean()
