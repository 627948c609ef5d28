"""Kaplan-Meier curves of high against low gap, and the log-rank test, from tables that add up over sites.

Notation, at table time k: n_k at risk, d_k events. S = Π(1 − d/n); Greenwood's variance of log S is Σ d/(n(n − d)); the
95 % interval is symmetric for log(−log S). How times become table times, and when a site merges some of them, is told
in `_survival`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import special

from fedage.common.analyses._columns import MAX_GAP_YEARS, MAX_PATIENTS
from fedage.common.analyses._median import HISTOGRAM, bracket, histograms
from fedage.common.analyses._survival import (
    Followed,
    cells_of_tables,
    check_table_times,
    followed,
    intervals_of_site,
    leaving,
    table_index,
)
from fedage.common.analyses.base import (
    Again,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    Result,
    check_iterate,
)
from fedage.common.cohort import Cohort
from fedage.common.statistic import Field, FloatArray, Layout, Statistic

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class KaplanMeier:
    """Survival of patients with a high and a low gap, or of all patients where no gap column is named.

    With `split_gap_at="median"` a first exchange brackets the median of all sites (`_median` tells how, and
    `median_within_years` how well); a patient is high above the split and low at or below it.

    Result: `n`, `events`, `left_out`, `table_times`, `merged_table_times` (how many of them the sites merged away, all
    sites together; 0: the curves are those of pooled patients with times rounded up to the table times; more: some
    sites' patients have theirs rounded up further), `split_years` and `median_within_years` (None where they do not
    apply), `groups`: a list of `name`, `n`, `events`, `at_risk`, `events_at`, `survival`, `standard_error`,
    `ci95_low`, `ci95_high` (one value a table time; None where nobody is at risk), `median_survival` (None if not
    reached by the last table time); and `log_rank`: `chi2`, `p`, `expected` (None without two groups and events).

    Parameters
    ----------
    name
        The registered step.
    times
        Table times in years, rising. Events after the last one are censored at it.
    gap
        Column that makes the groups, a gap or (split at zero) one of 0 and 1; None for one group.
    split_gap_at
        Median of all sites, or zero.
    time, event, subset
        As for the Cox models.
    minimum_count
        Fewest patients behind any entry of the histogram that the median comes from; and a site merges table times
        until this many, or none, leave in every interval and group with an event, and without one.
    """

    same_sites: ClassVar[bool] = False

    name: str
    times: tuple[float, ...]
    _: KW_ONLY
    gap: str | None = "gap_years"
    split_gap_at: Literal["median", "zero"] = "median"
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    minimum_count: int = 1
    per_site: bool = False

    def __post_init__(self) -> None:
        check_table_times(self.times, self.name)

    @property
    def _group_names(self) -> tuple[str, ...]:
        if not self.gap:
            return ("all patients",)
        if self.gap.endswith("gap_years"):
            return ("low gap", "high gap")
        return ("female", "male") if self.gap == "is_male" else (f"{self.gap} 0", f"{self.gap} 1")

    def first(self) -> Iterate:
        return {"split": np.asarray(0.0)} if self.gap and self.split_gap_at == "zero" else {}

    def check(self, iterate: Iterate) -> None:
        if not iterate and not (self.gap and self.split_gap_at == "zero"):
            return
        shapes: dict[str, tuple[int, ...]] = {}
        if self.gap:
            shapes = {"split": ()} if self.split_gap_at == "zero" else {"split": (), "low": (), "high": ()}
        check_iterate(iterate, shapes, bound=MAX_GAP_YEARS)
        if self.split_gap_at == "zero" and self.gap and iterate["split"] != 0:
            raise IterateRefused("iterate split must be 0: the campaign file splits the gap at zero")
        if "low" in iterate and not iterate["low"] <= iterate["split"] <= iterate["high"]:
            raise IterateRefused("iterate split must lie between low and high, which enclose the median")

    def thresholds(self, iterate: Iterate) -> dict[str, float]:
        return {self.gap: float(iterate["split"])} if self.gap and self.split_gap_at == "median" and iterate else {}

    def compared(self, cohort: Cohort) -> Cohort:
        return self._followed(cohort).cohort

    def layout(self, iterate: Iterate) -> Layout:
        if self._finds_median(iterate):
            return HISTOGRAM
        shape = (len(self._group_names), len(self.times))
        return Layout(
            (
                Field("n", shape[:1], lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("left_out", lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("merged", lower=0.0, upper=float(len(self.times))),
                Field("at_risk", shape, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("events", shape, lower=0.0, upper=MAX_PATIENTS, whole=True),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = self._followed(cohort)
        if self.gap and self._finds_median(iterate):
            return histograms(patients.cohort[self.gap], minimum_count=self.minimum_count)
        return self._tables(cohort, patients, iterate)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        if self._finds_median(iterate):
            within = bracket(total)
            if within is None:
                return NotComputable(f"no patient with a follow-up time, an event of 0 or 1, and {self.gap}")
            low, high = within
            return Again({"split": np.asarray((low + high) / 2), "low": np.asarray(low), "high": np.asarray(high)})
        n, events, at_risk = total["n"], total["events"], total["at_risk"]
        if n.sum() < 1:
            return NotComputable("no patient with a follow-up time and an event of 0 or 1")
        groups = [
            {
                "name": name,
                "n": round(n[g]),
                "events": round(events[g].sum()),
                **_curve(self.times, at_risk[g], events[g]),
            }
            for g, name in enumerate(self._group_names)
        ]
        return Done(
            {
                "n": round(n.sum()),
                "events": round(events.sum()),
                "left_out": round(total.scalar("left_out")),
                "table_times": list(self.times),
                "merged_table_times": round(total.scalar("merged")),
                "split_years": float(iterate["split"]) if self.gap else None,
                "median_within_years": [float(iterate["low"]), float(iterate["high"])] if "low" in iterate else None,
                "groups": groups,
                "log_rank": log_rank(at_risk, events) if self.gap else None,
            }
        )

    def _finds_median(self, iterate: Iterate) -> bool:
        return self.gap is not None and not iterate

    def _followed(self, cohort: Cohort) -> Followed:
        needed = (self.gap,) if self.gap else ()
        return followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=needed)

    def _tables(self, cohort: Cohort, patients: Followed, iterate: Iterate) -> Statistic:
        groups, times = len(self._group_names), len(self.times)
        high = patients.cohort[self.gap] > iterate["split"] if self.gap else np.zeros(patients.n, dtype=bool)
        leaves, group = table_index(patients.time, self.times), high.astype(np.intp)
        counts = leaving(leaves, patients.event, group, groups=groups, times=times)
        intervals = intervals_of_site(
            cohort,
            subset=self.subset,
            time=self.time,
            event=self.event,
            table_times=self.times,
            minimum_count=self.minimum_count,
        ).merge(counts.reshape(times, -1), minimum_count=self.minimum_count)
        rounded = leaving(intervals.rounded(leaves), patients.event, group, groups=groups, times=times)
        at_risk = np.cumsum(rounded.sum(axis=2)[::-1], axis=0)[::-1].T
        values: dict[str, FloatArray | float] = {
            "n": at_risk[:, 0].astype(np.float64),
            "left_out": patients.left_out,
            "merged": intervals.merged,
            "at_risk": at_risk.astype(np.float64),
            "events": rounded[:, :, 0].T.astype(np.float64),
        }
        cells = cells_of_tables(counts, intervals, self.times, self._group_names)
        return Statistic.of(self.layout(iterate), values, cells)


def _curve(times: tuple[float, ...], at_risk: FloatArray, events: FloatArray) -> Result:
    """One group's curve from n and d, (T,) each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        survival = np.cumprod(np.where(at_risk > 0, 1 - events / at_risk, np.nan), dtype=np.float64)
        log_variance = np.cumsum(np.where(events > 0, events / (at_risk * (at_risk - events)), 0.0))
        standard_error = np.where(survival > 0, survival * np.sqrt(log_variance), 0.0)
        half_width = _Z95 * np.sqrt(log_variance) / np.abs(np.log(survival))
        inner = (survival > 0) & (survival < 1)
        low = np.where(inner, survival ** np.exp(half_width), survival)
        high = np.where(inner, survival ** np.exp(-half_width), survival)
    reached = np.flatnonzero(survival <= 0.5)
    return {
        "at_risk": [round(value) for value in at_risk],
        "events_at": [round(value) for value in events],
        "survival": _plain(survival),
        "standard_error": _plain(np.where(np.isnan(survival), np.nan, standard_error)),
        "ci95_low": _plain(low),
        "ci95_high": _plain(high),
        "median_survival": times[reached[0]] if reached.size else None,
    }


