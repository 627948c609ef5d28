"""`breast-4view`: age from a mammography exam of four views, after Mammo-AGE (Nature Communications 2025).

One backbone sees every view. The *exam path* joins the pooled views (4C) and predicts age, and density beside it; the
*local path* lets the positions of each view look at each other and at the exam's map, and predicts an age for each
view. Every embedding is a Gaussian; its mean is what is predicted from. The age of an exam is the mean over its views
of Σ p·c over whole years c, or the exam head's where the local path is off. Loss of each head: cross-entropy,
mean-variance, KL and triplet; see `fedage.common.losses`. Each part can be left out by an option.

Our own where the sources say nothing, or where what they do cannot be done here:

* a missing view: see `fedage.common.networks.four_views`. A view's losses are summed over the views that are there and
  divided by the exams; its head's normalisation sees all of them together.
* flips are off, as preprocessing puts every chest wall on the left; the published ones are an option.
* the triplet loss is smooth, as a hinge bends at patients, and only the mean of an embedding is used to predict (the
  authors' code draws there too).
* the input is 512 × 256 by default, where the paper has 1024 × 512.

BatchNorm, as published, is the default in a federation too, its running means and variances averaged as the weights
are: GroupNorm, which differential privacy needs, learns more slowly on phantoms (deploy/guides/benchmarks.md).

Shape legend: B exams in a batch; a sample is up to four arrays (1, H, W). Ages Ω in years.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedage.common.estimators.base import (
    AGE,
    PREDICTED_YEARS,
    Arrays,
    Batch,
    Estimator,
    Input,
    Options,
    Output,
    Phase,
    Predictor,
    Target,
)
from fedage.common.estimators.takes import Takes
from fedage.common.networks.arrays import check_arrays, state_to_arrays
from fedage.common.networks.names import Backbone, Norm
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused

if TYPE_CHECKING:
    import torch

    from fedage.common.networks.four_views import FourViews, Parts

VIEWS = {f"{side}-{view}": (side, view) for view in ("CC", "MLO") for side in ("L", "R")}
"""L-CC, R-CC, L-MLO, R-MLO, the paper's order; by name the side and the view."""
DENSITY_CODES = (1.0, 2.0, 3.0, 4.0)
"""ACR A to D in the column of densities."""
_SEED, _BACKBONE = "random seed", "backbone.network."
_WIDE = ("resnet18", "resnet50")


class Breast4ViewOptions(Options):
    """`[estimator.options]` of `breast-4view`."""

    backbone: Backbone = Field(default="resnet18", description="the network that sees each view")
    weights_sha256: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        max_length=64,
        description="digest of the file of published weights that the backbone begins with, as fedage campaign weights "
        "prints it; empty for random ones",
    )
    norm: Norm = Field(default="batch", description="normalisation: batch (published), or group (for privacy)")
    width: int = Field(
        default=64, ge=8, le=128, multiple_of=8, description="channels of a ResNet's first stage; 64 is the published"
    )
    image_height: int = Field(default=512, ge=64, le=2048, multiple_of=32, description="rows of a sample")
    image_width: int = Field(default=256, ge=32, le=1024, multiple_of=32, description="columns of a sample")
    age_min_years: int = Field(default=0, ge=0, le=120, description="first whole year of the age head")
    age_max_years: int = Field(default=99, ge=1, le=130, description="last whole year of the age head")
    views_needed: int = Field(default=2, ge=1, le=4, description="an exam with fewer views is set aside")
    exam_path: bool = Field(default=True, description="an age head on the four views together")
    local_path: bool = Field(default=True, description="attention and an age head for each view, which then predict")
    local_channels: int = Field(default=128, ge=8, le=512, multiple_of=8, description="channels of the local path")
    local_blocks: int = Field(default=10, ge=1, le=20, description="attention blocks of the local path")
    draws: int = Field(
        default=50, ge=0, le=200, description="draws of a Gaussian embedding in training; 0: no Gaussian"
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="part of values dropped in heads and in attention")
    cross_entropy: float = Field(default=1.0, ge=0, le=100, description="weight of the cross-entropy of whole years")
    mean: float = Field(default=0.2, ge=0, le=100, description="weight of half the squared error of the mean age")
    variance: float = Field(default=0.05, ge=0, le=100, description="weight of the variance of the predicted years")
    kl: float = Field(default=1e-5, ge=0, le=100, description="weight of the embeddings' distance to a standard normal")
    triplet: float = Field(default=1e-4, ge=0, le=100, description="weight of the order of embeddings by age")
    triplet_margin: float = Field(default=5.0, ge=0, le=1000, description="by how much the nearer in age is nearer")
    triplet_form: Literal["smooth", "hinge"] = Field(
        default="smooth", description="hinge is the published; it needs privacy.minimum_count = 1, as it bends"
    )
    density: float = Field(default=0.2, ge=0, le=100, description="weight of the density loss; 0: no density head")
    density_column: str = Field(
        default="density",
        min_length=1,
        max_length=200,
        description="outcome column with ACR density, 1 to 4 for A to D",
    )
    augment: bool = Field(default=True, description="random shifts, rotation, zoom, contrast, noise and holes")
    flips: bool = Field(default=False, description="random mirroring in both directions, as published")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.age_max_years <= self.age_min_years:
            raise ValueError(f"age_max_years={self.age_max_years} must be above age_min_years={self.age_min_years}")
        if not (self.exam_path or self.local_path):
            raise ValueError("exam_path and local_path are both off, so that nothing predicts age; leave one on")
        if not (self.cross_entropy or self.mean):
            raise ValueError("cross_entropy and mean are both 0, so that age is not learnt; give one a weight")
        if self.width != 64 and self.backbone not in _WIDE:
            raise ValueError(
                f"width={self.width} is for {' and '.join(_WIDE)}; {self.backbone} has one width, leave 64"
            )
        for key in ("kl", "triplet"):
            if not self.draws and getattr(self, key) and key in self.model_fields_set:
                raise ValueError(f"{key} needs a Gaussian embedding, and draws = 0 makes none; remove one of them")
        if self.flips and not self.augment:
            raise ValueError("flips = true has no effect with augment = false; remove one of them")
        return self

    @property
    def uses_triplet(self) -> bool:
        """Whether the loss compares patients of a batch."""
        return self.triplet > 0 and self.draws > 0


