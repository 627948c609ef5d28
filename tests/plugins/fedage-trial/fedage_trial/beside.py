"""`trial-beside`: age from a small radiograph, sex and a clinical value beside it, then an exact ridge regression.

The row is (p,): the clinical columns, and sex at the end; NaN where a value is not known. Legend: B patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedage.common.estimators.base import (
    COMPUTED,
    PREDICTED_YEARS,
    ROW,
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
from fedage.common.estimators.table import FEATURE
from fedage.common.preprocessing.image import Exam, FloatImage
from fedage_trial.phases import AgePhase, ridge_and_network, with_ridge
from fedage_trial.views import SIZE, small

if TYPE_CHECKING:
    import torch

SCALE = AgeScale("linear")
_NETWORK_YEARS = f"{COMPUTED}network years"


class BesideOptions(Options):
    """`[estimator.options]`."""

    clinical: tuple[str, ...] = Field(default=(), strict=False, description="columns of the sites' outcomes")
    sex_input: bool = Field(default=False, description="whether sex is an input too")
    may_lack: bool = Field(default=False, description="whether a patient may lack any of these")
    exact: bool = Field(default=False, description="whether a ridge regression on age by the network and them follows")


@dataclass(frozen=True)
class BesidePhase(AgePhase):
    """The network."""

    columns: int
    name: str = "network"

    def network(self) -> torch.nn.Module:
        from fedage_trial.networks import BesideNetwork

        return BesideNetwork(SIZE, self.columns)

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        return module(batch.inputs["chest"], batch.inputs.get(ROW))


class Beside(Estimator):
    """See the module's docstring."""

    name: ClassVar[str] = "trial-beside"
    title: ClassVar[str] = "Chest radiograph with sex and clinical values"
    Options: ClassVar[type[Options]] = BesideOptions
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 20.0
    max_path_norm: ClassVar[float] = 100.0
    inputs: tuple[Input, ...] = (Input(name="chest", rank=2, modalities=("CR", "DX")),)

    def __init__(self, options: BesideOptions) -> None:
        self.options: BesideOptions = options
        if self.row_columns:
            self.inputs = (*type(self).inputs, Input(name=ROW, rank=1, optional=options.may_lack))

    @property
    def row_columns(self) -> tuple[str, ...]:
        sex = ("is_male",) if self.options.sex_input else ()
        return (*(FEATURE + name for name in self.options.clinical), *sex)

    @property
    def network(self) -> BesidePhase:
        return BesidePhase(len(self.row_columns))

    @property
    def phases(self) -> tuple[Phase, ...]:
        if not self.options.exact:
            return (self.network,)
        ridge = RidgePhase(
            (_NETWORK_YEARS, *self.row_columns),
            with_ridge,
            scale=SCALE,
            penalty=1.0,
            computed=lambda before, device: self.network.named(before, _NETWORK_YEARS, device=device),
            name="ridge-beside",
        )
        return (self.network, ridge)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        row = {ROW: (len(self.row_columns),)} if self.row_columns else {}
        return {"chest": (1, SIZE, SIZE)} | row

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        return {"chest": small(exam["chest"].pixels)}

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        if not self.options.exact:
            return self.network.predictor(arrays, device=device)
        ridge, network = ridge_and_network(arrays)
        check_ridge(ridge, 1 + len(self.row_columns))
        aged = self.network.named(network, _NETWORK_YEARS, device=device)

        def predict(samples: Samples) -> dict[str, NDArray[np.float64]]:
            own = np.asarray(aged(samples)[_NETWORK_YEARS])[:, None]
            rows = np.column_stack([own, samples[ROW]]) if self.row_columns else own
            return {PREDICTED_YEARS: ridge_years(ridge, rows, SCALE)}

        return predict
