"""`trial-volume`: a small 3D network that learns age and sex, then an exact ridge regression of age on its embedding.

Legend: B patients, a volume (I, J, K) with axes RAS+; a sample is (1, 16, 16, 16) at 12 mm around the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedage.common.estimators.base import (
    AGE,
    AGE_OUTPUT,
    COMPUTED,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Estimator,
    Input,
    Options,
    Output,
    Phase,
    Predictor,
    Samples,
    Target,
)
from fedage.common.estimators.ridge import AgeScale, RidgePhase, check_ridge, ridge_years
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused
from fedage_trial.phases import SeededPhase, ridge_and_network, with_ridge

if TYPE_CHECKING:
    import torch

SIDE, STEP_MM = 16, 12.0
CENTRE_YEARS, SCALE_YEARS = 50.0, 15.0
SCALE = AgeScale("linear")


class VolumeOptions(Options):
    """`[estimator.options]`."""

    dimensions: int = Field(default=2, ge=1, le=16, description="length of the embedding")


@dataclass(frozen=True)
class VolumePhase(SeededPhase):
    """The network."""

    dimensions: int
    name: str = "network"

    def network(self) -> torch.nn.Module:
        from fedage_trial.networks import VolumeNetwork

        return VolumeNetwork(self.dimensions)

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Some gain and offset."""
        import torch

        volume = batch.inputs["head"]
        drawn = torch.randn((2, len(volume), 1, 1, 1, 1), generator=generator).to(volume)
        return Batch({"head": volume * (1 + 0.05 * drawn[0]) + 0.05 * drawn[1]}, batch.present, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        return module(batch.inputs["head"])

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Squared error of age, and cross-entropy of sex over those whose sex is known."""
        import torch
        from torch.nn import functional

        age = functional.mse_loss(output["age"], (batch.targets["age_years"] - CENTRE_YEARS) / SCALE_YEARS)
        male = batch.targets["is_male"]
        known = torch.isfinite(male)
        each = functional.binary_cross_entropy_with_logits(output["male"], torch.nan_to_num(male), reduction="none")
        found: torch.Tensor = age + 0.2 * (each * known).sum() / known.sum().clamp(min=1)
        return found

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        return self._columns(arrays, device, lambda made: {PREDICTED_YEARS: CENTRE_YEARS + SCALE_YEARS * made["age"]})

    def embedded(self, arrays: Arrays, device: str) -> Predictor:
        """The embedding's columns, the network's own age and the probability of being male."""
        import torch

        return self._columns(
            arrays,
            device,
            lambda made: {
                **{f"{COMPUTED}embedding {k + 1}": made["embedding"][:, k] for k in range(self.dimensions)},
                "network_years": CENTRE_YEARS + SCALE_YEARS * made["age"],
                "male_probability": torch.sigmoid(made["male"]),
            },
        )

    def _columns(self, arrays: Arrays, device: str, columns: Any) -> Predictor:
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(lambda: self.build(seed=0), arrays, output=self.output, columns=columns, device=device)


class VolumeThenRidge(Estimator):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-volume"
    title: ClassVar[str] = "T1-weighted volume, 3D network and ridge regression on its embedding"
    Options: ClassVar[type[Options]] = VolumeOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 20.0
    max_path_norm: ClassVar[float] = 100.0
    inputs: tuple[Input, ...] = (Input(name="head", rank=3, modalities=("MR",)),)
    targets: tuple[Target, ...] = (AGE, Target(column="is_male"))
    outputs: tuple[Output, ...] = (
        AGE_OUTPUT,
        Output(column="network_years", lower=0.0, upper=130.0),
        Output(column="male_probability", lower=0.0, upper=1.0),
    )

    def __init__(self, options: VolumeOptions) -> None:
        self.options: VolumeOptions = options

    @property
    def network(self) -> VolumePhase:
        return VolumePhase(self.options.dimensions)

    @property
    def phases(self) -> tuple[Phase, ...]:
        ridge = RidgePhase(
            tuple(f"{COMPUTED}embedding {k + 1}" for k in range(self.options.dimensions)),
            with_ridge,
            scale=SCALE,
            penalty=1.0,
            computed=self._embedding_only,
            name="ridge-on-embedding",
        )
        return (self.network, ridge)

    def _embedding_only(self, before: Arrays, device: str) -> Predictor:
        embed = self.network.embedded(before, device)
        return lambda samples: {n: column for n, column in embed(samples).items() if n.startswith(COMPUTED)}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"head": (1, SIDE, SIDE, SIDE)}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        image = exam["head"]
        if image.orientation != "RAS" or image.pixels.ndim != 3:
            raise SampleRefused("not-a-volume", "a volume with axes RAS+ is needed")
        places = np.arange(SIDE) - (SIDE - 1) / 2
        picked = image.pixels
        for axis, spacing in enumerate(image.spacing_mm):
            middle = (picked.shape[axis] - 1) / 2
            where = np.clip(np.rint(middle + places * STEP_MM / spacing), 0, picked.shape[axis] - 1).astype(int)
            picked = np.take(picked, where, axis=axis)
        scaled = (picked - picked.mean()) / max(float(picked.std()), 1e-6)
        return {"head": np.asarray(scaled[None], dtype=np.float32)}

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        ridge, network = ridge_and_network(arrays)
        check_ridge(ridge, self.options.dimensions)
        embed = self.network.embedded(network, device)

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            found = dict(embed(samples))
            rows = np.column_stack([found.pop(f"{COMPUTED}embedding {k + 1}") for k in range(self.options.dimensions)])
            return {PREDICTED_YEARS: ridge_years(ridge, rows, SCALE), **found}

        return predict
