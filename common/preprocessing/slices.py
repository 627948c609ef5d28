"""Thick slices as a clinical 2D protocol acquires them, simulated from volumes; imported inside functions only.

Slice number s of n lies at c_s = middle + (s − (n − 1)/2 + phase − ½) · (thickness + gap), and shows the volume under a
Gaussian profile whose full width at half maximum is the thickness. Between voxels a volume counts as linear: the
weight of voxel k is ∫ N(z; c_s, σ²) hat(z − k) dz, so that of a linear ramp the slices are the values at their
centres, whatever σ. The protocol and its ranges are our own design; the paper (npj Aging 2025) does not publish its
simulation.

Shape legend: B volumes (I, J, K) of C channels, K voxels of `up_mm` from below; S slices from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fedage.common.preprocessing.volume import FWHM_PER_SD

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SliceProtocol:
    """What the slices of an exam may be; each exam's are drawn uniformly between the two bounds.

    Parameters
    ----------
    thickness_mm, gap_mm
        Of a slice, and between two slices.
    slices
        How many are acquired.
    random_phase
        Whether the stack lies anywhere within ± half a spacing of the middle; else just there.
    with_profile
        Whether a slice has a profile; else it is the volume at its centre.
    """

    thickness_mm: Range
    gap_mm: Range
    slices: tuple[int, int]
    random_phase: bool = True
    with_profile: bool = True

    def drawn(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Places (count, 4) from 0 to 1 between the bounds of thickness, gap, number of slices and phase."""
        places = torch.rand((count, 4), generator=generator, device=generator.device)
        if not self.random_phase:
            places[:, 3] = 0.5
        return places

    def nominal(self) -> torch.Tensor:
        """Those (1, 4) of a volume that is predicted: mean thickness and gap, most slices, in the middle."""
        return torch.tensor([[0.5, 0.5, 1.0, 0.5]])


def profile_sd_mm(thickness_mm: torch.Tensor, *, voxel_mm: float = 0.0) -> torch.Tensor:
    """SD of the Gaussian that, after voxels of this size, has the thickness as its full width at half maximum."""
    return (thickness_mm**2 - voxel_mm**2).clamp(min=0.0).sqrt() / FWHM_PER_SD


def simulated_slices(
    volumes: torch.Tensor, places: torch.Tensor, protocol: SliceProtocol, *, up_mm: float, most: int
) -> torch.Tensor:
    """Slices (B, C, I, J, `most`) of volumes (B, C, I, J, K), those acquired in the middle and 0 around them.

    Parameters
    ----------
    places
        Of each exam (B, 4), see `SliceProtocol`.
    up_mm
        Distance of the volumes' voxels along K.
    most
        S; at least as many as the protocol acquires.
    """
    voxels = volumes.shape[-1]
    thickness, gap = (
        low + (high - low) * places[:, number].to(volumes)
        for number, (low, high) in enumerate((protocol.thickness_mm, protocol.gap_mm))
    )
    fewest, largest = protocol.slices
    count = (fewest + places[:, 2].to(volumes) * (largest - fewest + 1)).floor().clamp(max=largest)  # (B,)
    number = torch.arange(most, device=volumes.device)[None] - ((most - count) / 2).floor()[:, None]  # (B, S)
    from_middle = number - (count[:, None] - 1) / 2 + places[:, 3:].to(volumes) - 0.5
    centres = (voxels - 1) / 2 + from_middle * ((thickness + gap) / up_mm)[:, None]  # (B, S), in voxels
    acquired = (number >= 0) & (number < count[:, None]) & (centres > -0.5) & (centres < voxels - 0.5)
    sd = profile_sd_mm(thickness, voxel_mm=up_mm) / up_mm if protocol.with_profile else torch.zeros_like(thickness)
    weights = slice_weights(centres, sd, voxels=voxels) * acquired[:, :, None]
    return torch.einsum("bcijk,bsk->bcijs", volumes, weights.to(volumes))


def slice_weights(centres: torch.Tensor, sd: torch.Tensor, *, voxels: int) -> torch.Tensor:
    """Weights (B, S, K) of K voxels in slices at `centres` (B, S) with profiles of SD `sd` (B,), all in voxels.

    The hat of a voxel is the second difference of max(z, 0), of which E max(x + N(0, σ²), 0) = x Φ(x/σ) + σ φ(x/σ) is
    the mean under the profile. Weights sum to 1; a slice that reaches beyond the volume shows what is inside.
    """
    edges = torch.arange(-1, voxels + 1, dtype=torch.float64, device=centres.device)
    x = edges - centres[:, :, None].double()  # (B, S, K + 2)
    s = sd.double().clamp(min=1e-6)[:, None, None]
    z = x / s
    ramp = x * torch.special.ndtr(z) + s * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    weights = (ramp[:, :, 2:] - 2 * ramp[:, :, 1:-1] + ramp[:, :, :-2]).clamp(min=0.0)
    return torch.as_tensor(weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-12))


def of_mean_one(slices: torch.Tensor) -> torch.Tensor:
    """Slices (B, C, I, J, S) divided by the mean of those that were acquired, of each exam alone."""
    total, count = slices.sum(dim=(1, 2, 3, 4), keepdim=True), _acquired(slices).sum(dim=4, keepdim=True)
    voxels_of_a_slice = math.prod(slices.shape[1:4])
    return slices / (total / (count * voxels_of_a_slice).clamp(min=1)).clamp(min=1e-6)


def of_foreground(slices: torch.Tensor) -> torch.Tensor:
    """Slices (B, C, I, J, S) of mean 0 and SD 1 over the voxels above 0 of each exam, all others 0."""
    inside = (slices > 0).to(slices)
    count, axes = inside.sum(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1), (1, 2, 3, 4)
    mean = (slices * inside).sum(dim=axes, keepdim=True) / count
    variance = ((slices - mean) ** 2 * inside).sum(dim=axes, keepdim=True) / count
    return (slices - mean) * inside / variance.clamp(min=1e-12).sqrt()


def _acquired(slices: torch.Tensor) -> torch.Tensor:
    """Which slices are not empty, (B, 1, 1, 1, S)."""
    return (slices.abs().sum(dim=(1, 2, 3), keepdim=True) > 0).to(slices)
