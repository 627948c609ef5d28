"""`brain-outcome`: `brain-sfcn` fine-tuned for a diagnosis, for the risk of an event by year, or for a clinical score.

Our own, after the head of Mammo-AGE's risk on what SFCN's last layer sees (64 channels published). Every option of
`brain-sfcn` is one here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedage.common.estimators import brain_sfcn
from fedage.common.estimators.base import Batch, Options, Phase, Target
from fedage.common.estimators.brain_sfcn import BrainSFCN, BrainSFCNOptions
from fedage.common.estimators.fine_tuning import FineTuned, fine_tuned, options_of_age
from fedage.common.estimators.head_volumes import VOLUME
from fedage.common.estimators.outcomes import FineTuneOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


class BrainOutcomeOptions(FineTuneOptions, BrainSFCNOptions):
    """`[estimator.options]` of `brain-outcome`."""


@dataclass(frozen=True)
class _AgePhase(brain_sfcn.NetworkPhase):
    """The network of age, whose embedding can be had."""

    def with_embedding(self, module: nn.Module, batch: Batch) -> tuple[Any, torch.Tensor]:
        """Log-probabilities (B, K), and what the last layer sees, (B, E)."""
        from fedage.common.networks.sfcn import SFCN

        assert isinstance(module, SFCN)
        return module.with_embedding(batch.inputs[VOLUME])

    def widths(self, module: nn.Module) -> tuple[int, int]:
        """E, and as many."""
        from fedage.common.networks.sfcn import SFCN

        assert isinstance(module, SFCN)
        return module.channels, module.channels


class BrainOutcome(FineTuned, BrainSFCN):
    """T1-weighted volume to age, its SD and an outcome; see the module's docstring."""

    name: ClassVar[str] = "brain-outcome"
    title: ClassVar[str] = "T1-weighted volume of the head, SFCN fine-tuned for a diagnosis, five-year risk or a score"
    Options: ClassVar[type[Options]] = BrainOutcomeOptions

    def __init__(self, options: BrainOutcomeOptions) -> None:
        super().__init__(options)
        self.options: BrainOutcomeOptions = options
        self.targets: tuple[Target, ...] = (*self.targets, *options.targets_of_outcome)

    @property
    def of_age(self) -> BrainSFCN:
        """The estimator of age, whose bundle the rounds may begin with."""
        return BrainSFCN(BrainSFCNOptions.model_validate(options_of_age(self.options)))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Age, where it is learnt first, then the outcome."""
        return fine_tuned(self.options, _AgePhase(self.options))
