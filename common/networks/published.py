"""The key map of published weights: a state dict of torchvision's to the arrays of our backbones.

Both networks hold the same layers in the same order, under other names; so what follows is by order, each entry held
against the kind and shape of ours. A linear layer of torchvision's that is a 1×1 convolution here is reshaped. The head
is left out. MONAI's EfficientNet pads on one side and has another epsilon in its normalisation than torchvision's, so
that its weights begin close to, and not at, what was published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import ModelRefused, Weights, outline, shapes_of
from fedage.common.networks.names import Backbone

_HEAD = re.compile(r"^(module\.)?(fc|classifier|head|_fc)\.")
_COUNTER = "num_batches_tracked"
_KINDS = {"layer_scale": "scale"}


def backbone_arrays(published: Mapping[str, NDArray[np.float32]], backbone: Backbone) -> Weights:
    """The backbone's arrays, in its names.

    Raises
    ------
    ModelRefused
        If an entry is missing, left over, or of another kind or shape.
    """
    from fedage.common.networks.backbones import Features

    wanted = shapes_of(outline(lambda: Features(backbone).network))
    names = [name for name in published if not _HEAD.match(name) and not name.endswith(_COUNTER)]
    mend = f"give the state dict of a network of the kind {backbone}"
    if len(names) != len(wanted):
        raise ModelRefused(f"the weights have {len(names)} arrays, {backbone} has {len(wanted)}; {mend}")
    made: Weights = {}
    for theirs, (ours, shape) in zip(names, wanted.items(), strict=True):
        array = np.asarray(published[theirs], dtype=np.float32)
        same_kind = _kind(theirs) == _kind(ours)
        if not same_kind or _without_ones(array.shape) != _without_ones(shape) or not np.isfinite(array).all():
            raise ModelRefused(
                f"{theirs} {array.shape} of the weights stands where {backbone} has {ours} {shape}; {mend}"
            )
        made[ours] = np.ascontiguousarray(array.reshape(shape))
    return made


def _kind(name: str) -> str:
    last = name.rpartition(".")[2]
    return _KINDS.get(last, last)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)
