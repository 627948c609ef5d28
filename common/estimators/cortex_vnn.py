"""`cortex-vnn`: age from cortical thickness by a coVariance network, whose graph is the covariance of the regions.

Medians, means, SDs, the covariance C of the standardised regions and their correlations with age come from an exact
phase, so C is that of all sites' patients together; with `cohort.train_on = "healthy"` of the healthy alone. It is
scaled to a largest eigenvalue of 1 and fixed. What is trained are the filters' taps, 290 numbers with the published
sizes ([5, 5] features, [6, 10] taps), whatever the number of regions (Sihag et al., NeurIPS 2023; arXiv 2402.07684,
NeuroVNN). So they can be used on the C of another atlas as they are: `transferred`.

Two options have a published form and one of our own, which is the default as it is far closer to the ridge regression:

- `readout`: "mean" is published, the same weight for each region. A region is then told from others by its place in C
  alone. With "age" it counts with its correlation with age, which the sums tell anyway. A linear filter then is wᵀh(C)z
  with w ∝ Zᵀt, and the ridge regression is one of these, with h(λ) = 1 / (λ + penalty).
- `start`: "random" is published. With "linear" every model begins as the best linear filter that taps of moderate size
  give, which follows from the same sums. C's eigenvalues crowd near 0, where powers of C are hard to tell apart, so
  gradient descent from random taps takes thousands of steps to get there.

Also our own are the scale of the output (SDs of age about its mean) and the log scale of age. Written from the papers'
formulas. A patent application on the clinical use of coVariance networks exists.

Legend: B patients in a batch, p regions, M models that differ in their first weights; ŷ in years, t age on its scale.
Region j contributes c_j = w_j · (mean over features of the last layer, less its start); t̂ = mean + SD · mean_j c_j, and
the regional residual r_j is c_j − mean_j c_j, in SDs of t. They sum to 0 over the regions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators._rows import RowEstimator, scaled, years
from fedage.common.estimators.base import (
    PREDICTED_YEARS,
    ROW,
    Arrays,
    Batch,
    Options,
    Output,
    Phase,
    Predictor,
    Standard,
)
from fedage.common.estimators.ridge import RidgePhase, vector
from fedage.common.estimators.table import FeatureOptions
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import torch

    from fedage.common.networks.covariance import CovarianceNetwork

RESIDUAL = "residual:"
"""Begins the names of columns of regional residuals: `residual:MODEL:REGION`, models from 1."""
EIGENVECTOR = "eigenvector:"
"""Begins the names of columns of |⟨r/‖r‖, v⟩|, r a patient's residuals and v an eigenvector of C."""
_START = "start"
_LARGEST_RESIDUAL = 1e3
"""In SDs of age."""
_FILTERS_PENALTY = 0.5
"""λ of the filters with penalty = "auto", as a share of the ridge regression's: as many coefficients as regions need
more shrinking than a few taps. [own; chosen on folds of ABIDE I, other ones than those reported]"""
_TAP_PENALTY = 1e-8
"""On squared taps of the linear start, beside a mean squared error in squared SDs of age: taps of up to some hundreds,
which float32 bears."""


