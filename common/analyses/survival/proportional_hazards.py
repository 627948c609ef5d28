r"""Whether hazards are proportional: a test of each covariate of a Cox model stratified by site, from sums.

A Schoenfeld residual is a death's covariates less their mean over the risk set, s = z − z̄(t). Their sum is the gradient
at the estimate, 0; where a coefficient changes with time, they go with time. Of d deaths, with g a transform of time, V
the inverse of the information, and g̃ = g − ḡ over the deaths, residuals scaled by d V (Grambsch & Therneau 1994, their
variance taken as V/d at every death, as lifelines does) give

    χ²_k = d [V Σ g̃ s]²_k / (V_kk Σ g̃²),   all covariates together d (Σ g̃ s)ᵀ V Σ g̃ s / Σ g̃².

Σ g s, Σ g, Σ g² and the information are sums over deaths, so a site sends nothing of a single one. g of ranks or of the
Kaplan-Meier estimate of all patients together is no such sum, and is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described

from fedage.common.analyses._shown_in_rows import ShownInRows
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, Outcome
from fedage.common.analyses.columns import MAX_OUTCOME, MAX_PATIENTS
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.survival import _newton
from fedage.common.analyses.survival._after_cox import (
    AfterCox,
    models_by_site,
    reduced,
    strata_of,
)
from fedage.common.analyses.survival._cox_contributions import LOWEST_ETA
from fedage.common.analyses.survival._partial_likelihood import unpack
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.follow_up import round_up
from fedage.common.campaign.types import Campaign, Name, Table
from fedage.common.presentation.cells import Cell, count, number, p_value, words
from fedage.common.presentation.wording import listed
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule, largest_shares
from fedage.common.statistics.statistic import Field, FloatArray, Layout, Statistic

NAME = "proportional-hazards"
_AT_THE_ESTIMATE = 1e-3
"""Of a standard error: farther from 0 than this the gradient is that of other sites than the model was fitted on."""
_ALPHA = 0.05
_TRANSFORMS = {"identity": "time", "log1p": "log(1 + time)"}


class Options(Table):
    """Tests whether hazards are proportional (scaled Schoenfeld residuals), of Cox models with by_site = true."""

    models: tuple[Name, ...] = Described(default=(), description="names of the models; none for all of them")
    time_transform: Literal["identity", "log1p"] = Described(
        default="identity", description="of time in years: as it is, or log(1 + time), which early deaths move more"
    )


class CovariateTest(AnalysisResult):
    """One covariate."""

    name: str = Described(description="column")
    chi2: Number = Described(description="χ² with one degree of freedom")
    p: Number = Described(description="its p")
    slope: Number = Described(
        description="by how much the log hazard ratio per unit rises per unit of transformed time"
    )


class HazardsTest(AnalysisResult):
    """One Cox model."""

    model: str = Described(description="its name in the campaign file")
    time_transform: str = Described(description="identity or log1p, of follow-up in years")
    events: int = Described(description="deaths that it rests on")
    covariates: tuple[CovariateTest, ...] = Described(description="in the model's order")
    chi2: Number = Described(description="χ² of all covariates together")
    df: int = Described(description="its degrees of freedom")
    p: Number = Described(description="its p")


@dataclass(frozen=True)
class ProportionalHazards(AfterCox):
    """The test of one model, after the model: two numbers of the deaths' times and one for each covariate more.

    Attack: at other coefficients the residuals are other equations for the same patients. Rule: `MOST_ESTIMATES`; all
    rules of the model's own sums hold at these coefficients too; no patient has more than the largest share of a sum
    over deaths or of the absolute contributions to Σ g s. Residual risk: of each site, Σ g s is one more number a
    covariate beside its gradient, and Σ g and Σ g² are the mean and the spread of its deaths' times.

    Parameters
    ----------
    name
        The registered step.
    model
        The Cox model, after the agreement on its columns where there is one.
    cox
        The model with all its covariates.
    transform
        g, of times rounded up to the model's grid.
    """

    asks: ClassVar[str] = NAME

    _: KW_ONLY
    transform: Literal["identity", "log1p"] = "identity"
    per_site: bool = False

    def layout(self, iterate: Iterate) -> Layout:
        covariates = self._reduced(iterate).covariates
        times, z = MAX_OUTCOME * MAX_PATIENTS, float(_newton.largest_z(covariates, iterate).max())
        return Layout(
            (
                *self.model.layout(iterate).fields,
                Field("g", lower=0.0, upper=times),
                Field("g_squared", lower=0.0, upper=times * MAX_OUTCOME),
                Field("g_residuals", (len(covariates),), lower=-2 * z * times, upper=2 * z * times),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        of_model = self.model.local(cohort, iterate)
        model = self._reduced(iterate)
        patients = model.patients(cohort)
        time, strata = round_up(patients.time, model.time_grid_years), patients.cohort.matrix(model.strata)
        z = _newton.standardised(patients.cohort.matrix(model.covariates), iterate)
        eta = z @ _newton.beta_of(iterate, z.shape[1])
        g = np.log1p(time) if self.transform == "log1p" else time
        residuals = np.zeros(z.shape[1])
        contributions = np.zeros_like(z)
        for rows in strata_of(strata):
            one = (z[rows], time[rows], patients.event[rows], eta[rows], g[rows])
            residuals += _residuals(*one, efron=model.ties == "efron")
            contributions[rows] = _contributions(*one)
        of_deaths = g[patients.event]
        if isinstance(self.model, Agreed):
            _require_spread(of_deaths, contributions, self.model.rule)
        layout = self.layout(iterate)
        values: dict[str, FloatArray | float] = {field.name: of_model[field.name] for field in of_model.layout.fields}
        sums = {"g": of_deaths.sum(), "g_squared": (of_deaths**2).sum(), "g_residuals": residuals}
        return Statistic(layout=layout, vector=layout.flatten({**values, **sums}), smallest=of_model.smallest)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        from scipy import special

        model = self._reduced(iterate)
        deaths, g = total.scalar("events"), total.scalar("g")
        information = unpack(total["information"], len(model.covariates))
        if deaths < 1 or not np.all(np.diag(information) > 0):
            return NotComputable("the sites that answer have too few deaths to tell")
        spread = total.scalar("g_squared") - g**2 / deaths
        if spread <= 1e-12 * total.scalar("g_squared"):
            return NotComputable("all deaths are at one time, so nothing can go with time")
        variance, gradient = np.linalg.inv(information), total["gradient"]
        if float(gradient @ variance @ gradient) > _AT_THE_ESTIMATE**2:
            return NotComputable("a site that the model was fitted with does not answer, so this is not its estimate")
        moved = total["g_residuals"] - g / deaths * gradient
        scaled = variance @ moved
        chi2 = deaths * scaled**2 / (np.diag(variance) * spread)
        overall = float(deaths * moved @ variance @ moved / spread)
        slopes = deaths * scaled / spread / iterate["scale"]
        df = len(model.covariates)
        return Done(
            {
                "model": self.cox.name.partition(":")[2],
                "time_transform": self.transform,
                "events": round(deaths),
                "covariates": [
                    {"name": name, "chi2": float(value), "p": float(special.chdtrc(1, value)), "slope": float(slope)}
                    for name, value, slope in zip(model.covariates, chi2, slopes, strict=True)
                ],
                "chi2": overall,
                "df": df,
                "p": float(special.chdtrc(df, overall)),
            }
        )

    def _reduced(self, iterate: Iterate) -> CoxBySite:
        return reduced(self.cox, self.model, iterate)


def _residuals(
    z: FloatArray, time: FloatArray, event: NDArray[np.bool_], eta: FloatArray, g: FloatArray, *, efron: bool
) -> FloatArray:
    """Σ g s (p,) over the deaths of one stratum; the means at tied deaths as in the model's own gradient."""
    total = np.zeros(z.shape[1])
    if not event.any():
        return total
    z, w = z - z.mean(axis=0), np.exp(np.maximum(eta - eta.max(), LOWEST_ETA))
    order = np.argsort(-time, kind="stable")
    z, time, event, w, g = z[order], time[order], event[order], w[order], g[order]
    at_risk, sums = np.cumsum(w), np.cumsum(w[:, None] * z, axis=0)
    for last in np.flatnonzero(np.append(np.diff(time) != 0, True)):
        tied = np.flatnonzero(event[: last + 1] & (time[: last + 1] == time[last]))
        f = np.arange(tied.size) / max(tied.size, 1) * efron
        means = sums[last] - f[:, None] * (w[tied, None] * z[tied]).sum(axis=0)
        means /= (at_risk[last] - f * w[tied].sum())[:, None]
        total += g[last] * (z[tied].sum(axis=0) - means.sum(axis=0))
    return total


