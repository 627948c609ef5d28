"""Steps of an optimiser, in parts of a batch where memory is short, and by scaled losses in float16."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from fedage.client.compute.corrections import ControlTerm, Proximal
from fedage.common.estimators.base import Batch, RoundsPhase
from fedage.common.estimators.predict import as_float
from fedage.common.networks.batch_norm import has_batch_norm

_SMALLEST_SCALE = 1.0
"""Of a loss in float16: where its gradients leave float16 even so, training has diverged."""


class BatchTooLarge(RuntimeError):
    """A batch does not fit into memory, and cannot be cut."""

    rule = "out-of-memory"


@dataclass
class Steps:
    """Steps of an optimiser. A batch that does not fit into memory is cut in two, again and again, and so are those
    after it: the gradients of the parts, weighted by their sizes, add up to the batch's.
    """

    phase: RoundsPhase
    module: nn.Module
    optimiser: torch.optim.Optimizer
    where: torch.device
    generator: torch.Generator
    pull: Proximal | ControlTerm | None
    scaler: torch.amp.GradScaler
    dtype: torch.dtype = torch.float32
    micro_batch: int | None = None
    parts: int = 1

    def step(self, batch: Batch) -> float:
        """One batch: augment, loss, gradient, step. Returns the loss before the step, without a strategy's term.

        Raises
        ------
        BatchTooLarge
            If it does not fit and its samples depend on each other, by the loss or by batch normalisation.
        """
        changed = self.phase.training_batch(batch, generator=self.generator)
        count = len(next(iter(changed.targets.values())))
        self._must_be_possible()
        while True:
            try:
                loss = self._gradient(changed, count)
                if self._is_taken():
                    return loss
                if not math.isfinite(loss) or self.scaler.get_scale() < _SMALLEST_SCALE:
                    return math.inf
                continue  # with the smaller scale
            except torch.OutOfMemoryError:
                pass  # outside the block, so that what its traceback holds is free
            if self.phase.couples_samples or has_batch_norm(self.module) or self.parts >= count:
                raise BatchTooLarge(
                    f"a batch of {count} does not fit into the memory of {self.where} in {self.parts} parts, and "
                    "cannot be cut further; lower training.batch_size"
                )
            self.parts = min(2 * self.parts, count)
            if self.where.type == "cuda":
                torch.cuda.empty_cache()

    def _is_taken(self) -> bool:
        """Take the step of the gradients that are there; False where scaled ones left float16: nothing moves then.

        The scale is halved for the next try. A batch is not left out, as a round's steps are counted (SCAFFOLD).
        """
        self.scaler.unscale_(self.optimiser)
        if self.pull is not None:
            self.pull.add_gradient()
        self.scaler.step(self.optimiser)
        before = self.scaler.get_scale()
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def _must_be_possible(self) -> None:
        if self.micro_batch is not None and (self.phase.couples_samples or has_batch_norm(self.module)):
            raise BatchTooLarge(
                f"training.micro_batch = {self.micro_batch}: the samples of a batch depend on each other, by the loss "
                "or by batch normalisation, so that a batch has no parts; leave it out"
            )

    def _gradient(self, batch: Batch, count: int) -> float:
        """Put the gradient of a batch into the parameters; its mean loss."""
        self.optimiser.zero_grad(set_to_none=True)
        size = min(-(-count // self.parts), self.micro_batch or count)
        if size == count:
            return self._backward(batch, share=1.0)
        return sum(
            self._backward(_some(batch, slice(start, start + size)), share=min(size, count - start) / count)
            for start in range(0, count, size)
        )

    def _backward(self, batch: Batch, *, share: float) -> float:
        with torch.autocast(self.where.type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            output = self.phase.output(self.module, batch)
        loss = self.phase.loss(as_float(output), batch)
        if share != 1.0:
            loss = loss * share
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def _some(batch: Batch, rows: slice) -> Batch:
    """Some samples of a batch."""
    inputs, present, targets = (
        {name: tensor[rows] for name, tensor in each.items()} for each in (batch.inputs, batch.present, batch.targets)
    )
    return Batch(inputs, present, targets)
