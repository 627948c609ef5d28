"""`breast-outcome`: `breast-4view` fine-tuned for a diagnosis, for the risk of cancer by year, or for a score.

After Mammo-AGE's risk fine-tuning: the head's input is the mean of the exam's embedding and those of its four views
(5C + 512 published), 1,639,814 parameters with ResNet-18. A view that is missing has the mean of the others (our own).
Every option of `breast-4view` is one here; the published fine-tuning has a rate of 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedage.common.estimators import breast_4view
from fedage.common.estimators.base import PREDICTED_YEARS, Batch, Options, Phase
from fedage.common.estimators.breast_4view import Breast4View, Breast4ViewOptions
from fedage.common.estimators.fine_tuning import FineTuned, fine_tuned, options_of_age
from fedage.common.estimators.outcomes import FineTuneOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


class BreastOutcomeOptions(FineTuneOptions, Breast4ViewOptions):
    """`[estimator.options]` of `breast-outcome`."""


@dataclass(frozen=True)
class _AgePhase(breast_4view.NetworkPhase):
    """The network of age, whose embedding can be had."""

    def with_embedding(self, module: nn.Module, batch: Batch) -> tuple[Any, torch.Tensor]:
        """The heads' outputs, and an exam's embedding (B, E)."""
        from fedage.common.networks.four_views import exam_embedding

        made = self.output(module, batch)
        return made, exam_embedding(made)

    def widths(self, module: nn.Module) -> tuple[int, int]:
        """5C + 4d of the paths that there are, and C."""
        from fedage.common.networks.four_views import FourViews

        assert isinstance(module, FourViews)
        c, chosen = module.backbone.channels, self.options
        return c * chosen.exam_path + 4 * (c + chosen.local_channels) * chosen.local_path, c

    def age_columns(self, output: Any) -> Mapping[str, torch.Tensor]:
        """Predicted ages."""
        return {PREDICTED_YEARS: self.age_years(output)}


class BreastOutcome(FineTuned, Breast4View):
    """Four mammograms to age and an outcome; see the module's docstring."""

    name: ClassVar[str] = "breast-outcome"
    title: ClassVar[str] = "Mammography, four views, fine-tuned for a diagnosis, five-year risk or a score (Mammo-AGE)"
    Options: ClassVar[type[Options]] = BreastOutcomeOptions

    def __init__(self, options: BreastOutcomeOptions) -> None:
        super().__init__(options)
        self.options: BreastOutcomeOptions = options
        self.targets = (*self.targets, *options.targets_of_outcome)

    @property
    def of_age(self) -> Breast4View:
        """The estimator of age, whose bundle the rounds may begin with."""
        return Breast4View(Breast4ViewOptions.model_validate(options_of_age(self.options)))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Age, where it is learnt first, then the outcome."""
        return fine_tuned(self.options, _AgePhase(self.options))
