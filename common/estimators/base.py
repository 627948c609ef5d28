"""The plug-in point "estimator": what one sample is, its network, its loss, and how an output becomes an age.

Shape legend: B patients in a batch, C channels, H × W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from fedage.common.estimators.takes import Takes
from fedage.common.image import FloatImage, Image

if TYPE_CHECKING:
    import torch


class Options(BaseModel):
    """Base of an estimator's own options in `[estimator.options]`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@runtime_checkable
class Trainable(Protocol):
    """What local training needs of an estimator, on images or on tables."""

    def augment(self, batch: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """Random training-time changes of a batch (B, …), drawn from `generator` only."""

    def build(self, *, seed: int) -> torch.nn.Module:
        """The network with initial weights that depend on `seed` only (and not on the global random state)."""

    def loss(self, output: torch.Tensor, age_years: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch, scalar, from the network output and ages (B,) in years."""

    def age_years(self, output: torch.Tensor) -> torch.Tensor:
        """Predicted ages (B,) in years from the network output."""


class Estimator(Trainable, Protocol):
    """One way to estimate age. An instance is configured by the campaign file and holds no data."""

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[Options]]
    modalities: ClassVar[tuple[str, ...]]
    takes: ClassVar[Takes]
    """Which images of these modalities; the site leaves out all others and counts them by reason."""
    couples_samples: ClassVar[bool]
    """Whether the loss relates the samples of a batch to each other (then no per-sample differential privacy)."""
    max_step_norm: ClassVar[float]
    """`training.max_step_norm` where the file gives none: several times what an ordinary round moves the model.
    A file may lower it, not raise it."""
    max_path_norm: ClassVar[float]
    """The largest `training.max_path_norm`, whatever the rounds: several times what an ordinary run moves the model.
    A file may lower it, not raise it."""

    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one preprocessed sample."""

    def preprocess(self, image: Image) -> FloatImage:
        """One image to one sample (C, H, W), float32. Raises `SampleRefused`."""
