"""Predictions by a network: columns of numbers from samples, without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fedage.common.estimators.base import Arrays, Batch, Predictor, Samples
from fedage.common.networks.arrays import network_of
from fedage.common.networks.devices import autocast, placed, resolve_device, to_device
from fedage.common.statistics.statistic import FloatArray

Columns = Mapping[str, torch.Tensor]


def network_predictor(
    build: Callable[[], nn.Module],
    arrays: Arrays,
    *,
    output: Callable[[nn.Module, Batch], Any],
    columns: Callable[[Any], Columns],
    device: str,
) -> Predictor:
    """A predictor by the network with these arrays.

    Parameters
    ----------
    build
        The network.
    output
        What it makes of a batch (`RoundsPhase.output`).
    columns
        The columns (B,) of an output, by name.

    Raises
    ------
    ModelRefused
        If the arrays are not the network's.
    """
    where = resolve_device(device)
    module = placed(network_of(build, arrays), where).eval()

    def predict(samples: Samples) -> Mapping[str, FloatArray]:
        with torch.inference_mode():
            batch = batch_of(samples, where)
            with autocast(where):
                made = output(module, batch)
            return {name: column.cpu().numpy().astype(np.float64) for name, column in columns(as_float(made)).items()}

    return predict


def batch_of(samples: Samples, where: torch.device, *, targets: Mapping[str, FloatArray] | None = None) -> Batch:
    """Samples on a device."""
    everybody = torch.ones(len(samples), dtype=torch.bool, device=where)
    known = {name: torch.from_numpy(np.array(samples.has(name))).to(where) for name in samples.present}
    return Batch(
        inputs={name: to_device(samples[name], where) for name in samples.arrays},
        present={name: known.get(name, everybody) for name in samples.arrays},
        targets={
            name: torch.from_numpy(column.astype(np.float32)).to(where) for name, column in (targets or {}).items()
        },
    )


def as_float(output: Any) -> Any:
    """A tensor, or tensors by name, as float32: what autocast left in another type."""
    if isinstance(output, Mapping):
        return {name: as_float(one) for name, one in output.items()}
    return output.float()
