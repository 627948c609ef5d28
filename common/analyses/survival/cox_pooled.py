"""Cox's model with one baseline hazard for all sites, from sums over intervals that all sites share (`table_grid`).

Where every time of a patient is a table time and no table time is merged, the sums are those over the risk sets, S0,
S1, S2 and for Efron's ties D0, D1, D2, and the fit is that of pooled patients. Otherwise the risk sets inside an
interval are not known, and a fit on those at its start is biased (a true β of .7 came out as .53 to .61 with one or
two intervals). Then each site sends sums weighted by person-time, R_k = Σ PT·w·z^k over everybody at risk in the
interval: the likelihood of a hazard that is constant within intervals, whose profile over the hazards is Σ η − Σ d
log R0 (Breslow's form with R in place of S).

That likelihood is right if the intervals are short against the change of the hazard. Held to: no interval in which
more than `MOST_LEAVING` of those at risk leave. Measured for β = .7 with 1000 patients, constant and Weibull hazards
of shape .6 and 2: bias within .010 (standard error .045), coverage .95 to .98; with intervals in which a third to a
half leave, bias -.15 to +.15, coverage down to .04 [`tests/bench/bench_survival_tables.py`]. The follow-up is cut
where the first longer interval begins; if that leaves less than half of the events, the model is refused.

It is another estimand than the model stratified by site: this one also compares patients between sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses.base import Again, GridAsked, Iterate, IterateRefused, NotComputable, Outcome, Result
from fedage.common.analyses.base import check_iterate as check_blocks
from fedage.common.analyses.columns import MAX_PATIENTS, TwoGroups, present
from fedage.common.analyses.columns_read import ColumnsRead, columns_read, earlier_columns
from fedage.common.analyses.left_out import left_out_values
from fedage.common.analyses.survival import _newton
from fedage.common.analyses.survival._cox_contributions import spread_in_groups, weighted_moments
from fedage.common.analyses.survival._groups import stratum_of
from fedage.common.analyses.survival._intervals import SiteTable, ends_of
from fedage.common.analyses.survival._partial_likelihood import Ties, of_tables
from fedage.common.analyses.survival.follow_up import after_start, check_table_times, table_index
from fedage.common.analyses.survival.table_grid import TableGrid
from fedage.common.presentation.wording import years
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRefused, InfluenceRule, all_pass
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

MOST_LEAVING = 0.2
"""Largest share of those at risk who may leave in an interval of the person-time likelihood."""
_FEWEST_EVENTS = 0.5
_LARGEST_ETA = 100.0
"""Linear predictors are cut here, which only a β on the way to a fit can reach; it bounds the weights."""
_EXACT, _PERSON_TIME = "risk sets at the exact times", "person-time, the hazard constant within intervals"
_OF_THE_GRID = ("ends", "exact")


@dataclass(frozen=True)
class CoxPooled:
    """Cox proportional hazards without stratification by site.

    Result: as of `CoxBySite`, with `stratified_by_site` false, `table_times` (ends of the intervals used),
    `merged_table_times` (how many of the file's are not among the common ends), `likelihood` in words, and
    `follow_up_ends_years`. With every distinct time among the table times the fit is that of pooled patients.

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
        Efron or Breslow, where times are exact.
    minimum_count
        Fewest patients of any group that a table tells (`table_grid`).
    grid
        The intervals shared with other tables; None for intervals of its own.
    influence
        The rule that every covariate keeps in each group of patients that the sums tell of; None for none.
    beside
        Columns of other models of the file, of which no covariate may be a near repetition (`influence_beside`).
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
    grid: TableGrid | None = None
    influence: InfluenceRule | None = None
    beside: tuple[str | TwoGroups, ...] = ()
    per_site: bool = False

    def __post_init__(self) -> None:
        check_table_times(self.times, self.name)
        if len(self.strata) != len(self.levels):
            raise ValueError(f"{self.name}: {len(self.strata)} strata columns, but levels for {len(self.levels)}")

    @cached_property
    def preceding(self) -> TableGrid:
        """The intervals' own analysis."""
        return self.grid or TableGrid(
            f"{self.name}:grid",
            self.times,
            strata=((self.strata, self.levels),),
            time=self.time,
            event=self.event,
            subset=self.subset,
            needed=self._needed,
            minimum_count=self.minimum_count,
        )

    @property
    def _needed(self) -> tuple[str, ...]:
        return (*self.covariates, *self.strata)

    @property
    def _strata(self) -> int:
        return int(np.prod([len(levels) for levels in self.levels], dtype=np.int64))

    def first(self) -> Iterate:
        raise TypeError(f"{self.name} begins with the result of {self.preceding.name}")

    def begin(self, result: Result) -> Iterate:
        ends = self.preceding.groups_begun(result)["ends"]
        return {"ends": ends, "exact": np.asarray(float(result["exact"]))}

    def check(self, iterate: Iterate) -> None:
        shapes: dict[str, tuple[int, ...]] = {"ends": (len(self.times),), "exact": ()}
        check_blocks({name: iterate[name] for name in shapes if name in iterate}, shapes, bound=1.0)
        if not np.all(np.isin(iterate["ends"], (0.0, 1.0))) or not np.any(iterate["ends"]):
            raise IterateRefused("iterate ends must be 0 or 1 for each table time, and name at least one")
        if iterate["exact"] not in (0.0, 1.0) or (iterate["exact"] and not np.all(iterate["ends"])):
            raise IterateRefused("iterate exact must be 0, or 1 where every table time is an end")
        _newton.check_newton(_of_newton(iterate), self.covariates)

    def grid_asked(self, iterate: Iterate) -> GridAsked | None:
        return GridAsked(ends_of(iterate["ends"]), None, of_total=self.of_total)

    @property
    def of_total(self) -> bool:
        return self.preceding.of_total

    def within(self, ends: tuple[int, ...]) -> CoxPooled:
        return replace(self, grid=self.preceding.within(ends))

    @property
    def account(self) -> str:
        """What is fitted, whatever a campaign file calls it: iterates are counted by this."""
        return _newton.account_of(self, self.covariates, self.strata, self.time, self.event)

    def counted(self, iterate: Iterate) -> tuple[str, int]:  # noqa: ARG002 - the same for all
        return "iterates", _newton.MOST_ITERATES

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        needed = (*self.preceding.followed_by(), *self.strata)
        return columns_read(self.preceding.followed(cohort, self._needed).cohort, needed=needed, judged=self.covariates)

    def layout(self, iterate: Iterate) -> Layout:
        newton, p, groups = _of_newton(iterate), len(self.covariates), self._strata * len(ends_of(iterate["ends"]))
        largest = _newton.largest_z(self.covariates, newton)
        eta = float(np.abs(_newton.beta_of(newton, p)) @ largest)
        z, weight = float(largest.max()), float(np.exp(min(eta, _LARGEST_ETA))) * MAX_PATIENTS
        longest = 1.0 if iterate["exact"] else max(self.times[-1], 1.0)
        fields = [
            *_newton.common_fields(self.covariates, newton),
            Field("z_of_deaths", (groups, p), lower=-z * MAX_PATIENTS, upper=z * MAX_PATIENTS),
            *(
                Field(name, (groups,), lower=0.0, upper=MAX_PATIENTS, whole=True)
                for name in ("deaths", "leaving", "at_risk")
            ),
        ]
        for letter in "sd" if self._has_tied_sums(iterate) else "s":
            most = weight * longest
            fields += [
                Field(f"{letter}0", (groups,), lower=0.0, upper=most),
                Field(f"{letter}1", (groups, p), lower=-z * most, upper=z * most),
                Field(f"{letter}2", (groups, p * (p + 1) // 2), lower=-(z**2) * most, upper=z**2 * most),
            ]
        return Layout(tuple(fields))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        newton, patients = _of_newton(iterate), self.preceding.followed(cohort, self._needed)
        stratum = stratum_of(patients.cohort, self.strata, self.levels)
        known = stratum >= 0
        x, stratum = patients.cohort.matrix(self.covariates)[known], stratum[known]
        others = present(patients.cohort, self.beside)[known], earlier_columns(patients.cohort.where(known))
        time, event = patients.time[known], patients.event[known]
        ends = ends_of(iterate["ends"])
        table = SiteTable.of(time, event, [(stratum, self._strata)], times=self.times, minimum_count=self.minimum_count)
        allowed = self.preceding.allowed
        if not table.can_tell_all(ends) or (allowed is not None and not set(ends) <= set(allowed)):
            raise IterateRefused("iterate ends has intervals that this site has not said it can tell")
        z, layout = _newton.standardised(x, newton), self.layout(iterate)
        eta = np.clip(z @ _newton.beta_of(newton, z.shape[1]), -_LARGEST_ETA, _LARGEST_ETA)
        leaves = np.searchsorted(np.array(ends), table_index(time, self.times))
        interval = np.arange(len(ends))
        at_risk, in_interval = leaves[:, None] >= interval, leaves[:, None] == interval
        died = in_interval & event[:, None]
        exposed = at_risk.astype(np.float64)
        if not iterate["exact"]:
            edges = np.array([0.0, *(self.times[end] for end in ends)])
            exposed = np.clip(time[:, None] - edges[:-1], 0.0, np.diff(edges))
            if edges[1] == 0:  # no time passes before it: the sums are those over the risk set at 0
                exposed[:, 0] = 1.0
        ones = np.ones((time.size, 1))
        values: dict[str, FloatArray | float] = {
            "n": stratum.size,
            **left_out_values(patients.left_out + int(np.count_nonzero(~known))),
            "events": int(np.count_nonzero(died)),
            "z_of_deaths": self._by_stratum(died, z, stratum),
            "deaths": self._by_stratum(died, ones, stratum).ravel(),
            "leaving": self._by_stratum(in_interval, ones, stratum).ravel(),
            "at_risk": self._by_stratum(at_risk, ones, stratum).ravel(),
        }
        for power, columns in enumerate(weighted_moments(z, np.exp(eta))):
            for letter, weights in (("s", exposed), ("d", died)):
                if letter == "s" or self._has_tied_sums(iterate):
                    sums = self._by_stratum(weights, columns, stratum)
                    values[f"{letter}{power}"] = sums.ravel() if power == 0 else sums
        statistic = Statistic.of(layout, _newton.with_moments(values, z, layout), self._cells(table, ends))
        if statistic.smallest is not None and statistic.smallest.count >= self.minimum_count:
            self._require_influence(x, others, stratum, leaves, event & (leaves < len(ends)))
            self._require_spread(
                z, np.exp(eta), stratum, at_risk=exposed, leaves=in_interval, died=died if iterate["exact"] else None
            )
        return statistic

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        ends, beta = ends_of(iterate["ends"]), _newton.beta_of(_of_newton(iterate), len(self.covariates))
        used = len(ends) if iterate["exact"] else self._short_intervals(total, iterate)
        deaths = total["deaths"].reshape(self._strata, -1)
        if not iterate["exact"] and deaths.sum() and deaths[:, :used].sum() < _FEWEST_EVENTS * deaths.sum():
            return NotComputable(
                "the common intervals are too long for a model with one baseline hazard for all sites: more than "
                f"{MOST_LEAVING:.0%} of those at risk leave in one of them before half of the events, and its result "
                "would be biased; the model stratified by site (by_site = true) is not affected; or leave out the "
                "sites with few patients (survival.curves_from_patients)"
            )
        kept = (np.arange(self._strata)[:, None] * len(ends) + np.arange(used)).ravel()
        names = ["deaths", "s0", "s1", "s2", *(("d0", "d1", "d2") if self._has_tied_sums(iterate) else ())]
        tables = {name: total[name][kept] for name in names}
        if np.any((tables["s0"] <= 0) & (tables["deaths"] > 0)):
            return NotComputable("events at a time at which nobody has been followed yet; correct the times of 0")
        ties: Ties = self.ties if iterate["exact"] else "breslow"
        shown = [self.times[end] for end in ends]
        if shown[0] == 0 and not total["leaving"].reshape(self._strata, -1)[:, 0].any():
            shown = shown[1:]
        asked = self.times if 0 in shown else after_start(self.times)
        likelihood = of_tables(tables, total["z_of_deaths"][kept].sum(axis=0), beta, ties=ties)
        last = self.times[ends[used - 1]] if used else None
        about = {
            "model": "Cox proportional hazards",
            "stratified_by_site": False,
            "baseline": "not stratified by site: one baseline hazard for all sites",
            "strata": list(self.strata),
            "ties": self.ties,
            "likelihood": _EXACT if iterate["exact"] else _PERSON_TIME,
            "table_times": [time for time in shown if last is not None and time <= last],
            "merged_table_times": len(asked) - len(shown),
            "follow_up_ends_years": last,
        }
        counted = _with_events(total, float(tables["deaths"].sum()))
        newton = _of_newton(iterate)
        outcome = _newton.advance(likelihood, counted, newton, covariates=self.covariates, about=about)
        if isinstance(outcome, Again):
            return Again({**outcome.iterate, **{name: iterate[name] for name in _OF_THE_GRID}})
        return outcome

    def _has_tied_sums(self, iterate: Iterate) -> bool:
        return bool(iterate["exact"]) and self.ties == "efron"

    def _short_intervals(self, total: Statistic, iterate: Iterate) -> int:
        """How many of the first intervals lose no larger a share of those at risk than the likelihood is held to."""
        leaving, at_risk = (total[name].reshape(self._strata, -1).sum(axis=0) for name in ("leaving", "at_risk"))
        ends = np.array([self.times[end] for end in ends_of(iterate["ends"])])
        long = np.flatnonzero((leaving > MOST_LEAVING * at_risk) & (ends > 0))  # nothing is grouped at 0
        return int(long[0]) if long.size else ends.size

    def _by_stratum(self, weights: NDArray[np.generic], columns: FloatArray, stratum: NDArray[np.intp]) -> FloatArray:
        """Sums over patients of weights (n, J) times columns (n, q), by stratum and interval: (strata × J, q)."""
        return np.concatenate(
            [weights[stratum == s].astype(np.float64).T @ columns[stratum == s] for s in range(self._strata)]
        )

    def _require_influence(
        self,
        x: FloatArray,
        others: tuple[FloatArray, FloatArray | None],
        stratum: NDArray[np.intp],
        leaves: NDArray[np.intp],
        died: NDArray[np.bool_],
    ) -> None:
        """Refuse sums of which a covariate (n, p) of few patients would be one patient's record.

        Attack: the sums of neighbouring intervals differ by those who leave in between, so that a covariate that one of
        them has is solved from the difference. Rule, in each stratum: of all, and of each group that a difference of
        rows leaves, which are those with an event in an interval, those who leave in it without one, both, and those
        who stay after the last. A covariate of two values is rarely told by small sites. Weights are not in
        this measure (`_require_spread`).

        Raises
        ------
        InfluenceRefused
            If a covariate fails in one of them; the site then has no part in this model.
        """
        if self.influence is None:
            return
        beside, earlier = others
        of = "the patients"
        all_of_them = Group(of=of, columns=x, always=np.empty((len(x), 0)), beside=beside, earlier=earlier)
        for one in range(self._strata):
            inside = stratum == one
            members = [inside, inside & died, inside & ~died]
            for end in np.unique(leaves[inside]):
                left = inside & (leaves == end)
                members += [left, left & died, left & ~died]
            groups = [all_of_them.where(rows) for rows in members if rows.any()]
            if not all_pass(groups, self.influence):
                raise InfluenceRefused(
                    "too few of those who leave between two table times make up too much of the sums of one of "
                    f"{', '.join(self.covariates)}, alone or beside another model's; the model stratified by site "
                    "(by_site = true) is less affected; or name fewer table times, or leave out rare covariates"
                )

    def _require_spread(
        self,
        z: FloatArray,
        weight: FloatArray,
        stratum: NDArray[np.intp],
        *,
        at_risk: FloatArray,
        leaves: NDArray[np.bool_],
        died: NDArray[np.bool_] | None,
    ) -> None:
        """Refuse weighted sums that are one patient's.

        Attack: far from β = 0, S1/S0 of an interval is the record of the patient with the largest η, of covariates that
        the rule for unweighted sums lets pass. Rule, in each stratum, of the sums over those at risk in each interval
        (weighted by person-time where they are), over those who leave in it (with an event and without, where times
        are exact) and those who stay: nobody has more than `largest_share` of the weights, nor more than nine tenths of
        a weighted square or product. Residual risk: the difference of two rows that person-time weighs is not itself
        measured.

        Raises
        ------
        InfluenceRefused
            If somebody has; the site then has no part in this model.
        """
        if self.influence is None:
            return
        apart = [leaves] if died is None else [died, leaves & ~died]
        groups = np.concatenate([at_risk, *apart, ~leaves.any(axis=1, keepdims=True)], axis=1)
        for one in range(self._strata):
            rows = stratum == one
            weights = weight[rows][:, None] * groups[rows]
            if not spread_in_groups(z[rows], weights, self.influence):
                raise InfluenceRefused(
                    "at these coefficients one patient would make up too much of the sums over those at risk in an "
                    f"interval, by {', '.join(self.covariates)}; the model stratified by site (by_site = true) is "
                    "less affected; or name fewer table times"
                )

    def _cells(self, table: SiteTable, ends: tuple[int, ...]) -> list[Cell]:
        """The groups of patients that the sums describe; all others are sums of these."""
        cells = []
        for after, end in zip((-1, *ends), ends, strict=False):
            when = f"by {years(self.times[end])}{' in one of the strata' if self.strata else ''}"
            for with_event, without, _ in table.cells(after, end).T:
                cells += [
                    Cell(int(with_event), f"patients with an event {when}"),
                    Cell(int(without), f"patients leaving without an event {when}"),
                ]
        rest = table.cells(-1, ends[-1])[2]
        return [
            *cells,
            *(Cell(int(count), f"patients still followed after {years(self.times[ends[-1]])}") for count in rest),
        ]


def _of_newton(iterate: Iterate) -> Iterate:
    """The iterate without the blocks of the grid."""
    return {name: block for name, block in iterate.items() if name not in _OF_THE_GRID}


def _with_events(total: Statistic, events: float) -> Statistic:
    """The sum with the events of the intervals that are used."""
    values: Mapping[str, FloatArray] = {field.name: total[field.name] for field in total.layout.fields}
    return Statistic.of(total.layout, {**values, "events": np.asarray(events)}, ())
