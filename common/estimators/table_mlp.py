"""`table-mlp`: age by a small network on a table's features, which starts where the ridge regression ends.

Medians, means, SDs and the ridge's coefficients come from the federated preparation and are fixed buffers; what is
learnt in rounds is a correction, zero at first: t̂ = ridge(z) + SD(t) · network(z). On a few hundred patients a free
network only learns the ridge's residuals by heart. So training disturbs every feature with noise of variance λ / n,
which for a linear model is the same as the ridge penalty λ (Bishop 1995), and keeps the correction to what survives it.

Legend: B patients in a batch, p features. A sample is (p,) raw features, NaN where missing; in training a batch is
(B, 2p), the features and standard normal noise for each. The output is (B,), age on its scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.errors import FedAgeError
from fedage.common.estimators._table import FEATURE, TableBase, TableOptions, vector
from fedage.common.estimators.base import Options
from fedage.common.image import FloatImage, Image, SampleRefused
from fedage.common.networks.arrays import state_to_arrays

if TYPE_CHECKING:
    import torch

    from fedage.common.networks.table import TableNetwork

_HUBER_DELTA = {"log": 0.2, "linear": 5.0}
"""Error from which huber is linear: years, or (about 20 %) on a log scale."""
_MOST_ROUNDING = 1e-3
"""Of a feature's SD: what a float32 of its mean may be off."""


class TableMLPOptions(TableOptions):
    """`[estimator.options]` of `table-mlp`."""

    hidden: tuple[int, ...] = Field(default=(64,), strict=False, min_length=1, description="sizes of hidden layers")
    start: Literal["ridge", "mean"] = Field(default="ridge", description="prediction before any training")
    noise: Literal["ridge"] | float = Field(
        default="ridge", description='SD of noise on standardised features in training, or "ridge": √(λ / n)'
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="part of the values made missing in training")
    loss: Literal["mse", "huber", "l1"] = Field(default="mse", description="training loss on the age scale")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not all(1 <= size <= 4096 for size in self.hidden):
            raise ValueError(f"hidden={list(self.hidden)} must be sizes from 1 to 4096")
        if self.noise != "ridge" and not 0 <= self.noise <= 100:
            raise ValueError(f'noise={self.noise:g} must be "ridge" or a number from 0 to 100')
        if self.start == "mean" and self.noise == "ridge":
            raise ValueError('noise = "ridge" needs start = "ridge"; give noise as a number, such as 1.0')
        return self


class TableMLP(TableBase):
    """A network on a table; see the module's docstring."""

    name: ClassVar[str] = "table-mlp"
    title: ClassVar[str] = "Table, network that starts from a ridge regression"
    Options: ClassVar[type[Options]] = TableMLPOptions
    exact: ClassVar[bool] = False

    def __init__(self, options: TableMLPOptions, features: tuple[str, ...] | None = None) -> None:
        super().__init__(options, features)
        self.options = options

    @property
    def products(self) -> bool:
        """Only the ridge needs sums of products."""
        return self.options.start == "ridge"

    def weights_from(self, result: Mapping[str, Any], *, seed: int) -> dict[str, NDArray[Any]]:
        """The network before training: its buffers from the preparation, its weights from `seed`."""
        network = self.build(seed=seed)
        model = result["model"]
        penalty = float(result.get("penalty", 0.0))
        noise = math.sqrt(penalty / result["n"]) if self.options.noise == "ridge" else self.options.noise
        sds = vector(model, "sds")
        coefficients = vector(model, "coefficients") if self.products else np.zeros_like(sds)
        _require_told_apart(self.columns, vector(model, "means"), sds)
        network.set_standard(
            medians=vector(model, "medians"),
            means=vector(model, "means"),
            sds=sds,
            coefficients=coefficients,
            intercept=float(model["intercept"]),
            age_sd=float(model["age_sd"]),
            noise=noise,
        )
        return dict(state_to_arrays(network))

    def build(self, *, seed: int) -> TableNetwork:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.table import TableNetwork

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TableNetwork(len(self.columns), self.options.hidden)

    def preprocess(self, image: Image) -> FloatImage:  # noqa: ARG002 - the protocol's
        """A table has no images: always `SampleRefused`."""
        raise SampleRefused("not-a-table", "this estimator takes rows of a table, not images")

    def augment(self, batch: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """(B, p) to (B, 2p): some values made missing, and the noise that the network adds to the features."""
        import torch

        where = generator.device
        if self.options.dropout > 0:
            dropped = torch.rand(batch.shape, generator=generator, device=where) < self.options.dropout
            batch = batch.masked_fill(dropped.to(batch.device), torch.nan)
        noise = torch.randn(batch.shape, generator=generator, device=where).to(batch)
        return torch.cat([batch, noise], dim=1)

    def loss(self, output: torch.Tensor, age_years: torch.Tensor) -> torch.Tensor:
        """Mean loss of (B,) against ages (B,), on the age scale."""
        import torch
        from torch.nn import functional

        scale = self.options.scale
        # Ages below the scale, which the preparation leaves out, count as its lowest.
        shifted = (age_years + scale.offset_years).clamp(min=math.exp(scale.bounds[0]))
        target = age_years if scale.kind == "linear" else torch.log(shifted)
        if self.options.loss == "huber":
            return functional.huber_loss(output, target, delta=_HUBER_DELTA[scale.kind])
        if self.options.loss == "l1":
            return functional.l1_loss(output, target)
        return functional.mse_loss(output, target)

    def age_years(self, output: torch.Tensor) -> torch.Tensor:
        """Ages (B,) in years from (B,)."""
        import torch

        scale = self.options.scale
        lower, upper = scale.bounds
        inside = output.clamp(lower, upper)
        years = inside if scale.kind == "linear" else torch.exp(inside) - scale.offset_years
        return years.clamp(min=0.0)


def _require_told_apart(names: Sequence[str], means: NDArray[np.float64], sds: NDArray[np.float64]) -> None:
    """Refuse features (p,) that the network's 32-bit numbers round to more than a thousandth of their SD.

    Raises
    ------
    FedAgeError
        Naming them.
    """
    spacing = np.spacing(np.abs(means).astype(np.float32)).astype(np.float64)
    coarse = (sds > 0) & (spacing / 2 > _MOST_ROUNDING * sds)
    if coarse.any():
        which = ", ".join(repr(name.removeprefix(FEATURE)) for name, bad in zip(names, coarse, strict=True) if bad)
        raise FedAgeError(
            f"{which}: the mean is so large against the SD that the network's 32-bit numbers cannot tell patients "
            "apart; subtract a constant from the column in every table, leave it out (estimator.options.exclude), or "
            "use table-ridge, which computes in 64 bits"
        )
