"""A phase that fine-tunes a network of age for an outcome, after Mammo-AGE's risk: a head on its embedding.

The network of age learns on, by the outcome's loss and, unlike the public code, by that of age too (`age_weight`), so
that ages are still predicted; `frozen` leaves it as it is. The phase begins with the model of age of the phase before,
or of a bundle.

Shape legend: B patients, E the embedding, K outputs of the head, Y years of risk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.common.campaign.fields import OUTCOME_PROBABILITY, PREDICTED_SCORE, RISK_YEARS, risk_column
from fedage.common.estimators.base import Arrays, Batch, Estimator, Output, Phase, Predictor, RoundsPhase
from fedage.common.estimators.outcomes import OUTCOME_KNOWN, FineTuneOptions, event_by
from fedage.common.networks.arrays import check_arrays, outline, shapes_of, state_to_arrays
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fedage.common.networks.outcome_head import WithOutcome

_AGE = "age."
"""Begins the names of the arrays of the network of age."""


class AgePhase(RoundsPhase, Protocol):
    """The phase of a model of age that can be fine-tuned."""

    def with_embedding(self, module: nn.Module, batch: Batch) -> tuple[Any, torch.Tensor]:
        """What `output` gives, and the embedding (B, E)."""

    def widths(self, module: nn.Module) -> tuple[int, int]:
        """E, and how wide the head's first layer is."""

    def age_columns(self, output: Any) -> Mapping[str, torch.Tensor]:
        """The predicted columns (B,) of such an output."""


def fine_tuned(options: FineTuneOptions, of_age: AgePhase) -> tuple[Phase, ...]:
    """The phases: age where it is learnt first, then the outcome."""
    phase = FineTunePhase(options, of_age)
    return (of_age, phase) if options.age_first else (phase,)


@dataclass(frozen=True)
class FineTunePhase:
    """See the module's docstring."""

    options: FineTuneOptions
    of_age: AgePhase
    name: str = "outcome"

    @property
    def couples_samples(self) -> bool:
        """The loss of risk divides by what is known in the batch, as published."""
        return self.of_age.couples_samples or self.options.outcome == "risk"

    @property
    def smallest_batch(self) -> int:
        """That of age."""
        return self.of_age.smallest_batch

    @property
    def _outputs(self) -> int:
        return {"diagnosis": 2, "risk": RISK_YEARS + 1, "score": 1}[self.options.outcome]

    def build(self, *, seed: int) -> WithOutcome:
        """The network of age and the head, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.outcome_head import OutcomeHead, WithOutcome

        age = self.of_age.build(seed=seed)
        embedded, hidden = self.of_age.widths(age)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = OutcomeHead(
                embedded,
                hidden=hidden,
                width=self.options.head_width,
                outputs=self._outputs,
                dropout=self.options.head_dropout,
            )
        return WithOutcome(age, head)

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The model of age that comes before, and a new head.

        Raises
        ------
        ModelRefused
            If what comes before is no such model.
        """
        check_arrays(before, shapes_of(outline(lambda: self.of_age.build(seed=seed))))
        arrays: dict[str, NDArray[Any]] = dict(state_to_arrays(self.build(seed=seed)))
        return arrays | {_AGE + name: np.asarray(array, np.float32) for name, array in before.items()}

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """As for age."""
        return self.of_age.training_batch(batch, generator=generator)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """`age`, what the network of age makes, and `outcome` (B, K) of the head."""
        import torch

        from fedage.common.networks.outcome_head import WithOutcome

        assert isinstance(module, WithOutcome)
        if not self.options.frozen:
            age, embedding = self.of_age.with_embedding(module.age, batch)
        else:
            module.age.eval()  # its running statistics stay too
            with torch.no_grad():
                age, embedding = self.of_age.with_embedding(module.age, batch)
        return {"age": age, "outcome": module(embedding)}

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """That of the outcome, and that of age where the network learns."""
        total = self._outcome_loss(output["outcome"], batch.targets)
        if self.options.age_weight and not self.options.frozen:
            total = total + self.options.age_weight * self.of_age.loss(output["age"], batch)
        return total

    def _outcome_loss(self, made: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        import torch

        from fedage.common.losses import outcomes

        if self.options.outcome == "diagnosis":
            return outcomes.diagnosis_loss(made, targets[OUTCOME_KNOWN])
        if self.options.outcome == "score":
            return outcomes.score_loss(made[:, 0], targets[OUTCOME_KNOWN])
        by_year = torch.stack([targets[event_by(year + 1)] for year in range(RISK_YEARS)], dim=1)
        if self.options.risk_form == "softmax":
            return outcomes.softmax_risk_loss(made, by_year)
        logits = outcomes.hazard_logits(made)
        return outcomes.hazard_loss(logits, by_year, after_event=self.options.years_after_event)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """What the model of age predicts, and the outcome."""
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda output: {**self.of_age.age_columns(output["age"]), **self._predicted(output["outcome"])},
            device=device,
        )

    def _predicted(self, made: torch.Tensor) -> dict[str, torch.Tensor]:
        """Columns (B,) of what the head makes, (B, K)."""
        import torch

        from fedage.common.losses import outcomes

        if self.options.outcome == "diagnosis":
            return {OUTCOME_PROBABILITY: made.softmax(dim=1)[:, 1]}
        if self.options.score_range is not None:
            low, high = self.options.score_range
            return {PREDICTED_SCORE: low + (made[:, 0] + 1) / 2 * (high - low)}
        is_softmax = self.options.risk_form == "softmax"
        risks = outcomes.softmax_risks(made) if is_softmax else torch.sigmoid(outcomes.hazard_logits(made))
        return {risk_column(year + 1): risks[:, year] for year in range(RISK_YEARS)}


class FineTuned(Estimator):
    """What an estimator of an outcome adds to the one of age that it is made of, which stands after it among its bases.

    Its `phases` are `fine_tuned`, and its `options` a `FineTuneOptions`.
    """

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Those of age, and the outcome."""
        return (*super().outputs, *self._of_outcome.outputs_of_outcome)

    def learnt(self, columns: Mapping[str, FloatArray], *, minimum_count: int) -> dict[str, FloatArray]:
        """See `FineTuneOptions.learnt_of_outcome`."""
        return self._of_outcome.learnt_of_outcome(columns, minimum_count=minimum_count)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages and the outcome."""
        last = self.phases[-1]
        assert isinstance(last, FineTunePhase)
        return last.predictor(arrays, device=device)

    @property
    def _of_outcome(self) -> FineTuneOptions:
        assert isinstance(self.options, FineTuneOptions)
        return self.options


def options_of_age(options: FineTuneOptions) -> dict[str, Any]:
    """Those that the file states of the model of age, without those of fine-tuning."""
    stated = options.model_dump(exclude_unset=True)
    return {name: value for name, value in stated.items() if name not in FineTuneOptions.model_fields}
