"""A run's model on its way to the sites, with what a site needs that sees it for the first time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.common.protocol import PreparedSums, join_model, join_preparation


@dataclass(frozen=True)
class RunModel:
    """A model, and for an estimator on tables the sums over all sites that it began from."""

    weights: Weights
    sums: PreparedSums | None = None

    @property
    def payload(self) -> dict[str, NDArray[Any]]:
        """The model, and the sums by which a site works out the first one of its run."""
        return {**join_model(self.weights), **(join_preparation(self.sums) if self.sums is not None else {})}
