"""Cox's model with one baseline hazard for all sites, exact from risk-set sums that add up over sites.

At each table time every site sends S0, S1, S2 over its risk set and, for Efron's ties, D0, D1, D2 over its deaths; the
patients themselves stay. How times become table times, and when a site merges some of them, is told in `_survival`:
exact means exact for the times so rounded. It is another estimand than the model stratified by site: this one also
compares patients between sites.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses import _newton
from fedage.common.analyses._columns import MAX_PATIENTS
from fedage.common.analyses._partial_likelihood import Ties, of_tables
from fedage.common.analyses._survival import (
    cells_of_tables,
    check_table_times,
    followed,
    intervals_of_site,
    leaving,
    table_index,
)
from fedage.common.analyses.base import Iterate, Outcome
from fedage.common.cohort import Cohort
from fedage.common.statistic import Field, FloatArray, Layout, Statistic

_LARGEST_ETA = 100.0
"""Linear predictors are cut here, which only a β on the way to a fit can reach; it bounds the weights."""


@dataclass(frozen=True)
class CoxPooled:
    """Cox proportional hazards without stratification by site.

    Result: as of `CoxBySite`, with `stratified_by_site` false, `table_times`, and `merged_table_times`: how many of
    them the sites merged away, all sites together. With 0 the fit is that of pooled patients whose times are rounded up
    to the table times; with more, the times of some sites' patients are rounded up further.

    Parameters
    ----------
    name
        The registered step.
    covariates
        Columns, in the order reported.
    times
        Table times in years, rising. Events after the last one are censored at it.
    time, event
        Columns with the follow-up in years and 1 (event) or 0 (censored).
    subset
        Column that is 1 for the patients to use; None for all.
    strata, levels
        Columns to stratify on (across sites), and for each the values it can take; patients with another value are
        left out. Each combination has its own baseline hazard.
    ties
        Efron or Breslow.
    minimum_count
        A site merges table times until this many patients, or none, leave in every interval and stratum with an event,
        and without one.
    """

    name: str
    covariates: tuple[str, ...]
    times: tuple[float, ...]
    _: KW_ONLY
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    strata: tuple[str, ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    ties: Ties = "efron"
    minimum_count: int = 1
    per_site: bool = False

    def __post_init__(self) -> None:
        check_table_times(self.times, self.name)
        if len(self.strata) != len(self.levels):
            raise ValueError(f"{self.name}: {len(self.strata)} strata columns, but levels for {len(self.levels)}")

    @property
    def _groups(self) -> int:
        """Number of (stratum, time) groups G = strata × T."""
        return len(self.times) * int(np.prod([len(levels) for levels in self.levels], dtype=np.int64))

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        _newton.check_newton(iterate, self.covariates)

    def layout(self, iterate: Iterate) -> Layout:
        p, groups = len(self.covariates), self._groups
        largest = _newton.largest_z(self.covariates, iterate)
        eta = float(np.abs(_newton.beta_of(iterate, p)) @ largest)
        z, weight = float(largest.max()), float(np.exp(min(eta, _LARGEST_ETA))) * MAX_PATIENTS
        fields = [
            *_newton.common_fields(self.covariates, iterate),
            Field("merged", lower=0.0, upper=float(len(self.times))),
            Field("z_of_deaths", (p,), lower=-z * MAX_PATIENTS, upper=z * MAX_PATIENTS),
            Field("deaths", (groups,), lower=0.0, upper=MAX_PATIENTS, whole=True),
        ]
        for letter in "sd" if self.ties == "efron" else "s":
            fields += [
                Field(f"{letter}0", (groups,), lower=0.0, upper=weight),
                Field(f"{letter}1", (groups, p), lower=-z * weight, upper=z * weight),
                Field(f"{letter}2", (groups, p * (p + 1) // 2), lower=-(z**2) * weight, upper=z**2 * weight),
            ]
        return Layout(tuple(fields))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = followed(
            cohort, subset=self.subset, time=self.time, event=self.event, needed=(*self.covariates, *self.strata)
        )
        stratum = self._stratum(patients.cohort)
        known = stratum >= 0
        left_out = patients.left_out + int(np.count_nonzero(~known))
        x, stratum = patients.cohort.matrix(self.covariates)[known], stratum[known]
        leaves, event = table_index(patients.time[known], self.times), patients.event[known]
        groups = self._groups // len(self.times)
        counts = leaving(leaves, event, stratum, groups=groups, times=len(self.times))
        intervals = intervals_of_site(
            cohort,
            subset=self.subset,
            time=self.time,
            event=self.event,
            table_times=self.times,
            minimum_count=self.minimum_count,
        ).merge(counts.reshape(len(self.times), -1), minimum_count=self.minimum_count)
        leaves = intervals.rounded(leaves)
        died = event & (leaves < len(self.times))
        z, layout = _newton.standardised(x, iterate), self.layout(iterate)
        eta = np.clip(z @ _newton.beta_of(iterate, z.shape[1]), -_LARGEST_ETA, _LARGEST_ETA)
        values: dict[str, FloatArray | float] = {
            "n": stratum.size,
            "left_out": left_out,
            "events": int(np.count_nonzero(died)),
            "merged": intervals.merged,
            "z_of_deaths": z[died].sum(axis=0),
            "deaths": self._by_group(np.ones(int(died.sum())), stratum[died], leaves[died], at_risk=False).ravel(),
        }
        moments = _weighted_moments(z, np.exp(eta))
        for power, columns in enumerate(moments):
            shape = (self._groups,) if power == 0 else (self._groups, columns.shape[1])
            values[f"s{power}"] = self._by_column(columns, stratum, leaves, at_risk=True).reshape(shape)
            if self.ties == "efron":
                dead = self._by_column(columns[died], stratum[died], leaves[died], at_risk=False)
                values[f"d{power}"] = dead.reshape(shape)
        of_stratum = ("in one of the strata",) * groups if self.strata else ("",)
        cells = cells_of_tables(counts, intervals, self.times, of_stratum)
        return Statistic.of(layout, _newton.with_moments(values, x, layout), cells)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        tables = {name: total[name] for name in ("deaths", "s0", "s1", "s2")}
        if self.ties == "efron":
            tables |= {name: total[name] for name in ("d0", "d1", "d2")}
        beta = _newton.beta_of(iterate, len(self.covariates))
        likelihood = of_tables(tables, total["z_of_deaths"], beta, ties=self.ties)
        about = {
            "model": "Cox proportional hazards",
            "stratified_by_site": False,
            "baseline": "not stratified by site: one baseline hazard for all sites",
            "strata": list(self.strata),
            "ties": self.ties,
            "table_times": list(self.times),
            "merged_table_times": round(total.scalar("merged")),
        }
        return _newton.advance(likelihood, total, iterate, covariates=self.covariates, about=about)

    def _stratum(self, cohort: Cohort) -> NDArray[np.intp]:
        """Number of each patient's stratum (n,); −1 for a value that is no level."""
        stratum, known = np.zeros(cohort.n, dtype=np.intp), np.ones(cohort.n, dtype=bool)
        for column, levels in zip(self.strata, self.levels, strict=True):
            equal = cohort[column][:, None] == np.asarray(levels)
            known &= equal.any(axis=1)
            stratum = stratum * len(levels) + equal.argmax(axis=1)
        return np.where(known, stratum, -1)

    def _by_group(
        self, values: FloatArray, stratum: NDArray[np.intp], leaves: NDArray[np.intp], *, at_risk: bool
    ) -> FloatArray:
        """Sums (strata, T) of values (n,): over those who leave at each table time, or over all still at risk then."""
        slots = len(self.times) + 1  # the last slot: followed for longer than the last table time
        size = self._groups // len(self.times) * slots
        left = np.bincount(stratum * slots + leaves, weights=values, minlength=size)
        sums: FloatArray = left.astype(np.float64, copy=False).reshape(-1, slots)
        if at_risk:
            sums = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
        return sums[:, :-1]

    def _by_column(
        self, columns: FloatArray, stratum: NDArray[np.intp], leaves: NDArray[np.intp], *, at_risk: bool
    ) -> FloatArray:
        """The same for values (n, q): (strata, T, q)."""
        return np.stack([self._by_group(column, stratum, leaves, at_risk=at_risk) for column in columns.T], axis=-1)


def _weighted_moments(z: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """W, wz and the upper triangle of wzzᵀ of each patient: (n, 1), (n, p), (n, p(p+1)/2)."""
    rows, columns = np.triu_indices(z.shape[1])
    weighted = w[:, None] * z
    return w[:, None], weighted, weighted[:, rows] * z[:, columns]
