"""Where a network is computed, and in which memory layout.

On a GPU, tensors of rank 4 (B, C, H, W) lie in `channels_last`, of rank 5 (B, C, I, J, K) in `channels_last_3d`, others
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def resolve_device(device: str) -> torch.device:
    """A GPU if there is one for "auto"; anything else is torch's own name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def device_text(device: str, *, precision: str | None) -> str:
    """What a campaign is computed on here, for the coordinator: the device that "auto" is, a GPU's model and type.

    Only training in rounds and its predictions use a GPU; sums over tables are computed on the CPU. `precision` is None
    in a campaign that trains nothing.
    """
    if precision is None:
        return "cpu"
    where = resolve_device(device)
    if where.type != "cuda":
        return str(where)
    if not torch.cuda.is_available():
        return f"{where}, but torch finds no GPU here"
    layers = str(layers_dtype(where, precision)).removeprefix("torch.")
    return f"{where} ({torch.cuda.get_device_name(where)[:50]}, {layers})"[:80]


def site_device_text(device: str) -> str:
    """What networks are computed on at a site, in a sentence for its administrator: that there is no GPU, above all."""
    if device == "cpu":
        return "networks are computed on the CPU, as site.toml says"
    if torch.cuda.is_available():
        return f"networks are computed on {device_text(device, precision='auto')}"
    if device == "auto":
        return "networks are computed on the CPU: torch finds no GPU here"
    return f"networks cannot be computed: torch finds no GPU here, and site.toml says device = {device!r}"


def in_layout(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the layout of its rank, on its device; itself where it lies so already, or has another rank."""
    if tensor.dim() not in _FORMATS:
        return tensor
    return tensor.contiguous(memory_format=_FORMATS[tensor.dim()])


def lay_out(module: nn.Module) -> None:
    """Put a network's weights and buffers into the layouts of their ranks."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = in_layout(tensor.data)


def placed(module: nn.Module, where: torch.device) -> nn.Module:
    """A network on a device, on a GPU its weights in the layout of their rank."""
    module = module.to(where)
    if where.type == "cuda":
        lay_out(module)
    return module


def to_device(array: NDArray[np.float32], where: torch.device) -> torch.Tensor:
    """A copy of an array on a device, float32, on a GPU in the layout of its rank."""
    if where.type != "cuda":
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(where)
    # From pinned memory the copy runs beside the computation; torch keeps that memory until it is done.
    pinned = torch.empty(array.shape, dtype=torch.float32, pin_memory=True)
    pinned.numpy()[...] = array
    return in_layout(pinned.to(where, non_blocking=True))


def autocast(where: torch.device, precision: str = "auto") -> AbstractContextManager[object]:
    """`layers_dtype` of a GPU, nothing elsewhere."""
    dtype = layers_dtype(where, precision)
    return torch.autocast(where.type, dtype=dtype, enabled=dtype is not torch.float32)


def layers_dtype(where: torch.device, precision: str = "auto") -> torch.dtype:
    """What a device computes layers in: float32 on a CPU, on a GPU what is named (`training.precision`).

    "auto" is bfloat16 where a GPU computes it, else float16, whose gradients need `gradient_scaler`.
    """
    if where.type != "cuda":
        return torch.float32
    if precision == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]


def gradient_scaler(where: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Scales losses, so that small gradients do not become 0 in float16; does nothing with other types."""
    return torch.amp.GradScaler(where.type, enabled=dtype is torch.float16)


@contextmanager
def layers_draw_from(seed: int, where: torch.device) -> Iterator[None]:
    """Let layers that draw, such as dropout, draw from a seed; torch's global random state is put back afterwards.

    Attack: layers take torch's global state, which is the same in every fresh process; who knows what it dropped has
    weights of patients that no secret hides. Rule: they draw from the seed of the training, at a deployed site its own.
    """
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if where.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def computing(where: torch.device, *, threads: int | None) -> Iterator[None]:
    """Torch's threads and cuDNN's determinism, put back afterwards: the process is an agent's and does other things."""
    before = torch.get_num_threads()
    with ExitStack() as stack:
        if where.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(before)
