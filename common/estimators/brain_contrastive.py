"""`brain-contrastive`: age from one T1-weighted volume of the head, by contrastive learning with continuous labels.

After arXiv 2507.01794 and its predecessor (ISBI 2023): an encoder places patients of near ages near each other on a
sphere (L^exp; y-aware and threshold for comparison), and an exact ridge regression on the embedding gives the age.
Embeddings of the training patients alone are in its sums, each by the finished encoder.

Published: ResNet-18 of width 64, 128 dimensions, batches of 32, τ = 0.1, RBF kernel of σ = 2 years, Adam with 1e-4,
volumes of 121 × 145 × 121 (VBM). Our own design: any size and width, 16 dimensions by default (the probe needs
`disclosure.patients_per_column` patients a site for each), and two augmented views of every patient, without which a
batch without two patients of near age compares nobody. `centred` brings the embedding to mean 0 over each batch, which
lets L^exp learn where all patients are together and not where rounds are averaged (deploy/guides/benchmarks.md). The
public code's "none" with two views makes equal views, and is refused here.

With `site_probe` the same sums, each site's in a row of its own, give a linear discriminant of the sites: how well a
patient who was not trained on is assigned to the right one is what the OpenBHB score asks (analysis `site-probe`).
Published is a logistic regression; see `site_moments` for why it is none here.

The loss relates all patients of a batch, so that no mechanism bounds what one patient adds: per-patient differential
privacy is refused. Positives are sought within a site's batch; no site needs another's samples.

Shape legend: B patients, V views, (I, J, K) = `shape`, a sample is (1, I, J, K); D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.analyses.exact import MAX_SITES
from fedage.common.analyses.preparation.site_moments import likeliest
from fedage.common.analyses.preparation.table_sums import standardise
from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.estimators.base import (
    AGE_OUTPUT,
    COMPUTED,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Output,
    Phase,
    Predictor,
    Samples,
)
from fedage.common.estimators.head_volumes import VOLUME, HeadVolumeOptions, HeadVolumes
from fedage.common.estimators.ridge import AgeScale, RidgePhase, check_ridge, ridge_arrays, ridge_years, vector
from fedage.common.losses.names import AgeKernel, ContrastiveLoss
from fedage.common.networks.arrays import ModelRefused, state_to_arrays
from fedage.common.networks.names import VolumeEncoder

if TYPE_CHECKING:
    import torch
    from torch import nn

EMBEDDING = "embedding:"
"""Begins the names of columns of the embedding: `embedding:NUMBER`, from 1."""
_LEAST_SIDE = 32
_SCALE = AgeScale("linear")
_RIDGE, _SITES = "ridge.", "sites."


class BrainContrastiveOptions(HeadVolumeOptions):
    """`[estimator.options]` of `brain-contrastive`."""

    encoder: VolumeEncoder = Field(default="resnet18", description="3D network: resnet18 or densenet121")
    width: int = Field(default=64, ge=8, le=64, multiple_of=8, description="channels of its first layer; 64 published")
    dimensions: int = Field(
        default=16,
        ge=2,
        le=512,
        description="of the embedding, 128 published; each needs disclosure.patients_per_column patients at each site",
    )
    centred: bool = Field(
        default=False,
        description="whether each dimension is brought to mean 0 and SD 1 over a batch, so that patients point in all "
        "directions; it helped where all patients are together and not where rounds are averaged",
    )
    loss: ContrastiveLoss = Field(default="exp", description="exp (L^exp), y-aware or threshold")
    keep_positive: bool = Field(
        default=False, description="whether L^exp keeps the positive in its last sum, as the public code does"
    )
    temperature: float = Field(default=0.1, ge=0.01, le=1, description="τ")
    kernel: AgeKernel = Field(default="rbf", description="of the difference of two ages: rbf, gaussian or cauchy")
    kernel_width_years: float = Field(default=2.0, ge=0.1, le=30, description="its width: σ, of cauchy 1/√γ")
    views: Literal[1, 2] = Field(default=2, description="augmented views of a patient in a batch")
    augment: Literal["none", "cutout", "crop", "all"] = Field(
        default="all", description="of each view: a cube set to 0 (cutout), a random part kept in place (crop), or both"
    )
    age_penalty: float = Field(default=1.0, gt=0, le=1e6, description="λ of the ridge regression of age")
    keep_embedding: bool = Field(default=False, description="whether the embedding is kept at the site beside the age")
    site_probe: bool = Field(
        default=False, description="whether it is asked how well the sites of campaign.sites are told from embeddings"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not all(_LEAST_SIDE <= side <= 256 for side in self.shape):
            raise ValueError(f"shape={list(self.shape)} must be three numbers from {_LEAST_SIDE} to 256")
        if self.views == 2 and self.augment == "none":
            raise ValueError('views = 2 with augment = "none" makes equal views; set views = 1, or another augment')
        return self


class BrainContrastive(HeadVolumes):
    """T1-weighted volume to age by a contrastive encoder and a ridge regression; see the module's docstring."""

    name: ClassVar[str] = "brain-contrastive"
    title: ClassVar[str] = "T1-weighted volume of the head, contrastive encoder and ridge regression on its embedding"
    Options: ClassVar[type[BrainContrastiveOptions]] = BrainContrastiveOptions
    usual_training: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {**HeadVolumes.usual_training, "batch_size": 32, "weight_decay": 5e-5}
    )
    prediction_batch: ClassVar[int] = 8

    def __init__(self, options: BrainContrastiveOptions) -> None:
        super().__init__(options)
        self.options: BrainContrastiveOptions = options

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Age, and the likeliest site and the embedding if they are asked for."""
        kept = self._columns(EMBEDDING) if self.options.keep_embedding else ()
        site = (Output(column=LIKELY_SITE, lower=1.0, upper=MAX_SITES),) if self.options.site_probe else ()
        return (AGE_OUTPUT, *site, *(Output(column=name, lower=-1.0, upper=1.0) for name in kept))

    @property
    def encoder(self) -> EncoderPhase:
        """The phase in rounds."""
        return EncoderPhase(self.options)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The encoder, and the age probe: an exact ridge regression on its embedding."""
        names = self._columns(f"{COMPUTED}{EMBEDDING}")
        probe = RidgePhase(
            names,
            lambda result, before, _seed: {
                **before,
                **{_RIDGE + name: array for name, array in ridge_arrays(result).items()},
                **self._site_arrays(result["model"]),
            },
            scale=_SCALE,
            penalty=self.options.age_penalty,
            computed=lambda before, device: self.encoder.embedding(before, names, device=device),
            by_site=self.options.site_probe,
            name="age-probe",
        )
        return (self.encoder, probe)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages, and the likeliest site and the embedding if they are asked for. Raises `ModelRefused`."""
        ridge = {name.removeprefix(_RIDGE): a for name, a in arrays.items() if name.startswith(_RIDGE)}
        check_ridge(ridge, self.options.dimensions)
        names = self._columns(EMBEDDING)
        encoder = {name: a for name, a in arrays.items() if not name.startswith((_RIDGE, _SITES))}
        probe = {name.removeprefix(_SITES): a for name, a in arrays.items() if name.startswith(_SITES)}
        self._check_site_arrays(probe)
        embed = self.encoder.embedding(encoder, names, device=device)

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            columns = embed(samples)
            rows = np.column_stack([columns[name] for name in names])
            kept = columns if self.options.keep_embedding else {}
            site = {}
            if self.options.site_probe:
                z = standardise(rows, ridge["means"], ridge["sds"])
                site = {LIKELY_SITE: likeliest(z, probe["directions"], probe["constants"])}
            return {PREDICTED_YEARS: ridge_years(ridge, rows, _SCALE), **site, **kept}

        return predict

    def _site_arrays(self, model: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        if not self.options.site_probe:
            return {}
        if "site_directions" not in model:
            raise ModelRefused("site_probe needs the sites in campaign.sites")
        return {_SITES + name: vector(model, f"site_{name}") for name in ("directions", "constants")}

    def _check_site_arrays(self, probe: Arrays) -> None:
        names = {"directions", "constants"} if self.options.site_probe else set()
        sites = probe["constants"].size if probe.keys() == names and names else 0
        shapes = {"directions": (sites, self.options.dimensions), "constants": (sites,)}
        if {name: a.shape for name, a in probe.items()} != {name: shapes[name] for name in names} or not all(
            np.isfinite(a).all() for a in probe.values()
        ):
            raise ModelRefused("weights of the site probe are not those of these options; the campaign's differ")

    def _columns(self, before: str) -> tuple[str, ...]:
        return tuple(f"{before}{number}" for number in range(1, self.options.dimensions + 1))


@dataclass(frozen=True)
class EncoderPhase:
    """The encoder with its projection; it predicts no age."""

    options: BrainContrastiveOptions
    name: str = "encoder"
    couples_samples: bool = True
    smallest_batch: int = 8

    def build(self, *, seed: int) -> nn.Module:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.encoders import ProjectedEncoder

        chosen = self.options
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return ProjectedEncoder(
                chosen.encoder, dimensions=chosen.dimensions, width=chosen.width, centred=chosen.centred
            )

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - the first phase
        """The network's arrays before any training."""
        return dict(state_to_arrays(self.build(seed=seed)))

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Views of every patient, each changed by draws of its own, by name."""
        from fedage.common.preprocessing.augmentation import cropped_in_place, with_a_cube_cut_out

        volumes = batch.inputs[VOLUME]
        made = {}
        for number in range(1, self.options.views + 1):
            view = volumes
            if self.options.augment in ("crop", "all"):
                view = cropped_in_place(view, generator=generator)
            if self.options.augment in ("cutout", "all"):
                view = with_a_cube_cut_out(view, generator=generator)
            made[f"view {number}"] = view
        return Batch(made, batch.present, batch.targets)

    def output(self, module: nn.Module, batch: Batch) -> Any:
        """Embeddings (V·B, D) in training, of the views one after another; (B, D) of volumes as they are."""
        import torch

        # All views at once, so that BatchNorm sees one batch.
        return module(torch.cat(list(batch.inputs.values())))

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """The contrastive loss of embeddings (V·B, D) and ages (B,)."""
        from fedage.common.losses import contrastive

        chosen = self.options
        ages = batch.targets["age_years"].repeat(len(output) // len(batch.targets["age_years"]))
        weights = contrastive.age_weights(ages, kernel=chosen.kernel, width_years=chosen.kernel_width_years)
        if chosen.loss == "y-aware":
            return contrastive.y_aware(output, weights, temperature=chosen.temperature)
        if chosen.loss == "threshold":
            return contrastive.threshold(output, weights, temperature=chosen.temperature)
        return contrastive.exponential(
            output, weights, temperature=chosen.temperature, keep_positive=chosen.keep_positive
        )

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor | None:  # noqa: ARG002 - it predicts no age
        """None: ages follow with the probe."""
        return None

    def embedding(self, arrays: Arrays, names: tuple[str, ...], *, device: str) -> Predictor:
        """Coordinates on the unit sphere, as columns of these D names."""
        from torch.nn import functional

        from fedage.common.estimators.predict import network_predictor

        return network_predictor(
            lambda: self.build(seed=0),
            arrays,
            output=self.output,
            columns=lambda z: dict(zip(names, functional.normalize(z.float(), dim=1).unbind(dim=1), strict=True)),
            device=device,
        )
