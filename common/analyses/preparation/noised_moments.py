"""A ridge regression with privacy for each patient: second moments of bounded rows, with noise, in one exchange.

A patient's row is v = (1, z, t): features z and age t standardised by ranges that the campaign file states, 0 for a
missing value, so that no patient is summed for it. Rows are cut to the L2 norm C: w = min(1, C / ‖v‖). A site sends the
upper triangle of S = Σ w² v vᵀ / C², √2 times what is off the diagonal, so that its L2 norm is the Frobenius norm of S.
One patient more or less moves it by ‖w v‖² / C² ≤ 1, so normal noise of SD σ on each value is the Gaussian mechanism
with the noise multiplier σ (Dwork & Roth 2014, theorem A.1; the moments of AdaSSP, Wang 2018, arXiv 1803.02596).

The solution is post-processing. S is a sum over K sites, so noise of it has SD σ √(K / 2) off the diagonal, and as a
symmetric matrix of p columns a largest eigenvalue of about 2 σ √(K p / 2). "auto" takes that as the penalty, on S: what
lies below it cannot be told from noise.

Attack: sums of rows of few patients are their records. Rule: the noise, which follows from the site's secret, and a
bound of each row that follows from the file. Residual risk: what (ε, δ) leaves; which sites answered.

Legend: n patients, p features, K sites, a the intercept, β coefficients on z.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np

from fedage.common.analyses.base import Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns_read import ROW, ColumnsRead
from fedage.common.analyses.exact import within_bounds
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import MAX_PATIENTS, Cell, Field, FloatArray, Layout, Statistic

NAME = "noised-moments"
MOMENTS, SITES = "moments", "sites"
MAX_FEATURES = 2000
_LARGEST = 1e100
"""Of a value in SDs, so that its square is a number."""
_MOST = MAX_PATIENTS / 2
"""Bound of a value: not so much a patient, as noise is there without any."""


@dataclass(frozen=True)
class NoisedMoments(OneExchange):
    """Coefficients of a ridge regression of age from moments with noise.

    Result: `penalty` (on Σ w² v vᵀ), `penalty_from` ("campaign", "noise"), `sites`, `noise_multiplier`, `clip_norm`,
    and `model`: `medians`, `means`, `sds`, `coefficients` (p,) and `intercept`, on the scale of age.

    Parameters
    ----------
    columns
        The cohort's columns of features, in the model's order.
    middles, sds
        What they are standardised by, (p,).
    age_middle, age_sd
        The same of age on its scale.
    clip_norm
        C, the L2 norm that a row is cut to.
    noise_multiplier
        σ of the noise that a site adds; 0 for none, where the analysis is only looked at.
    penalty
        λ on Σ w² v vᵀ, or "auto": from the noise.
    """

    columns: tuple[str, ...]
    _: KW_ONLY
    middles: tuple[float, ...]
    sds: tuple[float, ...]
    age_middle: float
    age_sd: float
    clip_norm: float
    noise_multiplier: float
    scale: AgeScale
    penalty: float | Literal["auto"] = "auto"
    subset: str = "is_train"
    healthy_only: bool = False
    name: str = NAME
    per_site: bool = False

    noised_block = MOMENTS
    """The block of the statistic that a site adds noise to."""

    def __post_init__(self) -> None:
        if len(self.columns) > MAX_FEATURES:
            raise ValueError(
                f"{len(self.columns)} features are too many for a ridge regression, which sends their products; "
                f"allowed are {MAX_FEATURES}: name fewer in estimator.options.features"
            )

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - the same for all
        size = len(self.columns) + 2
        return Layout(
            (
                Field(MOMENTS, (size * (size + 1) // 2,), lower=-_MOST, upper=_MOST),
                Field(SITES, lower=0.0, upper=1.0, whole=True),
            )
        )

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002
        """None to keep account of: by no column do sums leave without noise."""
        return ColumnsRead(rows=cohort[ROW].astype(np.intp), needed=(), leave=())

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        chosen = (cohort[self.subset] == 1) & self.scale.usable(cohort["age_years"])
        if self.healthy_only:
            chosen &= cohort["healthy"] == 1
        rows = self._rows(cohort, chosen)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.maximum(norm, self.clip_norm)
        size = rows.shape[1]
        twice = np.where(np.eye(size, dtype=np.bool_), 1.0, math.sqrt(2.0))
        moments = (rows.T @ rows * twice)[np.triu_indices(size)]
        layout, cells = self.layout(iterate), (Cell(int(np.count_nonzero(chosen)), "training patients"),)
        return Statistic.of(layout, {MOMENTS: moments, SITES: 1.0}, cells)

    def check_total(self, vector: FloatArray, iterate: Iterate) -> Statistic:
        return within_bounds(self.layout(iterate), vector)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002
        moments, sites = self._matrix(total), total.scalar(SITES)
        n = float(moments[0, 0])
        noise = self.noise_multiplier * math.sqrt(sites)
        if not n > max(2 * noise, np.finfo(np.float64).tiny):
            return NotComputable(
                "the noise outweighs the patients: their number cannot be told from nothing; a larger ε or "
                "noise_multiplier, more patients a site, or a larger privacy.clip_norm is needed"
            )
        p = len(self.columns)
        penalty = noise * math.sqrt(2 * p) if self.penalty == "auto" else self.penalty / self.clip_norm**2
        middle = moments[0] / n  # of (1, z, t)
        inner = moments - n * np.outer(middle, middle)
        values, vectors = np.linalg.eigh(inner[1:-1, 1:-1])
        # A matrix of moments has no negative eigenvalue; by noise this one may.
        kept = np.maximum(values, 0.0) + penalty
        turned = vectors.T @ inner[1:-1, -1]
        beta = vectors @ np.divide(turned, kept, out=np.zeros(p), where=kept > 1e-12 * n)
        return Done(
            {
                "penalty": penalty * self.clip_norm**2,
                "penalty_from": "noise" if self.penalty == "auto" else "campaign",
                "sites": round(sites),
                "noise_multiplier": self.noise_multiplier,
                "clip_norm": self.clip_norm,
                "model": {
                    "medians": list(self.middles),
                    "means": list(self.middles),
                    "sds": list(self.sds),
                    "coefficients": (self.age_sd * beta).tolist(),
                    "intercept": self.age_middle + self.age_sd * float(middle[-1] - middle[1:-1] @ beta),
                },
            }
        )

    def _rows(self, cohort: Cohort, chosen: FloatArray) -> FloatArray:
        """V (n, p + 2) of the patients chosen."""
        n = int(np.count_nonzero(chosen))
        rows = np.ones((n, len(self.columns) + 2))
        for place, name in enumerate(self.columns):
            z = (cohort[name][chosen] - self.middles[place]) / self.sds[place]
            rows[:, place + 1] = np.clip(np.where(np.isfinite(z), z, 0.0), -_LARGEST, _LARGEST)
        rows[:, -1] = (self.scale.from_years(cohort["age_years"][chosen]) - self.age_middle) / self.age_sd
        return rows

    def _matrix(self, total: Statistic) -> FloatArray:
        """S (p + 2, p + 2)."""
        size = len(self.columns) + 2
        upper = np.zeros((size, size))
        upper[np.triu_indices(size)] = total[MOMENTS]
        off = np.triu(upper, 1) / math.sqrt(2.0)
        made: FloatArray = np.diag(np.diagonal(upper)) + off + off.T
        return made
