"""The sites' learning rate, which coordinator and sites both work out."""

from __future__ import annotations

import math

from fedage.common.campaign.types import Training


def learning_rate(training: Training, *, round_number: int) -> float:
    """The rate of a round, 1 … `rounds`: a cosine from `learning_rate` down to its final fraction."""
    if training.rounds == 1:
        return training.learning_rate
    done = min(max(round_number - 1, 0) / (training.rounds - 1), 1.0)
    final = training.final_learning_rate_fraction
    return training.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
