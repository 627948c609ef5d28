"""`trial-synthetic`: trained on images synthesised from label maps, with random contrast; predicts on real images.

A label map (1, S, S) has a whole number a pixel; each label gets a grey value of its own, drawn anew for every patient
and batch, and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedage.common.estimators.base import Arrays, Batch, Estimator, Input, Options, Phase, Predictor
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused
from fedage_trial.phases import CENTRE_YEARS, SCALE_YEARS, AgePhase
from fedage_trial.views import SIZE

if TYPE_CHECKING:
    import torch

LABELS = 4


class SyntheticOptions(Options):
    """None."""


@dataclass(frozen=True)
class SyntheticPhase(AgePhase):
    """A network that sees label maps through random contrasts only while it is trained."""

    name: str = "synthetic"

    def network(self) -> torch.nn.Module:
        from fedage_trial.networks import ViewsNetwork

        return ViewsNetwork()

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Images made of the label maps; the real image is not looked at."""
        import torch

        labels = batch.inputs["labels"].round().long().clamp(0, LABELS - 1)
        # Brighter labels stay brighter: what is random is by how much.
        steps = 0.5 + torch.rand((len(labels), LABELS), generator=generator).to(labels.device)
        grey = torch.cumsum(steps, dim=1)
        image = torch.gather(grey, 1, labels.flatten(1)).view(labels.shape)
        image = image + 0.1 * torch.randn(image.shape, generator=generator).to(image)
        mean, sd = image.mean(dim=(1, 2, 3), keepdim=True), image.std(dim=(1, 2, 3), keepdim=True)
        return Batch({"image": (image - mean) / sd}, {"image": batch.present["labels"]}, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        return module({"image": batch.inputs["image"]}, {"image": batch.present["image"]})

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Over those who have a label map."""
        here = batch.present["image"].float()
        error = (output - (batch.targets["age_years"] - CENTRE_YEARS) / SCALE_YEARS) ** 2
        found: torch.Tensor = (here * error).sum() / here.sum().clamp(min=1.0)
        return found


class Synthetic(Estimator):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-synthetic"
    title: ClassVar[str] = "Image, trained on synthesised ones"
    Options: ClassVar[type[Options]] = SyntheticOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 20.0
    max_path_norm: ClassVar[float] = 100.0
    inputs: tuple[Input, ...] = (
        Input(name="labels", rank=2, modalities=("OT",), takes=Takes(views=("LABELS",)), optional=True),
        Input(name="image", rank=2, modalities=("OT",), takes=Takes(views=("PA",))),
    )

    def __init__(self, options: SyntheticOptions) -> None:
        self.options: SyntheticOptions = options

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (SyntheticPhase(),)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"labels": (1, SIZE, SIZE), "image": (1, SIZE, SIZE)}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        image = exam["image"].pixels
        if image.shape != (SIZE, SIZE):
            raise SampleRefused("other-size", f"{SIZE} × {SIZE} pixels are needed", input="image")
        found = {"image": np.asarray(((image - image.mean()) / image.std())[None], dtype=np.float32)}
        if "labels" in exam:
            found["labels"] = np.asarray(exam["labels"].pixels[None], dtype=np.float32)
        return found

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        return SyntheticPhase().predictor(arrays, device=device)