def _contributions(
    z: FloatArray, time: FloatArray, event: NDArray[np.bool_], eta: FloatArray, g: FloatArray
) -> FloatArray:
    """What each patient (n, p) of one stratum adds to Σ g s, as a score residual: of the own death, and of others'.

    Ties as Breslow's, which is enough to see who dominates (`_cox_contributions`).
    """
    z, w = z - z.mean(axis=0), np.exp(np.maximum(eta - eta.max(initial=0.0), LOWEST_ETA))
    distinct, when = np.unique(time, return_inverse=True)
    size = distinct.size
    s0 = np.cumsum(np.bincount(when, weights=w, minlength=size)[::-1])[::-1]
    sums = np.stack([np.bincount(when, weights=w * column, minlength=size) for column in z.T], axis=1)
    mean = np.cumsum(sums[::-1], axis=0)[::-1] / s0[:, None]
    rate = np.bincount(when, weights=event * g, minlength=size) / s0
    others: FloatArray = w[:, None] * (np.cumsum(rate)[when, None] * z - np.cumsum(rate[:, None] * mean, axis=0)[when])
    own: FloatArray = np.where(event[:, None], g[:, None] * (z - mean[when]), 0.0)
    own -= others
    return own


def _require_spread(of_deaths: FloatArray, contributions: FloatArray, rule: InfluenceRule) -> None:
    """Refuse sums of which one patient makes up too much; see `ProportionalHazards`."""
    g, ones = of_deaths[:, None], np.ones((len(contributions), 1))
    shares = (
        largest_shares(g, np.ones_like(g), limit=rule.largest_share),
        largest_shares(g, g, limit=rule.largest_share),
        largest_shares(contributions, ones, limit=rule.largest_share),
    )
    if any(share.any() for share in shares):
        raise InfluenceRefused("one patient would make up too much of the sums over deaths and their times")


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:
    options = campaign.analyses.options(NAME, Options)
    for model, cox in models_by_site(campaign, steps, options.models):
        name = f"{NAME}:{cox.name.partition(':')[2]}"
        yield Step(ProportionalHazards(name, model, cox, transform=options.time_transform), needs=(model.name,))


