"""`brain-sfcn`: age from one T1-weighted volume of the head, by SFCN (Peng et al., Medical Image Analysis 2021).

Layers, soft labels, loss, augmentation and the order of preprocessing (divided by the mean, then cropped) are the
published ones; with 40 bins of one year a published state loads. Our own design: bins and label SD by campaign, labels
divided by their sum, any size, width, dropout and number of poolings, and the SD of the predicted distribution as a
column beside the age.

BatchNorm, the published layer, is the default in a federation too: on phantom heads it learns in a hundred steps, while
GroupNorm, which standardises each patient alone, leaves so little difference between patients that it learnt nothing in
two hundred (deploy/guides/benchmarks.md). The sites' running means and variances are averaged as the weights are.
GroupNorm is for per-patient differential privacy, which refuses layers that look at a whole batch.

Shape legend: B patients, (I, J, K) = `shape`, a sample is (1, I, J, K) at `spacing_mm`; K bins of age in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators.base import (
    PREDICTED_SD_YEARS,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Options,
    Output,
    Phase,
    Predictor,
)
from fedage.common.estimators.head_volumes import VOLUME, HeadVolumeOptions, HeadVolumes, shifted
from fedage.common.networks.arrays import check_arrays, outline, shapes_of, state_to_arrays
from fedage.common.networks.names import Norm

if TYPE_CHECKING:
    import torch
    from torch import nn

_LEAST_SIDE = 16
_LABEL_SDS = 3.0
"""How many SDs of the label an age keeps from the first and the last bin."""
_PUBLISHED = {
    "norm": "batch", "width": 32, "poolings": 5, "intensity": "mean", "spacing_mm": 1.0,
    "first_bin_years": 42.0, "last_bin_years": 82.0, "bin_width_years": 1.0,
}  # fmt: skip
"""Options of the network whose weights are published."""


class BrainSFCNOptions(HeadVolumeOptions):
    """`[estimator.options]` of `brain-sfcn`."""

    weights_sha256: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        max_length=64,
        description="digest of the file of published weights that the network begins with, as fedage campaign weights "
        "prints it; empty for random ones",
    )
    norm: Norm = Field(default="batch", description="normalisation: batch (published), or group (for privacy)")
    width: int = Field(default=32, ge=8, le=64, multiple_of=8, description="channels of the first block; 32 is SFCN")
    poolings: int = Field(
        default=5, ge=2, le=5, description="blocks that halve the volume; 5 is SFCN, 3 suits sides below 64"
    )
    dropout: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="part of values dropped before the last layer; 0.5 is SFCN",
    )
    first_bin_years: float = Field(default=12.0, ge=-30, le=130, description="where the first bin of age begins")
    last_bin_years: float = Field(default=98.0, ge=-30, le=160, description="where the last bin of age ends")
    bin_width_years: float = Field(default=1.0, ge=0.25, le=10, description="width of a bin")
    label_sd_years: float = Field(
        default=1.0, ge=0.5, le=10, description="SD of the soft label; ages keep 3 SDs from the first and last bin"
    )
    augment: bool = Field(default=True, description="random shifts and left-right mirroring in training")
    shift_voxels: int = Field(default=2, ge=0, le=8, description="largest random shift along each axis")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        least = max(_LEAST_SIDE, 2**self.poolings)
        if not all(least <= side <= 256 for side in self.shape):
            raise ValueError(
                f"shape={list(self.shape)} must be three numbers from {least} to 256 with poolings={self.poolings}"
            )
        bins = (self.last_bin_years - self.first_bin_years) / self.bin_width_years
        if not 2 <= bins <= 500 or abs(bins - round(bins)) > 1e-9:
            raise ValueError(
                f"first_bin_years={self.first_bin_years:g} to last_bin_years={self.last_bin_years:g} must be 2 to 500 "
                f"whole bins of bin_width_years={self.bin_width_years:g}; change one of the three"
            )
        wrong = {name: value for name, value in _PUBLISHED.items() if getattr(self, name) != value}
        if self.weights_sha256 and wrong:
            raise ValueError(
                "weights_sha256 needs the published network, as a state does not tell its bins and grey values; set "
                + ", ".join(f"{name} = {value!r}" for name, value in wrong.items())
            )
        if self.label_sd_years < self.bin_width_years / 2:
            raise ValueError(
                f"label_sd_years={self.label_sd_years:g} must be at least half of bin_width_years="
                f"{self.bin_width_years:g}, else the label says in which bin an age is, and not where"
            )
        low, high = self.ages_years
        if not low < high:
            raise ValueError(
                f"no age is {_LABEL_SDS:g} × label_sd_years={self.label_sd_years:g} from both the first and the last "
                "bin; widen the bins' range"
            )
        return self

    @property
    def bins(self) -> int:
        """How many."""
        return round((self.last_bin_years - self.first_bin_years) / self.bin_width_years)

    @property
    def ages_years(self) -> tuple[float, float]:
        """The ages whose labels the bins hold whole."""
        margin = _LABEL_SDS * self.label_sd_years
        return max(self.first_bin_years + margin, 0.0), min(self.last_bin_years - margin, 130.0)


class BrainSFCN(HeadVolumes):
    """T1-weighted volume to age and its SD; see the module's docstring."""

    name: ClassVar[str] = "brain-sfcn"
    title: ClassVar[str] = "T1-weighted volume of the head, simple fully convolutional network with soft labels"
    Options: ClassVar[type[Options]] = BrainSFCNOptions
    # The first block's output of one volume of full size takes 630 MB.
    prediction_batch: ClassVar[int] = 4

    def __init__(self, options: BrainSFCNOptions) -> None:
        super().__init__(options)
        self.options: BrainSFCNOptions = options

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Age between the centres of the first and the last bin, and the SD of the predicted distribution."""
        chosen = self.options
        half = chosen.bin_width_years / 2
        low, high = max(chosen.first_bin_years + half, 0.0), min(chosen.last_bin_years - half, 130.0)
        spread = (chosen.last_bin_years - chosen.first_bin_years) / 2
        return (
            Output(column=PREDICTED_YEARS, lower=low, upper=high),
            Output(column=PREDICTED_SD_YEARS, lower=0.0, upper=spread),
        )

    @property
    def ages_years(self) -> tuple[float, float]:
        """Those that the bins hold."""
        return self.options.ages_years

    @property
    def given_sha256(self) -> str:
        """Of the published weights."""
        return self.options.weights_sha256

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase in rounds."""
        return (self.network,)

    @property
    def network(self) -> NetworkPhase:
        """The phase."""
        return NetworkPhase(self.options)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages and SDs by the network."""
        return self.network.predictor(arrays, device=device)


@dataclass(frozen=True)
class NetworkPhase:
    """SFCN."""

    options: BrainSFCNOptions
    name: str = "network"
    couples_samples: bool = False
    smallest_batch: int = 1

    def build(self, *, seed: int) -> nn.Module:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.sfcn import SFCN

        chosen = self.options
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return SFCN(
                bins=chosen.bins,
                shape=chosen.shape,
                norm=chosen.norm,
                width=chosen.width,
                poolings=chosen.poolings,
                dropout=chosen.dropout,
            )

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network's arrays before any training: those given, if any are.

        Raises
        ------
        ModelRefused
            If the given ones are not this network's.
        """
        if not self.options.weights_sha256:
            return dict(state_to_arrays(self.build(seed=seed)))
        check_arrays(before, shapes_of(outline(lambda: self.build(seed=seed))))
        return {name: np.asarray(array, np.float32) for name, array in before.items()}

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Each volume shifted and, half of them, mirrored; unchanged if switched off."""
        if not self.options.augment:
            return batch
        return shifted(batch, most_voxels=self.options.shift_voxels, generator=generator)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """Log-probabilities (B, K)."""
        return module(batch.inputs[VOLUME])

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Divergence of the predicted distributions from the soft labels of ages (B,)."""
        from fedage.common.losses.age_bins import divergence, soft_labels

        labels = soft_labels(batch.targets["age_years"], self._edges(), sd=self.options.label_sd_years)
        return divergence(output, labels)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages and SDs."""
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0), arrays, output=self.output, columns=self.age_columns, device=device
        )

    def age_columns(self, output: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Ages (B,) and their SDs of log-probabilities (B, K)."""
        from fedage.common.losses.age_bins import mean_and_sd_years

        years, sd_years = mean_and_sd_years(output, self._edges())
        return {PREDICTED_YEARS: years, PREDICTED_SD_YEARS: sd_years}

    def _edges(self) -> torch.Tensor:
        from fedage.common.losses.age_bins import edges_years

        chosen = self.options
        return edges_years(chosen.first_bin_years, chosen.last_bin_years, chosen.bin_width_years)
