"""A network as arrays: how a model travels.

A model is a dict of float32 arrays, the entries of the network's `state_dict` without BatchNorm's batch counters
(integers that no forward pass reads and that do not average).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Weights = dict[str, NDArray[np.float32]]

_COUNTER = "num_batches_tracked"


class ModelRefused(ValueError):
    """The weights that came in are not those of this campaign's network."""


def state_to_arrays(module: nn.Module) -> Weights:
    """A network's parameters and buffers as copies, float32, in the order of its state."""
    import torch

    return {
        name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
        for name, tensor in module.state_dict().items()
        if not name.endswith(_COUNTER)
    }


def arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256 of a safetensors file with these arrays and nothing else, whatever their order here."""
    # Imported here: a command line that reads campaign files needs no arrays.
    import safetensors.numpy

    return hashlib.sha256(
        safetensors.numpy.save({k: np.ascontiguousarray(arrays[k]) for k in sorted(arrays)})
    ).hexdigest()


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """A network without values, whatever its size: its parameters and buffers have names and shapes only.

    A network that cannot be built so (its constructor looks at values) is built as it is.
    """
    import torch

    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        return build()


def network_of(build: Callable[[], nn.Module], arrays: Mapping[str, NDArray[np.float32]]) -> nn.Module:
    """The network with these arrays, without an initialisation that they would overwrite.

    Raises
    ------
    ModelRefused
        If the arrays are not the network's.
    """
    import torch

    module = outline(build)
    check_arrays(arrays, shapes_of(module))
    counters = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in module.state_dict().items()
        if name.endswith(_COUNTER)
    }
    tensors = {name: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in shapes_of(module)}
    module.load_state_dict({**tensors, **counters}, strict=True, assign=True)
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        module = build()  # it has buffers that its state leaves out, whose values its constructor knows
        load_arrays(module, arrays)
    return module


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays that travel."""
    return {name: tuple(t.shape) for name, t in module.state_dict().items() if not name.endswith(_COUNTER)}


def load_arrays(module: nn.Module, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Put arrays into a network, after checking that they are its own: names, shapes, finite numbers.

    Raises
    ------
    ModelRefused
        With everything that is wrong; the network is then unchanged.
    """
    import torch

    state = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(_COUNTER)}
    check_arrays(arrays, {name: tuple(tensor.shape) for name, tensor in state.items()})
    tensors = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in state}
    module.load_state_dict(tensors, strict=False)


def check_arrays(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that arrays are exactly those of these names and shapes, and finite numbers in float32.

    Raises
    ------
    ModelRefused
        With everything that is wrong.
    """
    wrong = [f"{name} is missing" for name in shapes if name not in arrays]
    unknown = sum(name not in shapes for name in arrays)
    if unknown:
        # Their names are a stranger's text: count them, do not repeat them.
        wrong.append(f"{unknown} arrays are not the network's")
    for name, shape in shapes.items():
        if name not in arrays:
            continue
        array = arrays[name]
        if array.shape != shape:
            wrong.append(f"{name} has shape {array.shape}, needed is {shape}")
        elif array.dtype.kind != "f":
            wrong.append(f"{name} has type {array.dtype}, needed is float32")
        elif not is_finite_float32(array):
            wrong.append(f"{name} has values that are not finite")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        mend = "it must come from a campaign of the same estimator and options"
        raise ModelRefused(f"model refused: {'; '.join(wrong[:5])}{more}; {mend}")


def is_finite_float32(array: NDArray[Any]) -> bool:
    """Whether all values are finite once they are float32: 1e300 is not."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32, copy=False)).all())
