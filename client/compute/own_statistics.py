"""A site's own means and variances of batch normalisation, for a model whose sites keep theirs (SiloBN).

Legend: N samples, B of a batch. The parameters are those that all sites trained together; only the statistics are the
site's, computed on its samples without their targets (Andreux et al. 2020, section 3; Li et al. 2017, AdaBN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedage.client.compute.training import predict_columns
from fedage.common.estimators.base import Arrays, RoundsPhase, Samples
from fedage.common.estimators.predict import batch_of
from fedage.common.networks.arrays import Weights, network_of, state_to_arrays
from fedage.common.networks.devices import autocast, placed, resolve_device

FEWEST = 16
"""Samples that a mean and a variance are computed on at least; a batch has about as many, or more."""


class TooFewForStatistics(ValueError):
    """A site has too few samples to normalise by; the message says how many are needed."""


def with_own_statistics(
    phase: RoundsPhase,
    weights: Arrays,
    samples: Samples,
    *,
    batch_size: int,
    device: str,
    threads: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Weights:
    """A model with the means and variances that its layers have on these samples: the mean of those of its batches.

    Parameters
    ----------
    phase
        The network, and what it makes of a batch.
    samples
        All N that will be predicted, read in batches that are drawn by their places.
    batch_size
        The most that are computed at a time, where that is not less than `FEWEST`.

    Raises
    ------
    TooFewForStatistics
        For N < `FEWEST`.
    ModelRefused
        If the weights are not the network's.
    """
    n = len(samples)
    if n < FEWEST:
        raise TooFewForStatistics(
            f"the model normalises by each site's own means and variances, which {n} exams are too few for; give at "
            f"least {FEWEST} of the site's exams together"
        )
    where = resolve_device(device)
    module = placed(network_of(lambda: phase.build(seed=0), weights), where).eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all batches
            layer.train()

    def look(some: Samples) -> Mapping[str, NDArray[np.float64]]:
        with torch.inference_mode(), autocast(where):
            phase.output(module, batch_of(some, where))
        return {}

    parts = -(-n // max(batch_size, FEWEST))
    shuffled = np.random.default_rng(0).permutation(n)  # a folder may be sorted by scanner or age
    predict_columns(
        look, samples.of(shuffled), batch_size=-(-n // parts), device=device, threads=threads, should_stop=should_stop
    )
    return state_to_arrays(module)
