"""`fedage campaign weights`: a published state dict to the file that a campaign begins with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from fedage.common.errors import FedAgeError
from fedage.common.networks.names import Backbone
from fedage.deploy.machine.atomic import write_atomically


def write_weights(file: Path, *, backbone: str, out: Path) -> str:
    """Write the backbone's arrays of a published file to `out`; their digest.

    The file is read as tensors alone: nothing in it is executed.

    Raises
    ------
    FedAgeError
        If there is no such backbone, or the file is no state dict of it.
    """
    known: tuple[Backbone, ...] = get_args(Backbone)
    chosen = next((one for one in known if one == backbone), None)
    if chosen is None:
        raise FedAgeError(f"--backbone {backbone} is not known; known are {', '.join(known)}")
    import pickle

    import safetensors.numpy
    import torch

    from fedage.common.networks.arrays import ModelRefused, arrays_sha256
    from fedage.common.networks.published import backbone_arrays

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        arrays = {str(name): tensor.float().numpy() for name, tensor in state.items()}
        made = backbone_arrays(arrays, chosen)
    except ModelRefused as refused:
        raise FedAgeError(f"{file}: {refused}") from None
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise FedAgeError(f"{file} cannot be read as a state dict ({said}); give a .pth file of tensors") from None
    write_atomically(out, safetensors.numpy.save({name: made[name] for name in sorted(made)}))
    return arrays_sha256(made)