def log_rank(at_risk: FloatArray, events: FloatArray) -> Result | None:
    """Mantel's test of two groups from n and d, (2, T) each; None if nothing is compared.

    χ² = (O − E)²/V with E = Σ d n₁/n and the hypergeometric V = Σ d (n₁/n)(1 − n₁/n)(n − d)/(n − 1), one degree of
    freedom.
    """
    n, d = at_risk.sum(axis=0), events.sum(axis=0)
    several = n > 1
    n, d, n_1 = n[several], d[several], at_risk[1][several]
    share = n_1 / n
    observed, expected = float(events[1].sum()), float((d * share).sum() + _lone(at_risk, events))
    variance = float((d * share * (1 - share) * (n - d) / (n - 1)).sum())
    if variance <= 0:
        return None
    chi2 = (observed - expected) ** 2 / variance
    return {
        "chi2": chi2,
        "df": 1,
        "p": float(special.chdtrc(1, chi2)),
        "expected": [float(events.sum()) - expected, expected],
    }


def _lone(at_risk: FloatArray, events: FloatArray) -> float:
    """Events of group 1 at times when nobody else is at risk: expected with certainty."""
    return float(events[1][at_risk.sum(axis=0) <= 1].sum())


def _plain(values: FloatArray) -> list[float | None]:
    """Numbers that JSON can hold."""
    return [float(value) if np.isfinite(value) else None for value in values]
