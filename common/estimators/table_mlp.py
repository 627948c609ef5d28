"""`table-mlp`: age by a small network on a table's features, which starts where the ridge regression ends.

Medians, means, SDs and the ridge's coefficients come from an exact phase and are fixed buffers; what is learnt in the
rounds of a second one is a correction, zero at first: t̂ = ridge(z) + SD(t) · network(z). On a few hundred patients a
free network only learns the ridge's residuals by heart. So training disturbs every feature with noise of variance
λ / n, which for a linear model is the same as the ridge penalty λ (Bishop 1995), and keeps the correction to what
survives it.

Legend: B patients in a batch, p features. A row is (p,) raw features, NaN where missing; in training a batch is
(B, 2p), the features and standard normal noise for each. The output is (B,), age on its scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.errors import FedAgeError
from fedage.common.estimators._rows import RowEstimator, scaled, years
from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Batch,
    Options,
    Phase,
    Predictor,
    Standard,
)
from fedage.common.estimators.ridge import FEATURE, RidgePhase, TableOptions, vector
from fedage.common.estimators.stated import check_stated, stated_standard
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

    hidden: tuple[int, ...] = Field(
        default=(64,), strict=False, description="sizes of hidden layers; none for a linear correction"
    )
    start: Literal["ridge", "mean", "stated"] = Field(
        default="ridge",
        description='prediction before any training; "stated" is the middle of age_range_years and sums no patients',
    )
    ranges: dict[str, Annotated[tuple[float, float], Field(strict=False)]] = Field(
        default_factory=dict,
        strict=False,
        description='with start = "stated": range of each feature by column or pattern, to standardise by',
    )
    age_range_years: tuple[float, float] | None = Field(
        default=None, strict=False, description='with start = "stated": youngest and oldest age expected'
    )
    noise: Literal["ridge"] | float = Field(
        default="ridge", description='SD of noise on standardised features in training, or "ridge": √(λ / n)'
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="part of the values made missing in training")
    loss: Literal["mse", "huber", "l1"] = Field(
        default="mse",
        description="training loss on the age scale; huber and l1 need privacy.minimum_count = 1, as they bend at a "
        "patient",
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not all(1 <= size <= 4096 for size in self.hidden):
            raise ValueError(f"hidden={list(self.hidden)} must be sizes from 1 to 4096")
        if self.noise != "ridge" and not 0 <= self.noise <= 100:
            raise ValueError(f'noise={self.noise:g} must be "ridge" or a number from 0 to 100')
        if self.start != "ridge" and self.noise == "ridge":
            raise ValueError('noise = "ridge" needs start = "ridge"; give noise as a number, such as 1.0')
        check_stated(
            is_stated=self.start == "stated",
            ranges=self.ranges,
            age_range_years=self.age_range_years,
            scale=self.scale,
        )
        return self


class TableMLP(RowEstimator[TableMLPOptions]):
    """A network on a table; see the module's docstring."""

    name: ClassVar[str] = "table-mlp"
    title: ClassVar[str] = "Table, network that starts from a ridge regression"
    Options: ClassVar[type[Options]] = TableMLPOptions
    trained_in_rounds: ClassVar[bool] = True

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The standardisation, with a ridge regression if the network starts from it; then the network.

        With stated ranges there is nothing to sum before the network.
        """
        if self.options.start == "stated":
            return (self.network,)
        prepared = RidgePhase(
            self.row_columns,
            lambda result, _before, _seed: self._prepared(result),
            scale=self.options.scale,
            penalty=self.options.penalty,
            inner_folds=self.options.inner_folds,
            products=self.options.start == "ridge",
        )
        return (prepared, self.network)

    @property
    def kinked_loss(self) -> str:
        """`huber` and `l1` bend, see `KinkedLoss`."""
        return "" if self.options.loss == "mse" else f'loss = "{self.options.loss}"'

    @property
    def network(self) -> NetworkPhase:
        """The phase in rounds."""
        return NetworkPhase(self.options, self.row_columns)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages by the network."""
        return self.network.predictor(arrays, device=device)

    def standard(self, arrays: Arrays) -> Standard:
        """The network's fixed buffers."""
        medians, means, units = (np.asarray(arrays[name], dtype=np.float64) for name in ("medians", "means", "units"))
        return Standard(medians=medians, means=means, units=units)

    def _prepared(self, result: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """What the network's buffers are filled with, float64."""
        model = result["model"]
        penalty = float(result.get("penalty", 0.0))
        noise = math.sqrt(penalty / result["n"]) if self.options.noise == "ridge" else self.options.noise
        sds = vector(model, "sds")
        _require_told_apart(self.row_columns, vector(model, "means"), sds)
        return {
            "medians": vector(model, "medians"),
            "means": vector(model, "means"),
            "units": np.divide(1.0, sds, out=np.zeros_like(sds), where=sds > 0),
            "coefficients": vector(model, "coefficients") if self.options.start == "ridge" else np.zeros_like(sds),
            "intercept": np.array([float(model["intercept"])]),
            "age_sd": np.array([float(model["age_sd"])]),
            "noise": np.array([noise]),
        }


@dataclass(frozen=True)
class NetworkPhase:
    """The network on p features."""

    options: TableMLPOptions
    columns: tuple[str, ...]
    name: str = "network"
    couples_samples: bool = False
    smallest_batch: int = 1

    def build(self, *, seed: int) -> TableNetwork:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.table import TableNetwork

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return TableNetwork(len(self.columns), self.options.hidden)

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network before training: its buffers from the exact phase, its weights from `seed`."""
        network = self.build(seed=seed)
        network.set_standard(before or self._stated())
        return dict(state_to_arrays(network))

    def _stated(self) -> dict[str, NDArray[Any]]:
        options, ages = self.options, self.options.age_range_years
        if options.start != "stated" or ages is None or options.noise == "ridge":
            raise FedAgeError("a network that does not start from stated ranges starts from the phase before")
        standard = stated_standard(self.columns, options.ranges, scale=options.scale, age_range_years=ages)
        return {**standard, "noise": np.array([options.noise])}

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """(B, p) to (B, 2p): some values made missing, and the noise that the network adds to the features."""
        import torch

        where, rows = generator.device, batch.inputs[ROW]
        if self.options.dropout > 0:
            dropped = torch.rand(rows.shape, generator=generator, device=where) < self.options.dropout
            rows = rows.masked_fill(dropped.to(rows.device), torch.nan)
        noise = torch.randn(rows.shape, generator=generator, device=where).to(rows)
        return Batch({ROW: torch.cat([rows, noise], dim=1)}, batch.present, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        """(B,), age on its scale."""
        return module(batch.inputs[ROW])

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Mean loss of (B,) against ages (B,), on the age scale."""
        from torch.nn import functional

        scale = self.options.scale
        target = scaled(batch.targets["age_years"], scale)
        if self.options.loss == "huber":
            return functional.huber_loss(output, target, delta=_HUBER_DELTA[scale.kind])
        if self.options.loss == "l1":
            return functional.l1_loss(output, target)
        return functional.mse_loss(output, target)

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

    def age_years(self, output: torch.Tensor) -> torch.Tensor:
        """Ages (B,) in years from (B,)."""
        return years(output, self.options.scale)


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
