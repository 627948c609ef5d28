"""Gradients of each patient's own loss, clipped and summed: at the layers, by `torch.func`, or patient by patient.

The engines were measured against Opacus' own, see the benchmarks' guide: its hooks cannot be put on networks that add
in place, and its `ew` needs the loss' reduction stated. `layer_gradients` takes networks of the usual layers, after its
gradients of two rows of the first batch were held against those of one row alone; `torch.func` any network without
data-dependent branches; any other is trained one patient at a time.

Shape legend: R rows of a batch, n patients of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from fedage.client.compute.layer_gradients import can_be_kept, gradients_of_rows
from fedage.common.estimators.base import Batch, RoundsPhase
from fedage.common.estimators.predict import as_float

_MOST_VALUES, _MOST_ROWS = 64_000_000, 64
"""Gradients in memory at once, float32, and rows of a part."""
_ROUNDING = 2e-6
"""By how much more a gradient is clipped, so that rounding leaves no norm above the bound."""

_BLOCK = 256
"""Values whose squares are summed in float32, so that no rounding of theirs counts."""
_SAME = 1e-3
"""Relative difference up to which two engines' gradients are the same but for rounding."""

Sums = dict[str, torch.Tensor]


class _Loss(nn.Module):
    """A phase's loss of a batch, as a module, so that its parameters can be given to it."""

    def __init__(self, phase: RoundsPhase, network: nn.Module) -> None:
        super().__init__()
        self.network, self._phase = network, phase

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._phase.loss(as_float(self._phase.output(self.network, batch)), batch)

    def of_each(self, batch: Batch) -> torch.Tensor:
        """The loss (R,) of each row alone, by one pass over all."""
        output = as_float(self._phase.output(self.network, batch))

        def loss(own: Any, *parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
            row = Batch(*({name: one[None] for name, one in part.items()} for part in parts))
            return self._phase.loss(tree_map(lambda one: one[None], own), row)

        parts = (dict(batch.inputs), dict(batch.present), dict(batch.targets))
        made: torch.Tensor = vmap(loss, randomness="different")(output, *parts)
        return made


class ClippedGradients:
    """Sums of patients' gradients, each clipped to the norm `clip_norm` over all parameters together.

    Parameters
    ----------
    phase, module
        The loss, and the network as it is trained.
    clip_norm
        C.
    where
        The device.
    """

    def __init__(self, phase: RoundsPhase, module: nn.Module, *, clip_norm: float, where: torch.device) -> None:
        self._phase, self._clip, self._where = phase, clip_norm, where
        self._loss = _Loss(phase, module)
        self._learnt = {name: tensor for name, tensor in self._loss.named_parameters() if tensor.requires_grad}
        self._count = sum(tensor.numel() for tensor in self._learnt.values())
        self._by_layer: bool | None = None if can_be_kept(self._loss) else False
        """Whether gradients are taken at the layers; None until that was tried."""
        self._by_row = True

    @property
    def most_rows(self) -> int:
        """Rows of a part, so that their gradients fit into memory."""
        return max(1, min(_MOST_ROWS, _MOST_VALUES // max(self._count, 1)))

    def zeros(self) -> Sums:
        """Sums of nobody, float64, by the network's parameters."""
        return {
            name.removeprefix("network."): torch.zeros_like(tensor, dtype=torch.float64)
            for name, tensor in self._learnt.items()
        }

    def add(self, total: Sums, batch: Batch, patients: NDArray[np.intp]) -> None:
        """Add the clipped gradients of a batch whose rows are of these patients (R,), numbers from 0, in order."""
        n = int(patients[-1]) + 1
        found = self._gradients(batch, patients, n)
        norms = _norms(found, n)
        # A gradient that is no number is of no use and may not spoil the sum: that patient counts as none.
        scale = torch.where(
            torch.isfinite(norms), (self._clip * (1 - _ROUNDING) / norms.clamp(min=1e-300)).clamp(max=1.0), 0.0
        )
        for name, one in found.items():
            usable = one
            if not torch.isfinite(norms).all():
                usable = torch.where(torch.isfinite(norms).reshape(-1, *[1] * (one.dim() - 1)), one, 0.0)
            total[name.removeprefix("network.")] += torch.tensordot(scale.to(usable), usable, dims=1)

    def _gradients(self, batch: Batch, patients: NDArray[np.intp], n: int) -> Mapping[str, torch.Tensor]:
        """Of the mean loss of each patient's rows, (n, …) by parameter."""
        if self._by_layer is None and len(patients) > 1:  # of one row alone nothing could be mixed
            self._by_layer = self._layers_agree(_first(batch, 2))
        if self._by_layer:
            by_row = self._of_layers(batch)
            return by_row if n == len(patients) else _means(by_row, patients, n)
        if self._by_row:
            try:
                by_row = self._of_rows(batch)
            except RuntimeError:
                self._by_row = False  # a network whose course depends on values; so from its first batch on
            else:
                return by_row if n == len(patients) else _means(by_row, patients, n)
        return self._of_patients(batch, patients, n)

    def _of_layers(self, batch: Batch) -> dict[str, torch.Tensor]:
        rows = len(next(iter(batch.targets.values())))
        found = gradients_of_rows(self._loss, lambda: self._loss.of_each(batch), rows=rows)
        return {
            name: found[id(tensor)] if id(tensor) in found else tensor.new_zeros((rows, *tensor.shape))
            for name, tensor in self._learnt.items()
        }

    def _layers_agree(self, batch: Batch) -> bool:
        """Whether gradients at the layers are those of each row alone, by an engine that knows of no layers."""
        modes = [(module, module.training) for module in self._loss.modules()]
        self._loss.eval()  # without dropout, which draws anew each time
        try:
            count = len(next(iter(batch.targets.values())))
            made = self._of_layers(batch)
            alone = self._of_patients(batch, np.arange(count, dtype=np.intp), count)
        except RuntimeError:
            return False
        finally:
            for module, is_training in modes:
                module.training = is_training
        off = sum(((made[name] - one).double().square().sum() for name, one in alone.items()), start=torch.zeros(()))
        size = sum((one.double().square().sum() for one in alone.values()), start=torch.zeros(()))
        return bool(off <= _SAME**2 * size)

    def _of_rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        buffers = dict(self._loss.named_buffers())

        def loss(
            learnt: Mapping[str, torch.Tensor],
            inputs: Mapping[str, torch.Tensor],
            present: Mapping[str, torch.Tensor],
            targets: Mapping[str, torch.Tensor],
        ) -> torch.Tensor:
            row = Batch(*({name: one[None] for name, one in part.items()} for part in (inputs, present, targets)))
            found: torch.Tensor = functional_call(self._loss, (dict(learnt), buffers), (row,))
            return found

        detached = {name: tensor.detach() for name, tensor in self._learnt.items()}
        made: dict[str, torch.Tensor] = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="different")(
            detached, dict(batch.inputs), dict(batch.present), dict(batch.targets)
        )
        return made

    def _of_patients(self, batch: Batch, patients: NDArray[np.intp], n: int) -> dict[str, torch.Tensor]:
        made = []
        for patient in range(n):
            rows = torch.from_numpy(np.flatnonzero(patients == patient)).to(self._where)
            own = Batch(
                *(
                    {name: one[rows] for name, one in part.items()}
                    for part in (batch.inputs, batch.present, batch.targets)
                )
            )
            made.append(torch.autograd.grad(self._loss(own), list(self._learnt.values()), allow_unused=True))
        return {
            name: torch.stack([torch.zeros_like(tensor) if one[k] is None else one[k] for one in made])
            for k, (name, tensor) in enumerate(self._learnt.items())
        }


def _first(batch: Batch, count: int) -> Batch:
    parts = (batch.inputs, batch.present, batch.targets)
    return Batch(*({name: one[:count] for name, one in part.items()} for part in parts))


def _norms(found: Mapping[str, torch.Tensor], n: int) -> torch.Tensor:
    """L2 norms (n,), float64, of gradients (n, …) over all parameters together."""
    squares = torch.stack([_squares(one.reshape(n, -1)) for one in found.values()]).sum(dim=0)
    if not torch.isfinite(squares).all():  # squares of a few may be more than float32 holds
        every = [one.reshape(n, -1).double().square().sum(dim=1) for one in found.values()]
        squares = torch.stack(every).sum(dim=0)
    return squares.sqrt()


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Σ x² of each row (n, p), float64."""
    whole = rows.shape[1] // _BLOCK * _BLOCK
    rest: torch.Tensor = torch.linalg.vector_norm(rows[:, whole:], dim=1).double().square()
    if not whole:
        return rest
    blocks = torch.linalg.vector_norm(rows[:, :whole].reshape(len(rows), -1, _BLOCK), dim=2)
    rest += blocks.double().square().sum(dim=1)
    return rest


def _means(by_row: Mapping[str, torch.Tensor], patients: NDArray[np.intp], n: int) -> dict[str, torch.Tensor]:
    counts = np.bincount(patients, minlength=n)
    weights = torch.zeros((n, len(patients)))
    weights[torch.from_numpy(patients), torch.arange(len(patients))] = torch.from_numpy(1.0 / counts[patients]).float()
    return {name: torch.tensordot(weights.to(one), one, dims=1) for name, one in by_row.items()}
