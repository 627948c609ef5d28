"""A network of age with a head for an outcome on its embedding, after Mammo-AGE's public code for risk.

Shape legend: B patients, E the embedding, C the head's first layer, K outputs.
"""

from __future__ import annotations

import torch
from torch import nn


class OutcomeHead(nn.Sequential):
    """(B, E) to (B, K): dropout, Linear to C, ReLU, dropout, Linear to `width`, ReLU, dropout, Linear to K."""

    def __init__(self, embedded: int, *, hidden: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(embedded, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, outputs),
        )


class WithOutcome(nn.Module):
    """The network of age, and the head; a phase calls them itself."""

    def __init__(self, age: nn.Module, head: OutcomeHead) -> None:
        super().__init__()
        self.age, self.head = age, head

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """The head alone."""
        made: torch.Tensor = self.head(embedding)
        return made
