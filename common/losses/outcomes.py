"""Losses of outcomes that a model of age is fine-tuned for: risk by year, a diagnosis, a score.

Shape legend: B patients, Y years. `by_year` (B, Y) is 1 where the event came within year t of the exam, 0 where the
patient was followed to the end of year t without it, NaN where that is not known.

Published forms of the risk (Mammo-AGE's public code, and Mirai's): see each function. Both divide by what is known in
the batch, so that they relate its patients. Neither weighs for those who were censored: where many are, those whose
event came early are over-represented among those known late, and late risks come out too high.
"""

from __future__ import annotations

import torch
from torch.nn import functional

_SOFTMAX_WEIGHT = 5.0
"""Of the public code."""


def softmax_risk_loss(logits: torch.Tensor, by_year: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of a softmax over Y + 1 bins, the event's year and none, × 5, over the bins known.

    A bin is known where the ends of its year are. `logits` (B, Y + 1).
    """
    before = functional.pad(by_year[:, :-1], (1, 0))
    labels = torch.cat([by_year - before, 1 - by_year[:, -1:]], dim=1)  # NaN unless both ends are known
    return _SOFTMAX_WEIGHT * _mean_of_known(-_log_likelihood(functional.log_softmax(logits, dim=1), labels), labels)


def _log_likelihood(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # 1 - p without the rounding of p to 1.
    log_not = torch.log(-torch.expm1(log_p.clamp(max=-1e-7)))
    return torch.where(labels == 1, log_p, log_not)


def softmax_risks(logits: torch.Tensor) -> torch.Tensor:
    """Risk by the end of each year (B, Y): the bins' probabilities so far."""
    return functional.softmax(logits, dim=1)[:, :-1].cumsum(dim=1)


def hazard_logits(raw: torch.Tensor) -> torch.Tensor:
    """Mirai's additive hazard: logit of year t is b + Σ_{k ≤ t} ReLU(h_k), of raw (B, Y + 1), the last one b."""
    return raw[:, -1:] + functional.relu(raw[:, :-1]).cumsum(dim=1)


def hazard_loss(logits: torch.Tensor, by_year: torch.Tensor, *, after_event: bool) -> torch.Tensor:
    """Binary cross-entropy of the risk by each year known.

    Parameters
    ----------
    logits
        (B, Y), see `hazard_logits`.
    after_event
        Whether the years after that of the event count as known, as they are. Mirai's mask leaves them out (false):
        its risk by year t is then fitted to events *in* year t of those without one before, and is lower.
    """
    labels = by_year
    if not after_event:
        happened = functional.pad(torch.nan_to_num(by_year)[:, :-1], (1, 0)).cummax(dim=1).values
        labels = torch.where(happened > 0, torch.nan, by_year)
    each = functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(labels), reduction="none")
    return _mean_of_known(each, labels)


def _mean_of_known(each: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    known = torch.isfinite(labels)
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def diagnosis_loss(logits: torch.Tensor, diagnosis: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of two classes, `logits` (B, 2), `diagnosis` (B,) of 0, 1 or NaN; unknown ones add 0 to the mean
    over patients, so that it relates none to another.
    """
    known = torch.isfinite(diagnosis)
    each = functional.cross_entropy(logits, torch.nan_to_num(diagnosis).round().long(), reduction="none")
    return torch.where(known, each, 0.0).sum() / len(diagnosis)


def score_loss(predicted: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """Squared error of a score (B,) on the scale that is learnt; unknown ones (NaN) add 0 to the mean over patients."""
    known = torch.isfinite(score)
    each = (predicted - torch.nan_to_num(score)).square()
    return torch.where(known, each, 0.0).sum() / len(score)
