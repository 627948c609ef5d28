"""`fedage campaign weights`: a published state dict to the file that a campaign begins with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from fedage.common.errors import FedAgeError
from fedage.common.networks.names import Backbone
from fedage.deploy.machine.atomic import write_atomically

_SFCN = "sfcn"
"""The network of `brain-sfcn`."""
_SFCN_BINS, _SFCN_SHAPE = 40, (160, 192, 160)


def write_weights(file: Path, *, backbone: str, out: Path) -> str:
    """Write the backbone's arrays of a published file to `out`, or the whole network's of `sfcn`; their digest.

    The file is read as tensors alone: nothing in it is executed.

    Raises
    ------
    FedAgeError
        If there is no such backbone, or the file is no state dict of it.
    """
    known: tuple[Backbone, ...] = get_args(Backbone)
    chosen = next((one for one in known if one == backbone), None)
    if chosen is None and backbone != _SFCN:
        raise FedAgeError(f"--backbone {backbone} is not known; known are {', '.join((*known, _SFCN))}")
    import pickle

    import numpy as np
    import safetensors.numpy
    import torch

    from fedage.common.networks.arrays import ModelRefused, arrays_sha256, state_to_arrays
    from fedage.common.networks.published import backbone_arrays
    from fedage.common.networks.sfcn import SFCN, load_published

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if chosen is None:
            module = SFCN(bins=_SFCN_BINS, shape=_SFCN_SHAPE)
            load_published(module, state)
            made = state_to_arrays(module)
            if not all(np.isfinite(array).all() for array in made.values()):
                raise ModelRefused("some weights are not finite")
        else:
            made = backbone_arrays({str(name): tensor.float().numpy() for name, tensor in state.items()}, chosen)
    except ModelRefused as refused:
        raise FedAgeError(f"{file}: {refused}") from None
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise FedAgeError(f"{file} cannot be read as a state dict ({said}); give a .pth file of tensors") from None
    write_atomically(out, safetensors.numpy.save({name: made[name] for name in sorted(made)}))
    return arrays_sha256(made)