def _input(name: str) -> Input:
    side, view = VIEWS[name]
    # Raw images have other grey values than those a reader sees. Archives that state no intent hold the latter.
    takes = Takes(
        views=(view,),
        body_parts=("BREAST",),
        intents=("PRESENTATION",),
        lateralities=(side,),
        may_be_unknown=frozenset(["body_part", "intent"]),
    )
    return Input(name=name, rank=2, modalities=("MG",), takes=takes, optional=True)


class Breast4View(Estimator):
    """Four mammograms to age; see the module's docstring."""

    name: ClassVar[str] = "breast-4view"
    title: ClassVar[str] = "Mammography, four views, global and local paths (Mammo-AGE)"
    Options: ClassVar[type[Options]] = Breast4ViewOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 50.0
    max_path_norm: ClassVar[float] = 200.0
    # The rate is the paper's; on phantoms three times as much learns faster (deploy/guides/benchmarks.md).
    usual_training: ClassVar[Mapping[str, Any]] = MappingProxyType({
        "rounds": 30, "local_epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "final_learning_rate_fraction": 0.05,
        "weight_decay": 0.01,
    })  # fmt: skip
    prediction_batch: ClassVar[int] = 16
    inputs: tuple[Input, ...] = tuple(_input(name) for name in VIEWS)

    def __init__(self, options: Breast4ViewOptions) -> None:
        self.options: Breast4ViewOptions = options
        density = Target(column=options.density_column, optional=True, values=DENSITY_CODES)
        self.targets = (AGE, density) if options.density else (AGE,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Predicted age, within the years of the head."""
        low, high = self.ages_years
        return (Output(column=PREDICTED_YEARS, lower=low, upper=high),)

    @property
    def ages_years(self) -> tuple[float, float]:
        """The first and the last year of the head."""
        return float(self.options.age_min_years), float(self.options.age_max_years)

    @property
    def given_sha256(self) -> str:
        """Of the backbone's published weights."""
        return self.options.weights_sha256

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One phase in rounds."""
        return (self.network,)

    @property
    def kinked_loss(self) -> str:
        """A hinge bends, see `KinkedLoss`."""
        hinged = self.options.uses_triplet and self.options.triplet_form == "hinge"
        return 'triplet_form = "hinge"' if hinged else ""

    @property
    def network(self) -> NetworkPhase:
        """The phase."""
        return NetworkPhase(self.options)

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted ages by the network."""
        return self.network.predictor(arrays, device=device)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Four images (1, H, W)."""
        return dict.fromkeys(VIEWS, (1, self.options.image_height, self.options.image_width))

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        """The views that are there, see `breast_sample`. Raises `SampleRefused`."""
        from fedage.common.preprocessing.mammogram import breast_sample

        there = [name for name in VIEWS if name in exam]
        if len(there) < self.options.views_needed:
            raise SampleRefused(
                "too-few-views",
                f"the exam has {', '.join(there) or 'no view'}, {self.options.views_needed} views are needed",
            )
        shape = (self.options.image_height, self.options.image_width)
        made = {}
        for name in there:
            try:
                made[name] = breast_sample(exam[name], shape=shape)
            except SampleRefused as refused:
                raise SampleRefused(refused.code, str(refused).partition(": ")[2], input=name) from None
        return made


@dataclass(frozen=True)
class NetworkPhase:
    """The network; its loss relates the patients of a batch to each other where the triplet loss has a weight."""

    options: Breast4ViewOptions
    name: str = "network"

    @property
    def couples_samples(self) -> bool:
        """By the triplet loss; that BatchNorm does so too is asked of the network."""
        return self.options.uses_triplet

    @property
    def smallest_batch(self) -> int:
        """Three patients make a triplet; BatchNorm needs two."""
        return 3 if self.options.uses_triplet else 2 if self.options.norm == "batch" else 1

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network's arrays before any training; the backbone's are those given, if any are.

        Raises `ModelRefused` if the given ones are not a backbone's.
        """
        arrays = dict(state_to_arrays(self.build(seed=seed)))
        if not self.options.weights_sha256:
            return arrays
        own = {name: array.shape for name, array in arrays.items() if name.startswith(_BACKBONE)}
        check_arrays({_BACKBONE + name: array for name, array in before.items()}, own)
        return {**arrays, **{_BACKBONE + name: np.asarray(array, np.float32) for name, array in before.items()}}

    def build(self, *, seed: int) -> FourViews:
        """The network, initialised from `seed` alone; the global random state is as before."""
        import torch

        from fedage.common.networks.four_views import FourViews

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return FourViews(self._parts())

    def _parts(self) -> Parts:
        from fedage.common.networks.four_views import Parts

        options = self.options
        return Parts(
            norm=options.norm,
            backbone=options.backbone,
            width=options.width,
            ages=options.age_max_years - options.age_min_years + 1,
            draws=options.draws,
            exam=options.exam_path,
            local=options.local_path,
            density=options.density > 0,
            channels=options.local_channels,
            blocks=options.local_blocks,
            dropout=options.dropout,
        )

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Each view changed by draws of its own; with seeds (B,) for what the network draws.

        A part of the batch is drawn for by the seed of its first exam, so that an exam alone is by its own.
        """
        import torch

        views = dict(batch.inputs)
        if self.options.augment:
            from fedage.common.preprocessing.mammogram_changes import changed

            for name in VIEWS:
                views[name] = changed(views[name], flips=self.options.flips, generator=generator)
        views[_SEED] = torch.randint(
            2**62, (len(batch.targets["age_years"]),), generator=generator, device=generator.device
        )
        return Batch(views, batch.present, batch.targets)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        """See `FourViews.forward`; drawn from the batch's seed in training, without draws else."""
        import torch

        views, present = ([found[name] for name in VIEWS] for found in (batch.inputs, batch.present))
        generator = None
        if _SEED in batch.inputs:
            generator = torch.Generator(views[0].device).manual_seed(int(batch.inputs[_SEED][0]))
        return module(views, present, generator=generator)

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Of all heads, the mean over exams."""
        import torch
        from torch.nn import functional

        options, age_years = self.options, batch.targets["age_years"]
        total = torch.zeros((), device=age_years.device)
        if options.exam_path:
            total = total + self._head_loss(output, "exam", age_years).mean()
            total = total + self._order_loss(output, "exam", age_years)
        if options.local_path:
            exam, view = output["local exam"].long(), output["local view"].long()
            each = self._head_loss(output, "local", age_years[exam])
            total = total + each.sum() / len(age_years)
            for number in range(len(VIEWS)):
                rows = (view == number).nonzero(as_tuple=True)[0]
                total = total + self._order_loss(output, "local", age_years[exam[rows]], rows=rows)
        if options.density:
            code = batch.targets[options.density_column]
            known = torch.isfinite(code)
            if known.any():
                label = code[known].round().long() - 1
                total = total + options.density * functional.cross_entropy(output["density"][known], label)
        return total

    def _head_loss(self, output: Mapping[str, torch.Tensor], head: str, age_years: torch.Tensor) -> torch.Tensor:
        from fedage.common.losses.age_classes import age_class_loss
        from fedage.common.losses.ordinal_embedding import kl_to_standard

        options = self.options
        each = age_class_loss(
            output[f"{head} logits"],
            age_years,
            first_years=options.age_min_years,
            cross_entropy=options.cross_entropy,
            mean=options.mean,
            variance=options.variance,
        )
        if options.kl and options.draws:
            each = each + options.kl * kl_to_standard(output[f"{head} mean"], output[f"{head} log_variance"])
        return each

    def _order_loss(
        self,
        output: Mapping[str, torch.Tensor],
        head: str,
        age_years: torch.Tensor,
        *,
        rows: torch.Tensor | slice = slice(None),
    ) -> torch.Tensor | float:
        from fedage.common.losses.ordinal_embedding import order_loss

        options = self.options
        if not options.uses_triplet:
            return 0.0
        mean, log_variance = (output[f"{head} {name}"][rows] for name in ("mean", "log_variance"))
        return options.triplet * order_loss(
            mean, log_variance, age_years, margin=options.triplet_margin, kind=options.triplet_form
        )

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

    def age_years(self, output: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Ages (B,): the mean over an exam's views, or the exam head's."""
        from fedage.common.losses.age_classes import expected_age_years

        first = float(self.options.age_min_years)
        if not self.options.local_path:
            return expected_age_years(output["exam logits"][0], first_years=first)
        exam = output["local exam"].long()
        each = expected_age_years(output["local logits"][0], first_years=first)
        views = output["local views"]
        return each.new_zeros(len(views)).index_add(0, exam, each) / views
