"""Terms that a strategy adds to every gradient of a site's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedage.common.campaign.types import Training


@dataclass(frozen=True)
class Proximal:
    """FedProx (Li et al. 2020): the gradient μ (w - w₀) of μ/2 |w - w₀|², with w₀ the round's model."""

    mu: float
    parameters: tuple[torch.nn.Parameter, ...]
    start: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, module: nn.Module, training: Training) -> Proximal | None:
        """For a network with the round's model; None in a campaign that does not ask for it."""
        if training.strategy != "fedprox":
            return None
        parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
        return cls(training.proximal or 0.01, parameters, tuple(parameter.detach().clone() for parameter in parameters))

    def add_gradient(self) -> None:
        """Add it to the gradients that the parameters have."""
        for parameter, start in zip(self.parameters, self.start, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.mu)


@dataclass(frozen=True)
class ControlTerm:
    """SCAFFOLD (Karimireddy et al. 2020): the same vector added to every gradient."""

    added: tuple[tuple[torch.nn.Parameter, torch.Tensor], ...]

    @classmethod
    def of(cls, module: nn.Module, correction: Mapping[str, NDArray[np.float32]]) -> ControlTerm:
        """For a network, from arrays by the names of its parameters."""
        return cls(
            tuple(
                (parameter, torch.from_numpy(correction[name]).to(parameter))
                for name, parameter in module.named_parameters()
                if name in correction
            )
        )

    def add_gradient(self) -> None:
        """Add it to the gradients that the parameters have."""
        for parameter, vector in self.added:
            if parameter.grad is not None:
                parameter.grad.add_(vector)
