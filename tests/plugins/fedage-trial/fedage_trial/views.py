"""`trial-views`: age from up to four mammographic views, of which any may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedage.common.estimators.base import (
    Arrays,
    Batch,
    Estimator,
    Input,
    Options,
    Phase,
    Predictor,
)
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused
from fedage_trial.phases import AgePhase

if TYPE_CHECKING:
    import torch

SIZE = 16
VIEWS = {f"{side}-{view}": (side, view) for view in ("CC", "MLO") for side in ("L", "R")}


class ViewsOptions(Options):
    """None."""


@dataclass(frozen=True)
class ViewsPhase(AgePhase):
    """The network."""

    name: str = "views"

    def network(self) -> torch.nn.Module:
        from fedage_trial.networks import ViewsNetwork

        return ViewsNetwork()

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        return module(batch.inputs, batch.present)


class FourViews(Estimator):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-views"
    title: ClassVar[str] = "Mammography, four views"
    Options: ClassVar[type[Options]] = ViewsOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 20.0
    max_path_norm: ClassVar[float] = 100.0
    inputs: tuple[Input, ...] = tuple(
        Input(
            name=name,
            rank=2,
            modalities=("MG",),
            takes=Takes(views=(view,), lateralities=(side,), may_be_unknown=frozenset(["intent"])),
            optional=True,
        )
        for name, (side, view) in VIEWS.items()
    )

    def __init__(self, options: ViewsOptions) -> None:
        self.options: ViewsOptions = options

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (ViewsPhase(),)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return dict.fromkeys(VIEWS, (1, SIZE, SIZE))

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        if not any(name.endswith("CC") and name in exam for name in VIEWS):
            raise SampleRefused("no-craniocaudal-view", "an exam needs one at least")
        return {name: small(exam[name].pixels) for name in VIEWS if name in exam}

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        return ViewsPhase().predictor(arrays, device=device)


def small(pixels: FloatImage) -> FloatImage:
    """(1, S, S): means of blocks, of mean 0 and SD 1."""
    rows, columns = (length // SIZE for length in pixels.shape)
    if min(rows, columns) < 1:
        raise SampleRefused("too-small", f"at least {SIZE} pixels a side are needed")
    blocks = pixels[: rows * SIZE, : columns * SIZE].reshape(SIZE, rows, SIZE, columns).mean(axis=(1, 3))
    return np.asarray(((blocks - blocks.mean()) / max(float(blocks.std()), 1e-6))[None], dtype=np.float32)
