"""ScaleDense, the trunk of TSAN (Cheng et al., IEEE TMI 2021), and TSAN's two networks.

After the published code (github.com/Milan-BUAA/TSAN-brain-age-estimation, MIT), written from its shapes. The stem and
five blocks of width 8 are the published ones; width and number of blocks are options of ours.

Shape legend: B volumes (I, J, K) of one channel; after n blocks of width w there are C = w · 3ⁿ channels. The stem
takes 10 voxels from each axis and each block halves what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import monai  # noqa: F401 - as a whole first: of two threads that begin with two parts of it one fails
import torch
from monai.networks.blocks import ChannelSELayer
from torch import nn
from torch.func import functional_call

from fedage.common.networks.norm import norm_layer

_KERNELS = ((3, 3, 3), (1, 1, 3), (3, 1, 1), (1, 3, 1))
_GATE_REDUCTION = 16
_FEATURES, _SEX, _FIRST_AGE = 32, 8, 16
_FROZEN = "/frozen"


class SummedConvolutions(nn.Module):
    """The sum of four convolutions, one whole and three along one axis, each normalised: (B, a, …) to (B, b, …)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(inputs, outputs, kernel, padding="same", bias=False),
                norm_layer(outputs, norm="batch", axes=3),
            )
            for kernel in _KERNELS
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, a, I, J, K) to (B, b, I, J, K)."""
        return torch.as_tensor(reduce(torch.add, (branch(x) for branch in self.branches)))


class ScaleBlock(nn.Module):
    """Halves a map and sets 2c new channels beside its c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        new = 2 * channels
        self.learnt = nn.Sequential(
            SummedConvolutions(channels, new),
            norm_layer(new, norm="batch", axes=3),
            nn.ELU(),
            SummedConvolutions(new, new),
            norm_layer(new, norm="batch", axes=3),
            nn.ELU(),
            ChannelSELayer(spatial_dims=3, in_channels=new, r=_GATE_REDUCTION),
            nn.MaxPool3d(2),
        )
        self.kept = nn.MaxPool3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, I, J, K) to (B, 3c, I/2, J/2, K/2)."""
        return torch.cat([self.kept(x), self.learnt(x)], dim=1)


class ScaleDense(nn.Module):
    """(B, 1, I, J, K) to (B, C), the mean over space of the last block.

    Parameters
    ----------
    width
        Channels of the stem, a multiple of 8; 8 is published.
    blocks
        5 published. Each axis needs 2 ** blocks voxels after the stem.
    """

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, width, 7, dilation=2, padding=1), nn.ELU())
        self.blocks = nn.Sequential(*(ScaleBlock(width * 3**number) for number in range(blocks)))
        self.channels = width * 3**blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) to (B, C)."""
        return torch.as_tensor(self.blocks(self.stem(x))).mean(dim=(2, 3, 4))


class _Head(nn.Module):
    """Features of the trunk, of sex and of what else is known to one number."""

    def __init__(self, channels: int, *, sex: bool, more: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(channels, _FEATURES), nn.ELU())
        self.sex = nn.Sequential(nn.Linear(2, 16), nn.Linear(16, _SEX), nn.ELU()) if sex else None
        # No activation between the two, as published.
        self.last = nn.Sequential(nn.Linear(_FEATURES + (_SEX if sex else 0) + more, 16), nn.Linear(16, 1))

    def forward(self, trunk: torch.Tensor, sex: torch.Tensor | None, *more: torch.Tensor) -> torch.Tensor:
        """(B, C), and probabilities of the two sexes (B, 2), to (B,)."""
        known = [self.features(trunk), *more]
        if self.sex is not None and sex is not None:
            known.insert(1, self.sex(sex))
        return torch.as_tensor(self.last(torch.cat(known, dim=1))).squeeze(1)


class FirstStage(nn.Module):
    """(B, 1, I, J, K) and sexes (B, 2) to ages (B,) in years, at least 0.

    Parameters
    ----------
    sex
        Whether sex is an input. With it, width 8 and 5 blocks it is the published network of 102,377,762 parameters.
    first_age_years
        Bias of the last layer, about what is predicted before any training; 0 published.
    """

    def __init__(self, *, width: int, blocks: int, sex: bool, first_age_years: float = 0.0) -> None:
        super().__init__()
        self.trunk = ScaleDense(width=width, blocks=blocks)
        self.head = _Head(self.trunk.channels, sex=sex)
        initialise(self)
        last = self.head.last[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, first_age_years)

    def forward(self, x: torch.Tensor, sex: torch.Tensor | None = None) -> torch.Tensor:
        """Ages (B,)."""
        return torch.as_tensor(self.head(self.trunk(x), sex)).relu()


class SecondStage(nn.Module):
    """A frozen first stage, its age rounded, and a trunk of its own that estimates how far the true age is from that.

    Parameters
    ----------
    step_years
        What the first stage's age is rounded to, 5 published.
    """

    def __init__(self, first: FirstStage, *, width: int, blocks: int, sex: bool, step_years: float) -> None:
        super().__init__()
        self.first = Frozen(first)
        self.trunk = ScaleDense(width=width, blocks=blocks)
        self.first_age = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, _FIRST_AGE), nn.ReLU())
        self.head = _Head(self.trunk.channels, sex=sex, more=_FIRST_AGE)
        self._step_years = step_years
        for part in (self.trunk, self.first_age, self.head):
            initialise(part)

    def forward(self, x: torch.Tensor, sex: torch.Tensor | None = None) -> torch.Tensor:
        """Ages (B,) in years: the rounded one and the estimated rest."""
        rounded = rounded_half_up(self.first(x, sex).float(), self._step_years)
        rest = self.head(self.trunk(x), sex, self.first_age(rounded[:, None]))
        return torch.as_tensor(rounded + rest.float())


class Frozen(nn.Module):
    """A network that is used as it is: its arrays are buffers, which no optimiser and no running mean changes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, array in module.state_dict().items():
            self.register_buffer(_frozen_name(name), array.detach().clone())
        # In a tuple, so that its parameters are not this module's: only what it does with arrays is needed.
        self._used = (module.eval(),)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """What the network makes of the inputs, in evaluation mode and without gradients."""
        (module,) = self._used
        arrays = {name: getattr(self, _frozen_name(name)) for name in module.state_dict()}
        with torch.no_grad():
            return torch.as_tensor(functional_call(module, arrays, inputs))


def frozen_arrays(arrays: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    """The arrays of a network by the names that they have in a `Frozen` that is called `prefix`."""
    return {f"{prefix}.{_frozen_name(name)}": array for name, array in arrays.items()}


def _frozen_name(name: str) -> str:
    """A buffer's name has no dot; nor may it end as a running mean's does, or it would count as one (`roles_of`)."""
    return name.replace(".", "/") + ("" if name.endswith("num_batches_tracked") else _FROZEN)


def rounded_half_up(years: torch.Tensor, step: float) -> torch.Tensor:
    """The nearest multiple of `step`, of two the larger one: 62.5 is 65, where rounding to even gives 60."""
    return torch.floor(years / step + 0.5) * step


def initialise(module: nn.Module) -> None:
    """As published: convolutions Kaiming normal by inputs, linear layers Xavier normal, biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in")
        elif isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