class CortexVNNOptions(FeatureOptions):
    """`[estimator.options]` of `cortex-vnn`."""

    layers: tuple[int, ...] = Field(
        default=(5, 5), strict=False, min_length=1, max_length=8, description="features of each layer"
    )
    taps: tuple[int, ...] = Field(
        default=(6, 10), strict=False, min_length=1, max_length=8, description="powers of C in each layer's filters"
    )
    readout: Literal["age", "mean"] = Field(
        default="age", description="how regions count: by their correlation with age, or all the same, as published"
    )
    start: Literal["linear", "random"] = Field(
        default="linear", description="filters before training: the best linear ones, or random ones, as published"
    )
    models: int = Field(default=1, ge=1, le=100, description="models side by side, whose mean is the prediction")
    noise: Literal["ridge"] | float = Field(
        default="ridge",
        description='SD of noise on standardised regions in training, or "ridge": √(λ / n), with "auto" √(λ / 2n)',
    )
    residuals: bool = Field(
        default=False, description="whether regional residuals are kept beside the age; names every region in features"
    )

    eigenvectors: int = Field(
        default=0, ge=0, le=50, description="leading eigenvectors of C that residuals are laid along, kept beside them"
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if len(self.layers) != len(self.taps):
            raise ValueError(f"layers={list(self.layers)} and taps={list(self.taps)} must be as many")
        if not all(1 <= size <= 256 for size in self.layers) or not all(1 <= many <= 64 for many in self.taps):
            raise ValueError("layers must be sizes from 1 to 256, and taps numbers from 1 to 64")
        if self.start == "linear" and min(self.layers[:-1], default=2) < 2:
            raise ValueError('start = "linear" needs two features in every layer but the last; or set start = "random"')
        if self.noise != "ridge" and not 0 <= self.noise <= 100:
            raise ValueError(f'noise={self.noise:g} must be "ridge" or a number from 0 to 100')
        if self.eigenvectors and not self.residuals:
            raise ValueError("eigenvectors need residuals = true")
        if self.residuals and self.has_patterns:
            raise ValueError(
                "residuals = true makes a column of each region, which sites approve by name; name the regions in "
                "features, without * and ?"
            )
        return self

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions by name, for options without patterns."""
        return self.resolve(self.features)

    @property
    def residual_columns(self) -> tuple[str, ...]:
        """The columns of regional residuals, model by model; none unless they are asked for."""
        models = range(1, self.models + 1) if self.residuals else ()
        return tuple(f"{RESIDUAL}{model}:{region}" for model in models for region in self.regions)

    @property
    def eigenvector_columns(self) -> tuple[str, ...]:
        """The columns of what residuals have along eigenvectors, that of the largest eigenvalue first."""
        return tuple(f"{EIGENVECTOR}{number}" for number in range(1, self.eigenvectors + 1))


class CortexVNN(RowEstimator[CortexVNNOptions]):
    """A coVariance network; see the module's docstring."""

    name: ClassVar[str] = "cortex-vnn"
    title: ClassVar[str] = "Cortical thickness, coVariance network"
    Options: ClassVar[type[Options]] = CortexVNNOptions
    trained_in_rounds: ClassVar[bool] = True
    # From the best linear filters some hundred small steps are enough; from random ones it takes thousands.
    usual_training: ClassVar[Mapping[str, Any]] = {
        "local_epochs": 5,
        "batch_size": 4096,
        "optimiser": "adam",
        "learning_rate": 0.003,
        "final_learning_rate_fraction": 0.1,
    }
    prediction_batch: ClassVar[int] = 256

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The covariance, exactly; then the filters, in rounds."""
        covariance = RidgePhase(
            self.row_columns,
            lambda result, _before, _seed: self._prepared(result),
            scale=self.options.scale,
            penalty=self.options.penalty,
            inner_folds=self.options.inner_folds,
            correlations=True,
        )
        return (covariance, self.network)

    @property
    def network(self) -> FiltersPhase:
        """The phase in rounds."""
        return FiltersPhase(self.options, len(self.row_columns))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Age, and the regional residuals if they are asked for."""
        bounds = {"lower": -_LARGEST_RESIDUAL, "upper": _LARGEST_RESIDUAL}
        return (
            self.options.age_output,
            *(Output(column=name, **bounds) for name in self.options.residual_columns),
            *(Output(column=name, lower=0.0, upper=1.0) for name in self.options.eigenvector_columns),
        )

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Ages, the mean of the models', and regional residuals."""
        return self.network.predictor(arrays, device=device)

    def standard(self, arrays: Arrays) -> Standard:
        """The network's fixed buffers."""
        medians, means, units = (np.asarray(arrays[name], dtype=np.float64) for name in ("medians", "means", "units"))
        return Standard(medians=medians, means=means, units=units)

    def _prepared(self, result: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """What the network's buffers are filled with, float64, and the taps of the linear start, (K,)."""
        model = result["model"]
        sds, covariance, with_age = (vector(model, name) for name in ("sds", "correlations", "age_correlations"))
        used = sds > 0
        size = np.sqrt(np.mean(with_age[used] ** 2))
        alike = self.options.readout == "mean" or size == 0
        weights = used.astype(np.float64) if alike else with_age / size
        ridge, options = float(result["penalty"]) / result["n"], self.options
        if options.penalty == "auto":
            ridge *= _FILTERS_PENALTY
        return {
            "medians": vector(model, "medians"),
            "means": vector(model, "means"),
            "units": np.divide(1.0, sds, out=np.zeros_like(sds), where=used),
            "covariance": covariance / np.linalg.eigvalsh(covariance)[-1],
            "weights": weights,
            "age": np.array([float(model["intercept"]), float(model["age_sd"])]),
            "noise": np.array([math.sqrt(ridge) if options.noise == "ridge" else options.noise]),
            _START: linear_taps(covariance, with_age, weights / used.sum(), ridge=ridge, taps=options.taps[-1]),
        }


def linear_taps(
    covariance: FloatArray, with_age: FloatArray, weights: FloatArray, *, ridge: float, taps: int
) -> FloatArray:
    """Taps a (K,) of the linear filter wᵀ Σ_k a_k (C / λ_max)ᵏ z that is closest to age: least squares from sums.

    With β = Ba, column k of B being (C / λ_max)ᵏ w, it minimises 1 − 2βᵀr + βᵀ(C + λ/n)β + 1e-8 ‖a‖².

    Parameters
    ----------
    covariance, with_age
        Correlations (p, p) of the regions, and r (p,) of the regions with age.
    weights
        w (p,), summed over in the readout.
    ridge
        λ / n.
    """
    scaled_to_1 = covariance / np.linalg.eigvalsh(covariance)[-1]
    columns = [weights]
    for _ in range(taps - 1):
        columns.append(scaled_to_1 @ columns[-1])
    B = np.column_stack(columns)
    inner = B.T @ (covariance + ridge * np.eye(len(weights))) @ B + _TAP_PENALTY * np.eye(taps)
    return np.asarray(np.linalg.solve(inner, B.T @ with_age), dtype=np.float64)


def transferred(model: Arrays, prepared: Arrays) -> dict[str, NDArray[Any]]:
    """The filters of one model on the regions of another atlas: nothing is trained.

    Parameters
    ----------
    model
        A trained model of any number of regions.
    prepared
        The arrays that the exact phase makes of the other atlas (or a model on it): its covariance and standardisation.
    """
    learnt = {name: array for name, array in model.items() if name.startswith("layers.")}
    fixed = {name: np.asarray(prepared[name], dtype=np.float32) for name in model if name not in learnt}
    return {**fixed, **learnt}


@dataclass(frozen=True)
class FiltersPhase:
    """The filters on p regions."""

    options: CortexVNNOptions
    regions: int
    name: str = "filters"
    couples_samples: bool = False
    smallest_batch: int = 1

    def build(self, *, seed: int) -> CovarianceNetwork:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.covariance import CovarianceNetwork

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return CovarianceNetwork(
                self.regions,
                models=self.options.models,
                features=self.options.layers,
                taps=self.options.taps,
                from_linear=self.options.start == "linear",
            )

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network before training: its buffers from the exact phase, its filters from `seed`."""
        network = self.build(seed=seed)
        network.set_standard({name: array for name, array in before.items() if name != _START})
        if self.options.start == "linear":
            network.begin_as(before[_START])
        return dict(state_to_arrays(network))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """(B, p) to (B, 2p): the noise that the network adds to the regions."""
        if self.options.noise == 0:
            return batch
        import torch

        rows = batch.inputs[ROW]
        noise = torch.randn(rows.shape, generator=generator, device=generator.device).to(rows)
        return Batch({ROW: torch.cat([rows, noise], dim=1)}, batch.present, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        """Ages (B, M) about their mean in SDs, and that mean and SD, (2,)."""
        return {"sds": module(batch.inputs[ROW]), "age": module.age}

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Mean squared error of all models against ages (B,), in SDs of age on its scale."""
        scale, (mean, sd) = self.options.scale, output["age"]
        target = (scaled(batch.targets["age_years"], scale) - mean) / sd
        error: torch.Tensor = (output["sds"] - target[:, None]) ** 2
        return error.mean()

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages, and regional residuals if they are asked for."""
        from fedage.common.estimators.predict import network_predictor

        options = self.options

        def output(module: Any, batch: Batch) -> Any:
            each = module.contributions(batch.inputs[ROW])
            made = {"sds": module.mean_over_regions(each), "age": module.age}
            if options.residuals:
                made["residuals"] = module.residuals(each)
                made["along"] = module.along_eigenvectors(made["residuals"], most=options.eigenvectors)
            return made

        def columns(made: Any) -> Mapping[str, torch.Tensor]:
            mean, sd = made["age"]
            found = {PREDICTED_YEARS: years(mean + sd * made["sds"].mean(dim=1), options.scale)}
            if options.residuals:
                found |= dict(zip(options.residual_columns, made["residuals"].flatten(1).unbind(dim=1), strict=True))
                found |= dict(zip(options.eigenvector_columns, made["along"].unbind(dim=1), strict=True))
            return found

        return network_predictor(lambda: self.build(seed=0), arrays, output=output, columns=columns, device=device)