def _words(step: str) -> str:
    return f"the test of proportional hazards in the Cox model {step.partition(':')[2]}"


def _asked(campaign: Campaign) -> Iterator[str]:
    options = campaign.analyses.options(NAME, Options)
    yield (
        "It tests whether effects change with follow-up: for Cox models with sites apart your site also sends the sum "
        f"and the sum of squares of {_TRANSFORMS[options.time_transform]} over those with an event, and for each "
        "covariate the sum of its differences from the mean of those at risk, times that."
    )


def _sentence(test: HazardsTest) -> str:
    doubtful = [f"{item.name} (p {_p(item.p)})" for item in test.covariates if item.p is not None and item.p < _ALPHA]
    about = f"Proportional hazards in the Cox model {test.model} ({test.events} events): "
    if doubtful:
        return (
            f"{about}the effect of {listed(doubtful)} changes with {_TRANSFORMS[test.time_transform]}, so that one "
            "hazard ratio for all of the follow-up is an average."
        )
    if test.p is not None and test.p < _ALPHA:
        return f"{about}no single effect changes with time, but together they do (p {_p(test.p)})."
    return f"{about}no effect is seen to change with {_TRANSFORMS[test.time_transform]} (together p {_p(test.p)})."


def _p(p: float | None) -> str:
    return "unknown" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _slope(value: float | None) -> Cell:
    """With as many digits as it needs: per mm³ it is far below 0.0001."""
    digits = _SLOPE_DIGITS if not value else max(_SLOPE_DIGITS, 1 - math.floor(math.log10(abs(value))))
    return number(value, min(digits, _MOST_SLOPE_DIGITS))


_SLOPE_DIGITS, _MOST_SLOPE_DIGITS = 4, 12
_CAPTION = "Proportional hazards (scaled Schoenfeld residuals)"
_HEADERS = ("model", "covariate", "χ²", "df", "p", "log hazard ratio per unit of time")


def _rows(test: HazardsTest) -> Iterator[tuple[Cell, ...]]:
    for item in test.covariates:
        yield (
            words(test.model),
            words(item.name),
            number(item.chi2, 3),
            count(1),
            p_value(item.p),
            _slope(item.slope),
        )
    if test.df > 1:
        yield (words(test.model), words("all together"), number(test.chi2, 3), count(test.df), p_value(test.p))


_NOTE = (
    "A small p says that an effect changes with follow-up, not how much it matters: read it beside the last column, by "
    "how much the log hazard ratio rises per unit of (transformed) time. A test of each covariate is a test more."
)
_SHOWN = ShownInRows(
    name=NAME,
    result=HazardsTest,
    words=_words,
    rows=_rows,
    headers=_HEADERS,
    title="Proportional hazards",
    caption=_CAPTION,
    note=_NOTE,
    sentence=_sentence,
    place=60,
)
ANALYSIS = Definition(
    name=NAME,
    result=HazardsTest,
    steps=_steps,
    words=_words,
    builds_on=("cox",),
    options=Options,
    needs_in_words="it tests [[survival.models]] with by_site = true, of the names in `models` if there are any",
    asked=_asked,
    shown=_SHOWN.shown,
    compared=_SHOWN.compared,
    place=60,
)
