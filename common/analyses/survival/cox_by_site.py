"""Cox's model stratified by site: each site its own baseline hazard, one set of coefficients.

The log partial likelihood of stratified data is the sum over strata, so the sum of what each site computes from its own
patients is exact, and so are gradient and information. Nothing about single event times leaves a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import numpy as np

from fedage.common.analyses.base import Iterate, Outcome, Result
from fedage.common.analyses.columns import MAX_PATIENTS, TwoGroups, present
from fedage.common.analyses.columns_read import ColumnsRead, columns_read, earlier_columns
from fedage.common.analyses.left_out import left_out_values
from fedage.common.analyses.survival import _newton
from fedage.common.analyses.survival._cox_contributions import Contributions, contributions_at, require_spread
from fedage.common.analyses.survival._partial_likelihood import Likelihood, Ties, of_strata, pack, unpack
from fedage.common.analyses.survival.follow_up import FollowedPatients, followed, round_up
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, InfluenceRule
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic


@dataclass(frozen=True)
class CoxBySite:
    """Cox proportional hazards, a stratum a site, further strata inside a site on request.

    Four to seven exchanges: the first at β = 0 with the covariates' means and SDs, then Newton's method. A site
    without events, or with a single patient, contributes zeros.

    Result: `model`, `stratified_by_site` (true), `baseline` (in words), `strata`, `ties`, `n`, `events`, `left_out`,
    `log_likelihood`, `null_log_likelihood`, `likelihood_ratio` (`chi2`, `df`, `p`), `exchanges`, and `covariates`: a
    list of `name`, `coef`, `se`, `z`, `p`, `hazard_ratio`, `ci95`, `sd`, `hazard_ratio_per_sd`, `ci95_per_sd`.

    Parameters
    ----------
    name
        The registered step.
    covariates
        Columns, in the order reported.
    time, event
        Columns with the follow-up in years and 1 (event) or 0 (censored).
    subset
        Column that is 1 for the patients to use; None for all.
    strata
        Columns whose distinct values each get a baseline hazard of their own inside every site.
    ties
        Efron or Breslow.
    time_grid_years
        Times are rounded up to multiples of this; 0 keeps exact times.
    complete_in
        Columns in which a patient has to be complete; None for the covariates. A model whose sites agreed to leave a
        covariate out keeps its patients: two sets that differ by those who miss it would give them by subtraction.
    beside
        Columns of other models of the file, of which no covariate may be a near repetition (`influence_beside`).
    """

    name: str
    covariates: tuple[str, ...]
    _: KW_ONLY
    time: str = "time_years"
    event: str = "event"
    subset: str | None = "is_test"
    strata: tuple[str, ...] = ()
    ties: Ties = "efron"
    time_grid_years: float = 0.0
    per_site: bool = False
    complete_in: tuple[str, ...] | None = None
    beside: tuple[str | TwoGroups, ...] = ()

    fewest_columns: ClassVar[int] = 1

    @property
    def reducible(self) -> tuple[str, ...]:
        return self.covariates

    def reduced(self, kept: Sequence[bool]) -> CoxBySite:
        return replace(self, covariates=_newton.chosen(self.covariates, kept), complete_in=self._complete_in)

    def completed(self, result: Result, kept: Sequence[bool]) -> Result:  # noqa: ARG002 - it has no places
        return result

    def sums_products(self, iterate: Iterate) -> bool:  # noqa: ARG002 - all of them do
        return True

    def influence_groups(self, cohort: Cohort, rule: InfluenceRule) -> list[Group]:  # noqa: ARG002
        """Everybody followed. Single risk sets do not leave: only their sum over all deaths does."""
        patients = self.patients(cohort)
        x = patients.cohort.matrix(self.covariates)
        at_zero = self._contributions(patients, x, np.zeros(patients.n))
        return [
            Group(
                of="the patients followed",
                columns=x,
                always=np.empty((patients.n, 0)),
                gradient=at_zero.gradient,
                information=at_zero.information,
                beside=present(patients.cohort, self.beside),
                earlier=earlier_columns(patients.cohort),
            )
        ]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        needed = (self.time, self.event, *self.strata)
        return columns_read(self.patients(cohort).cohort, needed=needed, judged=self.covariates)

    def require_influence(self, cohort: Cohort, iterate: Iterate, rule: InfluenceRule) -> None:
        """Refuse sums at coefficients that make them one patient's; those at β = 0 are in `influence_groups`."""
        if not iterate:
            return
        patients = self.patients(cohort)
        z = _newton.standardised(patients.cohort.matrix(self.covariates), iterate)
        require_spread(self._contributions(patients, z, z @ _newton.beta_of(iterate, z.shape[1])), rule)

    def _contributions(self, patients: FollowedPatients, x: FloatArray, eta: FloatArray) -> Contributions:
        time, strata = round_up(patients.time, self.time_grid_years), patients.cohort.matrix(self.strata)
        return contributions_at(x, time, patients.event, strata, eta)

    @property
    def _complete_in(self) -> tuple[str, ...]:
        return self.covariates if self.complete_in is None else self.complete_in

    def patients(self, cohort: Cohort) -> FollowedPatients:
        """Whom the model takes."""
        needed = (*self._complete_in, *self.strata)
        return followed(cohort, subset=self.subset, time=self.time, event=self.event, needed=needed)

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        _newton.check_newton(iterate, self.covariates)

    @property
    def account(self) -> str:
        """What is fitted, whatever a campaign file calls it: iterates are counted by this."""
        return _newton.account_of(self, self.covariates, self.strata, self.time, self.event)

    @property
    def rounding(self) -> tuple[str, float]:
        """The column of the follow-up times and the grid they are rounded to, in years."""
        return self.time, self.time_grid_years

    def counted(self, iterate: Iterate) -> tuple[str, int]:  # noqa: ARG002 - the same for all
        return "iterates", _newton.MOST_ITERATES

    def layout(self, iterate: Iterate) -> Layout:
        p = len(self.covariates)
        z = _newton.largest_z(self.covariates, iterate)
        # A death's log-likelihood lies between −log n − 2|β·z| and 0, her gradient within the range of z in the risk
        # set, her information is a variance or covariance there.
        log_weight = np.log(MAX_PATIENTS) + 2 * float(np.abs(_newton.beta_of(iterate, p)) @ z)
        gradient, information = 2 * z.max(), z.max() ** 2
        return Layout(
            (
                *_newton.common_fields(self.covariates, iterate),
                Field("log_likelihood", lower=-log_weight * MAX_PATIENTS, upper=1.0),
                Field("gradient", (p,), lower=-gradient * MAX_PATIENTS, upper=gradient * MAX_PATIENTS),
                Field(
                    "information",
                    (p * (p + 1) // 2,),
                    lower=-information * MAX_PATIENTS,
                    upper=information * MAX_PATIENTS,
                ),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        patients = self.patients(cohort)
        x, layout = patients.cohort.matrix(self.covariates), self.layout(iterate)
        z = _newton.standardised(x, iterate)
        likelihood = of_strata(
            z,
            round_up(patients.time, self.time_grid_years),
            patients.event,
            patients.cohort.matrix(self.strata),
            _newton.beta_of(iterate, len(self.covariates)),
            ties=self.ties,
        )
        events = int(np.count_nonzero(patients.event))
        values: dict[str, FloatArray | float] = {
            "n": patients.n,
            **left_out_values(patients.left_out),
            "events": events,
            "log_likelihood": likelihood.log_likelihood,
            "gradient": likelihood.gradient,
            "information": pack(likelihood.information),
        }
        cells = [
            Cell(patients.n, "patients followed"),
            Cell(events, "patients with an event"),
            Cell(patients.n - events, "patients without an event"),
        ]
        return Statistic.of(layout, _newton.with_moments(values, z, layout), cells)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        likelihood = Likelihood(
            log_likelihood=total.scalar("log_likelihood"),
            gradient=total["gradient"],
            information=unpack(total["information"], len(self.covariates)),
        )
        about = {
            "model": "Cox proportional hazards",
            "stratified_by_site": True,
            "baseline": "stratified by site: each site has its own baseline hazard",
            "strata": list(self.strata),
            "ties": self.ties,
        }
        return _newton.advance(likelihood, total, iterate, covariates=self.covariates, about=about)
