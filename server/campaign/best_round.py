"""Which round's model is kept, and when rounds end early: by the validation error over all sites.

The error of a round's model comes with the next round's updates, so the last round of all is no candidate. Patients who
choose a round are not those who judge the model: a campaign needs a part for each (`validation.fractions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedage.common.campaign.types import Training
from fedage.common.networks.arrays import Weights

_BEST = "best:"
"""Before the names of the best model's arrays in the journal."""


@dataclass
class BestRound:
    """The best round so far of one model.

    Parameters
    ----------
    training
        The campaign's table.
    """

    training: Training
    number: int = -1
    mae_years: float = float("inf")
    judged: int = -1
    """The last round whose error is known."""
    weights: Weights | None = None

    def see(self, number: int, weights: Weights, mae_years: float | None) -> None:
        """The error of a round's model; None where it is not known."""
        if mae_years is None:
            return
        self.judged = number
        if mae_years < self.mae_years:
            self.number, self.mae_years = number, mae_years
            self.weights = weights if self.training.keep == "best" else None

    def is_over(self) -> bool:
        """Whether the error has not become less for as many rounds as the campaign has patience for."""
        patience = self.training.patience_rounds
        return patience is not None and self.number >= 0 and self.judged - self.number >= patience

    def model(self, weights: Weights) -> Weights:
        """The model of the best round where the campaign keeps that, else the given one of the last."""
        return weights if self.weights is None else self.weights

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The best model for the journal, which keeps no other model of a round so long ago."""
        return {} if self.weights is None else {_BEST + name: array for name, array in self.weights.items()}

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """The best model out of the journal, if it is there."""
        best = {name.removeprefix(_BEST): array for name, array in kept.items() if name.startswith(_BEST)}
        if best:
            self.weights = best

    @staticmethod
    def is_its(name: str) -> bool:
        """Whether an array of the journal is the best model's."""
        return name.startswith(_BEST)
