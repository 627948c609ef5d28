"""`chest-ca`: age from one frontal chest radiograph, by a ResNet-18 with Coordinate Attention.

After the paediatric chest X-ray work in Insights into Imaging (2025), which combines the two. The depth, the insertion
point, the image size, the loss, the augmentation and the use of sex are our own design, because the source does not
say.

Shape legend: B patients in a batch, S = `image_size`; a sample is (1, S, S). Ages Ω and predictions ŷ in years,
ŷ = centre + scale · output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Batch,
    Estimator,
    Input,
    Options,
    Phase,
    Predictor,
)
from fedage.common.estimators.takes import Takes
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.networks.names import Norm
from fedage.common.preprocessing.image import Exam, FloatImage

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGE = "image"


class ChestCAOptions(Options):
    """`[estimator.options]` of `chest-ca`."""

    norm: Norm = Field(default="group", description="normalisation: group (small batches, privacy) or batch")
    image_size: int = Field(default=256, ge=64, le=1024, multiple_of=32, description="side of a sample in pixels")
    width: int = Field(
        default=64, ge=8, le=128, multiple_of=8, description="channels of the first stage; 64 is ResNet-18"
    )
    centre_years: float = Field(default=60.0, ge=0, le=130, description="age predicted before any training")
    scale_years: float = Field(
        default=15.0, gt=0, le=130, description="years a unit of the network's output stands for"
    )
    loss: Literal["huber", "l1", "mse"] = Field(
        default="mse",
        description="training loss; huber and l1 need privacy.minimum_count = 1, as they bend at a patient",
    )
    huber_delta_years: float = Field(default=5.0, gt=0, le=130, description="error from which huber is linear")
    age_in: Literal["years", "months"] = Field(
        default="years", description="scale that ages count on; in months, exams of which whole years are known are out"
    )
    sex_input: bool = Field(
        default=False, description="whether sex is an input beside the image, which a patient may lack"
    )
    augment: bool = Field(
        default=True, description="random shifts, rotation, zoom, contrast and brightness in training"
    )

    @model_validator(mode="after")
    def _delta_only_for_huber(self) -> Self:
        if self.loss != "huber" and "huber_delta_years" in self.model_fields_set:
            raise ValueError(f'huber_delta_years has no effect with loss="{self.loss}"; remove it or set loss="huber"')
        return self

    @model_validator(mode="after")
    def _of_children(self) -> Self:
        if self.age_in == "months" and self.centre_years > _OLDEST_CHILD_YEARS:
            raise ValueError(
                f'age_in = "months" is for children, and centre_years={self.centre_years:g} is above '
                f"{_OLDEST_CHILD_YEARS:g}; give it in years, not in months, e.g. centre_years = 8 and scale_years = 5"
            )
        return self


_OLDEST_CHILD_YEARS = 21.0
_MONTH_YEARS = 1 / 12
_TAKES = Takes(
    views=("PA", "AP", "FRONTAL"),
    body_parts=("CHEST",),
    intents=("PRESENTATION", "PROCESSING"),
    # Computed radiography states no intent, and many archives no body part; without a view it may be a lateral.
    may_be_unknown=frozenset(["body_part", "intent"]),
)


class ChestCA(Estimator):
    """Chest radiograph to age; see the module's docstring."""

    name: ClassVar[str] = "chest-ca"
    title: ClassVar[str] = "Chest radiograph, ResNet-18 with Coordinate Attention"
    Options: ClassVar[type[Options]] = ChestCAOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 50.0
    max_path_norm: ClassVar[float] = 200.0
    samples_version: ClassVar[int] = 2
    inputs: tuple[Input, ...] = (Input(name=IMAGE, rank=2, modalities=("CR", "DX"), takes=_TAKES),)

    def __init__(self, options: ChestCAOptions) -> None:
        self.options: ChestCAOptions = options
        if options.sex_input:
            self.inputs = (*type(self).inputs, Input(name=ROW, rank=1, optional=True))
        # `PatientAge` 004Y is anything from 48 months to under 60.
        self.coarsest_age_years = _MONTH_YEARS if options.age_in == "months" else math.inf

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase in rounds."""
        return (self.network,)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Sex, if the options ask for it."""
        return ("is_male",) if self.options.sex_input else ()

    @property
    def kinked_loss(self) -> str:
        """`huber` and `l1` bend, see `KinkedLoss`."""
        return "" if self.options.loss == "mse" else f'loss = "{self.options.loss}"'

    @property
    def network(self) -> NetworkPhase:
        """The phase."""
        return NetworkPhase(self.options)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages by the network."""
        return self.network.predictor(arrays, device=device)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """An image (1, S, S), and beside it maybe sex (1,)."""
        row = {ROW: (1,)} if self.options.sex_input else {}
        return {IMAGE: (1, self.options.image_size, self.options.image_size), **row}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        """An image (1, S, S), see `square_sample`. Raises `SampleRefused`."""
        from fedage.common.preprocessing.radiograph import square_sample

        return {IMAGE: square_sample(exam[IMAGE], size=self.options.image_size)}


@dataclass(frozen=True)
class NetworkPhase:
    """ResNet-18 with Coordinate Attention."""

    options: ChestCAOptions
    name: str = "network"
    couples_samples: bool = False
    smallest_batch: int = 1

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - the first phase
        """The network's arrays before any training."""
        return dict(state_to_arrays(self.build(seed=seed)))

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """(B, 1); a patient of unknown sex is as far from one as from the other."""
        if not self.options.sex_input:
            return module(batch.inputs[IMAGE])
        return module(batch.inputs[IMAGE], (2 * batch.inputs[ROW] - 1).nan_to_num(0.0))

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages."""
        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda output: {PREDICTED_YEARS: self.age_years(output)},
            device=device,
        )

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Each sample shifted, turned, zoomed and of another contrast; unchanged if switched off."""
        changed = self.augment(batch.inputs[IMAGE], generator=generator)
        return Batch({**batch.inputs, IMAGE: changed}, batch.present, batch.targets)

    def augment(self, batch: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """(B, 1, S, S)."""
        if not self.options.augment:
            return batch
        from fedage.common.preprocessing.augmentation import RandomChanges

        # Far smaller than the differences between patients, as large as those of positioning.
        changes = RandomChanges(
            shift_fraction=0.04, rotation_degrees=5.0, zoom_fraction=0.05, contrast_fraction=0.1, brightness_sd=0.1
        )
        return changes.applied(batch, generator=generator)

    def build(self, *, seed: int) -> nn.Module:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.resnet import ResNet18

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return ResNet18(norm=self.options.norm, width=self.options.width, sex=self.options.sex_input)

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Mean loss of (B, 1) against ages (B,), on the output's scale so that learning rates are those of any net."""
        from torch.nn import functional

        target = (batch.targets["age_years"] - self.options.centre_years) / self.options.scale_years
        prediction: torch.Tensor = output.squeeze(1)
        if self.options.loss == "huber":
            delta = self.options.huber_delta_years / self.options.scale_years
            return functional.huber_loss(prediction, target, delta=delta)
        if self.options.loss == "l1":
            return functional.l1_loss(prediction, target)
        return functional.mse_loss(prediction, target)

    def age_years(self, output: torch.Tensor) -> torch.Tensor:
        """Ages (B,) in years from (B, 1)."""
        return self.options.centre_years + self.options.scale_years * output.squeeze(1)
