"""A run's model on its way to the sites, with what a site needs that sees it for the first time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights
from fedage.common.protocol.basis import Basis, join_basis
from fedage.common.protocol.messages import join_bundle, join_model


@dataclass(frozen=True)
class RunModel:
    """A model, and what it follows from where that is more than the approved file."""

    weights: Weights
    basis: Basis = field(default_factory=Basis)
    bundle: bytes = b""
    """The bundle that the model is of, which a site checks by the approved file; then nothing else travels."""

    @property
    def payload(self) -> dict[str, NDArray[Any]]:
        """The model, and what a site works it out from."""
        if self.bundle:
            return join_bundle(self.bundle)
        return {**join_model(self.weights), **join_basis(self.basis)}
