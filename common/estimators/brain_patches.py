"""`brain-patches`: local ages of 27 places in one T1-weighted volume of the brain, and one age from them.

After Bintsi et al. (MLCN 2020): patches of fixed places, an age of each, combined by their mean or by a linear
regression. Sizes and layers are not to be read there. Our own design: patches of 32 voxels of 2 mm, three along each
axis; one trunk for all places that is told the place, or one for each place (`by_place`), which is P times as large and
refused above 50 million parameters; a ridge regression in place of the linear one, as the ages of neighbours are nearly
the same, solved exactly from sums over all sites. The ages in these sums are of the patients that the network was
trained on. A patch of which less than a tenth is not 0 shows too little brain to have an age of its own: there the mean
of the patient's other patches stands. Of volumes with skull every patch counts. Mirroring in training (`augment`) shows
each place the other side as well.

With `residuals` the local ages are kept at the site, each less the patient's mean and divided by `scale_years`, as
columns `residual:1:place-X-Y-Z`, X from left to right, Y from back to front, Z upwards, from 1. `regional-residuals`
compares them between diagnoses.

Shape legend: B patients, P places, (I, J, K) = `shape`, a sample is (1, I, J, K) at `spacing_mm`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators.base import (
    AGE_OUTPUT,
    COMPUTED,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Options,
    Output,
    Phase,
    Predictor,
    Samples,
)
from fedage.common.estimators.head_volumes import VOLUME, HeadVolumeOptions, HeadVolumes, shifted
from fedage.common.estimators.ridge import AgeScale, RidgePhase, check_ridge, ridge_arrays, ridge_years
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.networks.names import Norm
from fedage.common.preprocessing.names import Intensity

if TYPE_CHECKING:
    import torch
    from torch import nn

RESIDUAL = "residual:1:"
_LOCAL = "local:"
"""Begins the names of columns of local ages in years: `local:PLACE`."""
_RIDGE = "ridge."
_SCALE = AgeScale("linear")
_MOST_PARAMETERS = 50_000_000
_LARGEST_RESIDUAL = 20.0
_PATCHES, _PLACES = "patches", "places"


class BrainPatchesOptions(HeadVolumeOptions):
    """`[estimator.options]` of `brain-patches`."""

    shape: tuple[int, int, int] = Field(
        default=(80, 96, 80), strict=False, description="voxels of a sample, right × front × up"
    )
    spacing_mm: float = Field(default=2.0, ge=0.5, le=8, description="side of a sample's voxels")
    intensity: Intensity = Field(
        default="foreground",
        description="grey values: z-scores of the voxels above 0 (foreground, for volumes without skull), or divided "
        "by the mean",
    )
    patch: int = Field(default=32, ge=8, le=128, description="voxels along a side of a patch")
    per_axis: int = Field(default=3, ge=1, le=6, description="places along each axis: 3 make 27")
    patches_in_training: int = Field(
        default=9, ge=1, le=216, description="patches of a volume, drawn at random, in each batch"
    )
    norm: Norm = Field(
        default="batch", description='normalisation: batch, or group (for privacy, with combine = "mean")'
    )
    width: int = Field(default=16, ge=8, le=64, multiple_of=8, description="channels of the first block")
    blocks: int = Field(
        default=4, ge=1, le=6, description="blocks, each of which halves the patch and doubles channels"
    )
    by_place: bool = Field(default=False, description="whether every place has a network of its own")
    combine: Literal["ridge", "mean"] = Field(
        default="ridge",
        description="how local ages become one: by a ridge regression, for which each place needs "
        "disclosure.patients_per_column patients at each site, or by their mean",
    )
    age_penalty: float = Field(default=1.0, gt=0, le=1e6, description="λ of the ridge regression of age")
    centre_years: float = Field(default=50.0, ge=0, le=130, description="age predicted before any training")
    scale_years: float = Field(
        default=15.0, gt=0, le=130, description="years a unit of the network's output stands for, about the SD of age"
    )
    residuals: bool = Field(default=False, description="whether local ages are kept at the site beside the age")
    augment: bool = Field(default=True, description="random shifts and left-right mirroring in training")
    shift_voxels: int = Field(default=2, ge=0, le=8, description="largest random shift along each axis")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.patch < 2**self.blocks:
            raise ValueError(f"patch={self.patch} must be at least {2**self.blocks} with blocks={self.blocks}")
        if not all(self.patch <= side <= 256 for side in self.shape):
            raise ValueError(f"shape={list(self.shape)} must be three numbers from patch={self.patch} to 256")
        if self.per_axis > 1 and any((side - self.patch) // (self.per_axis - 1) < 1 for side in self.shape):
            raise ValueError(
                f"per_axis={self.per_axis} places of patch={self.patch} do not differ in shape={list(self.shape)}; "
                "use fewer places or smaller patches"
            )
        if self.per_axis > 1 and any(side - self.patch > self.patch * (self.per_axis - 1) for side in self.shape):
            raise ValueError(
                f"per_axis={self.per_axis} places of patch={self.patch} leave voxels of shape={list(self.shape)} out; "
                "use more places or larger patches"
            )
        if self.by_place:
            count = self.places * _parameters_of_trunk(self.width, self.blocks)
            if count > _MOST_PARAMETERS:
                raise ValueError(
                    f"by_place=true makes {self.places} networks of {count:,} parameters together, above "
                    f"{_MOST_PARAMETERS:,}; use a smaller width, fewer blocks or places, or by_place=false"
                )
        return self

    @property
    def places(self) -> int:
        """P."""
        return self.per_axis**3

    @property
    def place_names(self) -> tuple[str, ...]:
        """In the order of `networks.patches.corners`."""
        numbers = range(1, self.per_axis + 1)
        return tuple(f"place-{x}-{y}-{z}" for x, y, z in itertools.product(numbers, repeat=3))


def _parameters_of_trunk(width: int, blocks: int) -> int:
    """Of one network of `by_place`: convolutions without bias, two numbers a channel of normalisation, two layers."""
    channels = [1, *(width * 2**number for number in range(blocks))]
    convolutions = sum(27 * a * b + 2 * b for a, b in itertools.pairwise(channels))
    return int(convolutions + (channels[-1] + 1) * 32 + 33)


class BrainPatches(HeadVolumes):
    """T1-weighted volume to local ages and one age; see the module's docstring."""

    name: ClassVar[str] = "brain-patches"
    title: ClassVar[str] = "T1-weighted volume of the brain, local ages of patches and their combination"
    Options: ClassVar[type[Options]] = BrainPatchesOptions
    prediction_batch: ClassVar[int] = 4

    def __init__(self, options: BrainPatchesOptions) -> None:
        super().__init__(options)
        self.options: BrainPatchesOptions = options

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Age, and the local ages about their mean if they are asked for."""
        names = self.options.place_names if self.options.residuals else ()
        bounds = {"lower": -_LARGEST_RESIDUAL, "upper": _LARGEST_RESIDUAL}
        return (AGE_OUTPUT, *(Output(column=RESIDUAL + name, **bounds) for name in names))

    @property
    def network(self) -> PatchPhase:
        """The phase in rounds."""
        return PatchPhase(self.options)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The network of local ages, and the ridge regression on them if they are combined by one."""
        if self.options.combine == "mean":
            return (self.network,)
        names = tuple(f"{COMPUTED}{_LOCAL}{name}" for name in self.options.place_names)
        combination = RidgePhase(
            names,
            lambda result, before, _seed: {
                **before,
                **{_RIDGE + name: array for name, array in ridge_arrays(result).items()},
            },
            scale=_SCALE,
            penalty=self.options.age_penalty,
            computed=lambda before, device: self.network.local_years(before, names, device=device),
            name="combination",
        )
        return (self.network, combination)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages, and the local ages about their mean if they are asked for. Raises `ModelRefused`."""
        chosen = self.options
        ridge = {name.removeprefix(_RIDGE): a for name, a in arrays.items() if name.startswith(_RIDGE)}
        if chosen.combine == "ridge":
            check_ridge(ridge, chosen.places)
        trained = {name: a for name, a in arrays.items() if chosen.combine == "mean" or not name.startswith(_RIDGE)}
        local = self.network.local_years(trained, chosen.place_names, device=device)

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            columns = local(samples)
            rows = np.column_stack([columns[name] for name in chosen.place_names])
            # Places without an age of their own have the mean of the others, which this mean is then too.
            mean = rows.mean(axis=1)
            years = ridge_years(ridge, rows, _SCALE) if chosen.combine == "ridge" else mean
            kept = (rows - mean[:, None]) / chosen.scale_years
            residuals = {RESIDUAL + name: kept[:, k] for k, name in enumerate(chosen.place_names)}
            return {PREDICTED_YEARS: years, **(residuals if chosen.residuals else {})}

        return predict


@dataclass(frozen=True)
class PatchPhase:
    """The network from patches to local ages."""

    options: BrainPatchesOptions
    name: str = "network"
    couples_samples: bool = False
    smallest_batch: int = 1

    @property
    def _corners(self) -> list[tuple[int, int, int]]:
        from fedage.common.networks.patches import corners

        return corners(self.options.shape, patch=self.options.patch, per_axis=self.options.per_axis)

    def build(self, *, seed: int) -> nn.Module:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.patches import PatchNetwork

        chosen = self.options
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return PatchNetwork(
                places=chosen.places,
                width=chosen.width,
                blocks=chosen.blocks,
                norm=chosen.norm,
                by_place=chosen.by_place,
            )

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - the first phase
        """The network's arrays before any training."""
        return dict(state_to_arrays(self.build(seed=seed)))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Patches of each volume, shifted and mirrored as a whole before, at places drawn without replacement."""
        import torch

        from fedage.common.networks.patches import cut

        chosen = self.options
        if chosen.augment:
            batch = shifted(batch, most_voxels=chosen.shift_voxels, generator=generator)
        volumes = batch.inputs[VOLUME]
        count = chosen.places if chosen.by_place else min(chosen.patches_in_training, chosen.places)
        if count == chosen.places:
            places = torch.arange(count).expand(len(volumes), count)
        else:
            drawn = torch.rand((len(volumes), chosen.places), generator=generator, device=generator.device)
            places = drawn.argsort(dim=1)[:, :count].cpu()
        patches = cut(volumes, places, self._corners, patch=chosen.patch)
        return Batch({_PATCHES: patches, _PLACES: places.to(volumes.device)}, batch.present, batch.targets)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """Local ages (B, k) on the network's scale, and which places have one of their own (B, k)."""
        import torch

        from fedage.common.networks.patches import cut, is_brain

        if _PATCHES in batch.inputs:
            patches, places = batch.inputs[_PATCHES], batch.inputs[_PLACES]
        else:
            volumes = batch.inputs[VOLUME]
            places = torch.arange(self.options.places, device=volumes.device).expand(len(volumes), -1)
            patches = cut(volumes, places, self._corners, patch=self.options.patch)
        return {"ages": module(patches, places), "known": is_brain(patches)}

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Mean squared error of the local ages, each patient's mean over the places that are brain."""
        from fedage.common.networks.patches import mean_of_known

        target = (batch.targets["age_years"] - self.options.centre_years) / self.options.scale_years
        return mean_of_known((output["ages"] - target[:, None]).square(), output["known"]).mean()

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages, the means of the local ones."""
        names = self.options.place_names
        local = self.local_years(arrays, names, device=device)
        return lambda samples: {PREDICTED_YEARS: np.mean(list(local(samples).values()), axis=0)}

    def local_years(self, arrays: Arrays, names: tuple[str, ...], *, device: str) -> Predictor:
        """Local ages in years as columns of these P names; where a place has none, the mean of the patient's others."""
        import torch

        from fedage.common.estimators.predict import network_predictor
        from fedage.common.networks.patches import mean_of_known

        def columns(output: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            ages, known = output["ages"], output["known"] > 0
            filled = torch.where(known, ages, mean_of_known(ages, known)[:, None])
            years = self.options.centre_years + self.options.scale_years * filled
            return dict(zip(names, years.unbind(dim=1), strict=True))

        return network_predictor(lambda: self.build(seed=0), arrays, output=self.output, columns=columns, device=device)
