"""Whether a network normalises by the batch, so that a patient's gradient depends on the others of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any layer normalises by the batch, or keeps statistics of it."""
    from torch import nn

    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm)
        or (isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats)
        for layer in module.modules()
    )
