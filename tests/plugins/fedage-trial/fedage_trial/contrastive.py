"""`trial-contrastive`: an encoder trained by a loss that relates two augmented views of all patients of a batch to each
other, then an exact ridge regression of age on its embedding.

After L^exp (arXiv 2507.01794): s = z·z/τ, w = exp(−d²/2σ²); −Σ_k (w_k/Σw) log[e^{s_k} / Σ_{t≠k} e^{s_t(1−w_t)}].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedage.common.estimators.base import (
    COMPUTED,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Estimator,
    Input,
    Options,
    Phase,
    Predictor,
    Samples,
)
from fedage.common.estimators.ridge import AgeScale, RidgePhase, check_ridge, ridge_years
from fedage.common.preprocessing.image import Exam, FloatImage
from fedage_trial.phases import SeededPhase, ridge_and_network, with_ridge
from fedage_trial.views import SIZE, small

if TYPE_CHECKING:
    import torch

DIMENSIONS, TEMPERATURE, WIDTH_YEARS = 4, 0.5, 5.0
COLUMNS = tuple(f"{COMPUTED}embedding {k + 1}" for k in range(DIMENSIONS))
SCALE = AgeScale("linear")


class ContrastiveOptions(Options):
    """None."""


@dataclass(frozen=True)
class EncoderPhase(SeededPhase):
    """The encoder; it predicts no age."""

    name: str = "encoder"
    couples_samples: bool = True
    smallest_batch: int = 6

    def network(self) -> torch.nn.Module:
        from fedage_trial.networks import Encoder

        return Encoder(SIZE, DIMENSIONS)

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Two noisy views of every patient, by name."""
        import torch

        image = batch.inputs["image"]
        noisy = {f"view {k}": image + 0.1 * torch.randn(image.shape, generator=generator).to(image) for k in (1, 2)}
        return Batch(noisy, batch.present, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        return {name: module(view) for name, view in batch.inputs.items()}

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        import torch
        from torch.nn import functional

        z = functional.normalize(torch.cat([output["view 1"], output["view 2"]]), dim=1)
        age = batch.targets["age_years"].repeat(2)
        s = z @ z.T / TEMPERATURE
        w = torch.exp(-((age[:, None] - age[None]) ** 2) / (2 * WIDTH_YEARS**2))
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        pushed = torch.where(others, torch.exp(s * (1 - w)), 0.0)
        below = pushed.sum(dim=1, keepdim=True) - pushed  # over t ≠ k
        terms = torch.where(others, w * (torch.log(below.clamp(min=1e-12)) - s), 0.0)
        return (terms.sum(dim=1) / torch.where(others, w, 0.0).sum(dim=1)).mean()

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor | None:
        return None


def embedded(before: Arrays, device: str) -> Predictor:
    """The embedding's columns."""
    from fedage.common.estimators.predict import network_predictor

    return network_predictor(
        lambda: EncoderPhase().build(seed=0),
        before,
        output=lambda module, batch: module(batch.inputs["image"]),
        columns=lambda z: {name: z[:, k] for k, name in enumerate(COLUMNS)},
        device=device,
    )


class Contrastive(Estimator):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-contrastive"
    title: ClassVar[str] = "Image, contrastive encoder and ridge regression on its embedding"
    Options: ClassVar[type[Options]] = ContrastiveOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 20.0
    max_path_norm: ClassVar[float] = 100.0
    inputs: tuple[Input, ...] = (Input(name="image", rank=2, modalities=("CR", "DX")),)

    def __init__(self, options: ContrastiveOptions) -> None:
        self.options: ContrastiveOptions = options

    @property
    def phases(self) -> tuple[Phase, ...]:
        ridge = RidgePhase(
            COLUMNS,
            with_ridge,
            scale=SCALE,
            penalty=1.0,
            computed=embedded,
            name="probe",
        )
        return (EncoderPhase(), ridge)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"image": (1, SIZE, SIZE)}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        return {"image": small(exam["image"].pixels)}

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        ridge, network = ridge_and_network(arrays)
        check_ridge(ridge, DIMENSIONS)
        embed = embedded(network, device)

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            columns = embed(samples)
            return {PREDICTED_YEARS: ridge_years(ridge, np.column_stack([columns[name] for name in COLUMNS]), SCALE)}

        return predict
