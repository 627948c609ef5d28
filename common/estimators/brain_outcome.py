"""`brain-outcome`: `brain-sfcn` fine-tuned for a diagnosis, for the risk of an event by year, or for a clinical score.

Our own, after the head of Mammo-AGE's risk on what SFCN's last layer sees (64 channels published). Every option of
`brain-sfcn` is one here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedage.common.estimators import brain_sfcn
from fedage.common.estimators.base import Arrays, Batch, Options, Output, Phase, Predictor, Target
from fedage.common.estimators.brain_sfcn import BrainSFCN, BrainSFCNOptions
from fedage.common.estimators.fine_tuning import FineTunePhase, fine_tuned, options_of_age
from fedage.common.estimators.head_volumes import VOLUME
from fedage.common.estimators.outcomes import FineTuneOptions
from fedage.common.statistics.statistic import FloatArray

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


class BrainOutcome(BrainSFCN):
    """T1-weighted volume to age, its SD and an outcome; see the module's docstring."""

    name: ClassVar[str] = "brain-outcome"
    title: ClassVar[str] = "T1-weighted volume of the head, SFCN fine-tuned for a diagnosis, five-year risk or a score"
    Options: ClassVar[type[Options]] = BrainOutcomeOptions

    def __init__(self, options: BrainOutcomeOptions) -> None:
        super().__init__(options)
        self.options: BrainOutcomeOptions = options
        self.targets: tuple[Target, ...] = (*self.targets, *options.targets_of_outcome)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Age, its SD and the outcome."""
        return (*super().outputs, *self.options.outputs_of_outcome)

    @property
    def of_age(self) -> BrainSFCN:
        """The estimator of age, whose bundle the rounds may begin with."""
        return BrainSFCN(BrainSFCNOptions.model_validate(options_of_age(self.options)))

    def learnt(self, columns: Mapping[str, FloatArray], *, minimum_count: int) -> dict[str, FloatArray]:
        """See `FineTuneOptions.learnt_of_outcome`."""
        return self.options.learnt_of_outcome(columns, minimum_count=minimum_count)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Age, where it is learnt first, then the outcome."""
        return fine_tuned(self.options, _AgePhase(self.options))

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages, SDs and the outcome."""
        last = self.phases[-1]
        assert isinstance(last, FineTunePhase)
        return last.predictor(arrays, device=device)
