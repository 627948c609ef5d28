"""What analyses share that ask something of a Cox model stratified by site, at its estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.base import Analysis, Iterate, IterateRefused, Result
from fedage.common.analyses.columns_read import ColumnsRead, columns_read_by
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.campaign.types import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

MOST_ESTIMATES = 5
"""Different β that a site answers for one model of the same patients: a run has one, or one more if a site leaves."""


def models_by_site(
    campaign: Campaign, steps: Mapping[str, Analysis], names: tuple[str, ...]
) -> Iterator[tuple[Analysis, CoxBySite]]:
    """The file's models stratified by site, of these names or all of them: as a step, and with all its covariates."""
    for model in campaign.survival.models if campaign.survival is not None else ():
        step = steps.get(f"cox:{model.name}")
        cox = step.analysis if isinstance(step, Agreed) else step
        if step is not None and isinstance(cox, CoxBySite) and (not names or model.name in names):
            yield step, cox


@dataclass(frozen=True)
class AfterCox:
    """What every question to a Cox model at its estimate is; the subclass says what is asked.

    Parameters
    ----------
    name
        The registered step.
    model
        The Cox model, after the agreement on its columns where there is one.
    cox
        The model with all its covariates.
    """

    asks: ClassVar[str]
    """The analysis's name: its account is one of its own for the model, whatever a file calls that."""

    name: str
    model: Analysis
    cox: CoxBySite

    @property
    def subset(self) -> str | None:
        return self.cox.subset

    @property
    def preceding(self) -> Analysis:
        return self.model

    @property
    def account(self) -> str:
        return f"{self.asks} {self.cox.account}"

    @property
    def rounding(self) -> tuple[str, float]:
        return self.cox.rounding

    def counted(self, iterate: Iterate) -> tuple[str, int]:  # noqa: ARG002 - the same for all
        return "estimates", MOST_ESTIMATES

    def begin(self, result: Result) -> Iterate:
        return estimate_of(self.cox, self.model, result)

    def first(self) -> Iterate:
        raise RuntimeError(f"{self.name} begins with the result of {self.model.name}")

    def check(self, iterate: Iterate) -> None:
        require_estimate(self.model, iterate)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:
        return columns_read_by(self.model, cohort, iterate)


def strata_of(strata: FloatArray) -> Iterator[NDArray[np.intp]]:
    """The rows of each stratum of a site's patients (n, k)."""
    if len(strata):
        number = np.unique(strata, axis=0, return_inverse=True)[1].ravel() if strata.shape[1] else np.zeros(len(strata))
        for one in np.unique(number):
            yield np.flatnonzero(number == one)


def estimate_of(cox: CoxBySite, model: Analysis, result: Result) -> Iterate:
    """The iterate of a model at its estimate, in the units in which the sites were asked for it."""
    covariates = result["covariates"]
    scale = np.array([covariate["sd"] for covariate in covariates])
    beta = np.array([covariate["coef"] for covariate in covariates]) * scale
    zero = np.asarray(0.0)
    iterate = {"beta": beta, "last_beta": beta, "centre": np.zeros_like(beta), "scale": scale}
    iterate |= {"last_log_likelihood": zero, "null_log_likelihood": zero, "exchange": np.asarray(2.0)}
    if isinstance(model, Agreed):
        kept = {covariate["name"] for covariate in covariates}
        iterate[COLUMNS] = np.array([float(name in kept) for name in cox.covariates])
    return iterate


def require_estimate(model: Analysis, iterate: Iterate) -> None:
    """Raise `IterateRefused` unless the iterate holds coefficients that the model allows."""
    model.check(iterate)
    if "beta" not in iterate:
        raise IterateRefused("the iterate must bring the coefficients of the model: this comes after it")


def reduced(cox: CoxBySite, model: Analysis, iterate: Iterate) -> CoxBySite:
    """The model with the covariates that the sites agreed on."""
    return cox.reduced((np.asarray(iterate[COLUMNS]) == 1).tolist()) if isinstance(model, Agreed) else cox
