"""`brain-tsan`: age from one T1-weighted volume of the brain in two stages, after TSAN (Cheng et al., IEEE TMI 2021).

The first network predicts an age. The second one takes that age, rounded half up to 5 years, and the volume once more,
and predicts how far the true age is from it. They are two phases: the second begins when the first is finished, and
carries its network as arrays that nothing changes. Blocks, heads, loss and initialisation are the published ones.

Our own design: four blocks by default (11.4 million parameters, 45 MB an update of the first stage; the published five
are 102,377,762 and 410 MB), the first stage's last bias at `first_age_years`, the expectation of the published loss of
differences in place of pairs drawn, and a soft rank in place of a pretrained sorting network (`age_ranks`). A
patient of unknown sex is half of each. The published inputs, brains without skull registered to MNI at 2 mm, are
derived volumes that a site supplies (`volumes`).

The loss relates all patients of a batch, so that no mechanism bounds what one patient adds: per-patient differential
privacy is refused. BatchNorm is in every block.

Shape legend: B patients, (I, J, K) = `shape`, a sample is (1, I, J, K) at `spacing_mm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators.base import PREDICTED_YEARS, ROW, Arrays, Batch, Input, Options, Phase, Predictor
from fedage.common.estimators.head_volumes import VOLUME, HeadVolumeOptions, HeadVolumes, shifted
from fedage.common.networks.arrays import check_arrays, outline, shapes_of, state_to_arrays
from fedage.common.preprocessing.names import Intensity

if TYPE_CHECKING:
    import torch
    from torch import nn

_STEM_LOSS_VOXELS = 10
"""What the stem takes from each axis."""
_FIRST = "first"
"""Name of the frozen stage in the second one's network."""


class BrainTSANOptions(HeadVolumeOptions):
    """`[estimator.options]` of `brain-tsan`."""

    shape: tuple[int, int, int] = Field(
        default=(91, 109, 91), strict=False, description="voxels of a sample, right × front × up; published"
    )
    spacing_mm: float = Field(default=2.0, ge=0.5, le=8, description="side of a sample's voxels; 2 published")
    intensity: Intensity = Field(
        default="foreground",
        description="grey values: z-scores of the voxels above 0 (foreground, published), or divided by the mean",
    )
    width: int = Field(default=8, ge=8, le=32, multiple_of=8, description="channels of the stem; 8 published")
    blocks: int = Field(
        default=4, ge=1, le=5, description="blocks, each of which triples the channels; 5 published (410 MB an update)"
    )
    sex_input: bool = Field(default=True, description="whether sex is an input, which a patient may lack")
    second_stage: bool = Field(default=True, description="whether the second stage follows")
    rounded_to_years: float = Field(
        default=5.0, ge=1, le=20, description="what the first stage's age is rounded to for the second; 5 published"
    )
    ranking_weight: float = Field(
        default=10.0, ge=0, le=1000, description="weight of the losses of ranks and differences; 10 published"
    )
    difference_weight: float = Field(
        default=1.0, ge=0, le=1000, description="weight of the loss of differences beside that of ranks; 1 published"
    )
    rank_temperature_years: float = Field(
        default=5.0, ge=0.1, le=50, description="difference of ages over which a soft rank changes"
    )
    first_age_years: float = Field(
        default=45.0, ge=0, le=130, description="about the age predicted before any training; 0 published"
    )
    augment: bool = Field(default=True, description="random shifts and left-right mirroring in training")
    shift_voxels: int = Field(default=2, ge=0, le=8, description="largest random shift along each axis")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        least = _STEM_LOSS_VOXELS + 2**self.blocks
        if not all(least <= side <= 256 for side in self.shape):
            raise ValueError(
                f"shape={list(self.shape)} must be three numbers from {least} to 256 with blocks={self.blocks}"
            )
        return self


class BrainTSAN(HeadVolumes):
    """T1-weighted volume to age in two stages; see the module's docstring."""

    name: ClassVar[str] = "brain-tsan"
    title: ClassVar[str] = "T1-weighted volume of the brain, two-stage network with losses of ranks and differences"
    Options: ClassVar[type[Options]] = BrainTSANOptions
    usual_training: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**HeadVolumes.usual_training, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 5e-4}
    )
    prediction_batch: ClassVar[int] = 8

    def __init__(self, options: BrainTSANOptions) -> None:
        super().__init__(options)
        self.options: BrainTSANOptions = options
        if options.sex_input:
            self.inputs = (*self.inputs, Input(name=ROW, rank=1, optional=True))

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Sex, if the options ask for it."""
        return ("is_male",) if self.options.sex_input else ()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """A volume (1, I, J, K), and beside it maybe sex (1,)."""
        return {**super().shapes(), **({ROW: (1,)} if self.options.sex_input else {})}

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The stages."""
        stages = (StagePhase(self.options, name="first-stage"), StagePhase(self.options, name="second-stage"))
        return stages if self.options.second_stage else stages[:1]

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages by the last stage."""
        last = self.phases[-1]
        assert isinstance(last, StagePhase)
        return last.predictor(arrays, device=device)


@dataclass(frozen=True)
class StagePhase:
    """One of the stages; both predict an age and have the same loss of it."""

    options: BrainTSANOptions
    name: str
    couples_samples: bool = True
    smallest_batch: int = 4

    def build(self, *, seed: int) -> nn.Module:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.scale_dense import FirstStage, SecondStage

        chosen = self.options
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            first = FirstStage(
                width=chosen.width,
                blocks=chosen.blocks,
                sex=chosen.sex_input,
                first_age_years=chosen.first_age_years,
            )
            if not self._is_second:
                return first
            return SecondStage(
                first,
                width=chosen.width,
                blocks=chosen.blocks,
                sex=chosen.sex_input,
                step_years=chosen.rounded_to_years,
            )

    @property
    def _is_second(self) -> bool:
        return self.name == "second-stage"

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network's arrays before the first round; of the second stage with the first one as it was trained.

        Raises
        ------
        ModelRefused
            If the model before is not a first stage's.
        """
        arrays: dict[str, NDArray[Any]] = dict(state_to_arrays(self.build(seed=seed)))
        if self._is_second:
            from fedage.common.networks.scale_dense import frozen_arrays

            first = StagePhase(self.options, name="first-stage")
            check_arrays(before, shapes_of(outline(lambda: first.build(seed=seed))))
            arrays |= frozen_arrays({name: np.asarray(a, np.float32) for name, a in before.items()}, prefix=_FIRST)
        return arrays

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Each volume shifted and, half of them, mirrored; unchanged if switched off."""
        if not self.options.augment:
            return batch
        return shifted(batch, most_voxels=self.options.shift_voxels, generator=generator)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """Ages (B,) in years."""
        import torch

        if not self.options.sex_input:
            return module(batch.inputs[VOLUME])
        male = batch.inputs[ROW].nan_to_num(0.5)
        return module(batch.inputs[VOLUME], torch.cat([1 - male, male], dim=1))

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Squared error in years², and the losses of ranks and differences (λ (L_rank + β L_diff))."""
        from torch.nn import functional

        from fedage.common.losses.age_ranks import difference_loss, rank_loss

        chosen, ages = self.options, batch.targets["age_years"]
        ranks = rank_loss(output, ages, temperature_years=chosen.rank_temperature_years)
        apart = difference_loss(output, ages)
        return functional.mse_loss(output, ages) + chosen.ranking_weight * (ranks + chosen.difference_weight * apart)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages."""
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda years: {PREDICTED_YEARS: years},
            device=device,
        )
