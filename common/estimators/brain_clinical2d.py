"""`brain-clinical2d`: age from a T1-weighted series of thick axial slices, learnt from volumes (after npj Aging 2025).

A volume is trained on as the thick slices that a simulated clinical protocol acquires of it: thickness, gap, number and
phase of the slices are drawn by the site for every exam in every epoch, from ranges in the campaign file. A real series
is taken as it is, in training and in prediction. A volume is predicted through the middle of the protocol, so that 2D
and 3D ages of the same person can be compared. A site of which nothing is to be trained on is named in
`validation.sites`.

The paper publishes neither its network nor its simulation. Our own design: both, and the network of `brain-sfcn` (SFCN,
Peng et al. 2021) with its soft labels of age on the stack of slices. In plane a series is resampled to `spacing_mm`, as
a volume is, so that no spacing in plane is simulated. Grey values are divided by the mean of the acquired slices.

Shape legend: B patients, (I, J, S) = `shape`, S slices from below; (I, J, K) voxels of a volume, K of `up_mm`. A sample
is slices (1, I, J, S), and the volume (1, I, J, K) that slices are simulated from, 0 where the exam is a series.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fedage.common.estimators.base import Batch, Options
from fedage.common.estimators.brain_sfcn import BrainSFCN, BrainSFCNOptions, NetworkPhase
from fedage.common.estimators.head_volumes import VOLUME
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fedage.common.preprocessing.slices import SliceProtocol

FINE = "volume"
"""Name of the array that slices are simulated from."""
_FIELD_MM = 192.0
"""Extent of a volume along up that slices are simulated from: a head."""
_LEAST_UP_MM = 80.0
"""Smallest extent along up of what is taken: fewer slices show part of a head."""


class BrainClinical2DOptions(BrainSFCNOptions):
    """`[estimator.options]` of `brain-clinical2d`."""

    shape: tuple[int, int, int] = Field(
        default=(160, 192, 32), strict=False, description="of a sample: voxels to the right and front, and slices"
    )
    spacing_mm: float = Field(
        default=1.0, ge=0.5, le=8, description="side of a sample's voxels in the plane of a slice"
    )
    coarsest_mm: float = Field(
        default=3.0, ge=0.5, le=10, description="largest spacing in plane that is taken; coarser ones are set aside"
    )
    up_mm: float = Field(
        default=1.0, ge=0.75, le=4, description="distance of the voxels along up that slices are simulated from"
    )
    thickness_mm: tuple[float, float] = Field(
        default=(5.0, 7.0),
        strict=False,
        description="of simulated slices, least and most; up to half the least an exam counts as a volume",
    )
    gap_mm: tuple[float, float] = Field(
        default=(0.0, 2.0), strict=False, description="between simulated slices, least and most"
    )
    slices: tuple[int, int] = Field(
        default=(18, 30), strict=False, description="how many slices are simulated, fewest and most"
    )
    random_phase: bool = Field(default=True, description="simulated stacks lie anywhere within ± half a slice")
    slice_profile: Literal["gaussian", "none"] = Field(
        default="gaussian", description="of simulated slices, as wide at half its height as a slice; none: no thickness"
    )

    @model_validator(mode="after")
    def _protocol(self) -> Self:
        for name, (low, high) in {"thickness_mm": self.thickness_mm, "gap_mm": self.gap_mm}.items():
            least = 2.0 if name == "thickness_mm" else 0.0
            if not least <= low <= high <= 15:
                raise ValueError(
                    f"{name}=[{low:g}, {high:g}] must be two numbers from {least:g} to 15, the least first"
                )
        fewest, most = self.slices
        if not 8 <= fewest <= most <= self.shape[2]:
            raise ValueError(
                f"slices=[{fewest}, {most}] must be two numbers from 8 to the {self.shape[2]} slices of shape, the "
                "fewest first"
            )
        if self.up_mm > self.thickness_mm[0] / 2:
            raise ValueError(
                f"up_mm={self.up_mm:g} must be at most half of the thinnest slice, {self.thickness_mm[0] / 2:g} mm"
            )
        return self

    @property
    def apart_mm(self) -> tuple[float, float]:
        """Distances of slices that the protocol has, least and most."""
        (thin, thick), (near, far) = self.thickness_mm, self.gap_mm
        return thin + near, thick + far

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """(I, J, K)."""
        return (*self.shape[:2], math.ceil(_FIELD_MM / self.up_mm))


class BrainClinical2D(BrainSFCN):
    """Thick slices to age and its SD; see the module's docstring."""

    name: ClassVar[str] = "brain-clinical2d"
    title: ClassVar[str] = "T1-weighted series of thick slices of the head, network trained through simulated slices"
    Options: ClassVar[type[Options]] = BrainClinical2DOptions

    def __init__(self, options: BrainClinical2DOptions) -> None:
        super().__init__(options)
        self.options: BrainClinical2DOptions = options

    @property
    def network(self) -> SlicesPhase:
        """The phase."""
        return SlicesPhase(self.options)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Slices (1, I, J, S) and a volume (1, I, J, K)."""
        return {VOLUME: (1, *self.options.shape), FINE: (1, *self.options.volume_shape)}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        """Slices and the volume they are of, 0 where the exam is a series of slices. Raises `SampleRefused`."""
        from fedage.common.preprocessing.volume import VolumeGrid, volume_sample

        chosen, image = self.options, exam[VOLUME]
        is_volume = len(image.spacing_mm) < 3 or image.spacing_mm[2] <= chosen.thickness_mm[0] / 2
        least, most = chosen.apart_mm
        up_mm = chosen.up_mm if is_volume else max(image.spacing_mm[2], least)
        if up_mm > most * 1.001:
            raise SampleRefused(
                "too-coarse", f"slices {up_mm:g} mm apart, at most {most:g} mm are taken: thickness_mm and gap_mm"
            )
        plane = chosen.spacing_mm
        grid = VolumeGrid(
            shape=chosen.volume_shape if is_volume else chosen.shape,
            spacing_mm=(plane, plane, up_mm),
            coarsest_mm=(
                chosen.coarsest_mm,
                chosen.coarsest_mm,
                up_mm if not is_volume else chosen.thickness_mm[0] / 2,
            ),
            intensity="mean",
            least_mm=(chosen.shape[0] * plane / 2, chosen.shape[1] * plane / 2, _LEAST_UP_MM),
        )
        sample = volume_sample(image, grid)
        if not is_volume:
            return {VOLUME: sample, FINE: np.zeros((1, *chosen.volume_shape), dtype=np.float32)}
        return {VOLUME: self.network.nominal(sample), FINE: sample}


@dataclass(frozen=True)
class SlicesPhase(NetworkPhase):
    """SFCN on slices, simulated where the exam is a volume."""

    options: BrainClinical2DOptions

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Slices by a protocol drawn for each exam, real ones as they are, then changed as `brain-sfcn` does."""
        import torch

        protocol, fine = self._protocol(), batch.inputs[FINE]
        places = protocol.drawn(len(fine), generator=generator)
        simulated = self._simulated(fine, places)
        is_volume = fine.flatten(1).any(dim=1).view(-1, 1, 1, 1, 1)
        slices = torch.where(is_volume, simulated, batch.inputs[VOLUME])
        return super().training_batch(Batch({VOLUME: slices}, batch.present, batch.targets), generator=generator)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """Log-probabilities (B, bins of age)."""
        from fedage.common.preprocessing.slices import of_foreground, of_mean_one

        normalised = of_mean_one if self.options.intensity == "mean" else of_foreground
        return module(normalised(batch.inputs[VOLUME]))

    def nominal(self, volume: FloatImage) -> FloatImage:
        """Slices (1, I, J, S) of a volume (1, I, J, K) through the middle of the protocol."""
        import torch

        made = self._simulated(torch.from_numpy(volume)[None], self._protocol().nominal())
        return np.ascontiguousarray(made[0].numpy())

    def _simulated(self, volumes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        from fedage.common.preprocessing.slices import simulated_slices

        chosen = self.options
        return simulated_slices(volumes, places, self._protocol(), up_mm=chosen.up_mm, most=chosen.shape[2])

    def _protocol(self) -> SliceProtocol:
        from fedage.common.preprocessing.slices import SliceProtocol

        chosen = self.options
        return SliceProtocol(
            thickness_mm=chosen.thickness_mm,
            gap_mm=chosen.gap_mm,
            slices=chosen.slices,
            random_phase=chosen.random_phase,
            with_profile=chosen.slice_profile == "gaussian",
        )
