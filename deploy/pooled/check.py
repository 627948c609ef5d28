"""Which figures of a run are compared with those of the pooled patients, and how far apart they are.

A model is fitted on the patients of the sites whose sums are in the run's result, on the covariates that the sites
agreed on and on the times that the campaign file allows, because that is what the run's figure claims to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from lifelines.exceptions import ConvergenceError
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.results import Evaluated, Metrics
from fedage.common.analyses.groups import result as groups_result
from fedage.common.analyses.groups.result import GroupDifference
from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival.results import CoxResult, Curves
from fedage.common.campaign import Campaign
from fedage.common.estimators.configure import configured
from fedage.common.estimators.ridge import AgeScale, RidgePhase
from fedage.deploy.machine.simulation import SimulationJob
from fedage.deploy.pooled import models
from fedage.deploy.pooled.patients import SITE, pooled_patients
from fedage.server.record.events import read_events
from fedage.server.record.results import PooledCheck, PooledFigure, Results, read_results, write_results
from fedage.server.record.run_folder import REPORT, RESULTS, RunFolder
from fedage.server.report import render_report

FloatArray = NDArray[np.float64]

_SHORTEST_YEARS = 0.01
"""Least age + offset that has a logarithm here, as `estimator.options` documents."""
_MODEL_ARRAYS = frozenset(["medians", "means", "sds", "coefficients", "intercept"])
_NO_RESULT = "the run has no result of it"
_GAP_BOUND_YEARS = 130.0
"""Beyond it a corrected gap is cut off at the sites; the same here, or one wild prediction would look like a fault."""


@dataclass
class _Check:
    campaign: Campaign
    results: Results
    patients: pd.DataFrame
    not_compared: dict[str, str]

    def figures(self) -> Iterator[PooledFigure]:
        evaluation = evaluation_results.evaluation(self.results).test
        if "predicted_years" in self.patients:
            yield from self._errors("evaluation:test", "predicted_years", evaluation.raw)
        if self.campaign.estimator is not None and "predicted_years" in self.patients:
            yield from self._lines()
            self._correct()
            yield from self._errors("evaluation:test-corrected", "corrected_years", evaluation.corrected)
        survival = survival_results.survival(self.results)
        for model in survival.cox if survival else ():
            yield from self._cox(model)
        if survival and survival.kaplan_meier:
            yield from self._curves(survival.kaplan_meier)
        groups = groups_result.groups(self.results)
        if groups is not None:
            for name, found in (("groups:gap", groups.corrected), ("groups:raw-gap", groups.raw)):
                if found is not None:
                    yield from self._groups(name, found)

    def _errors(self, step: str, column: str, found: Evaluated) -> Iterator[PooledFigure]:
        chosen = self.patients["is_test"] == 1
        if self.campaign.cohort.train_on == "healthy":
            chosen &= self.patients["healthy"] == 1
        told = _complete(self.patients[chosen], [column, "age_years"])
        rows: list[tuple[str | None, pd.DataFrame, Metrics]] = [
            (site, told[told[SITE] == site], metrics) for site, metrics in found.by_site.items()
        ]
        if found.overall is not None:
            sites = self.results.contributors.get(step, tuple(found.by_site))
            rows.insert(0, (None, told[told[SITE].isin(sites)], found.overall))
        if not rows:
            self.not_compared[step] = _NO_RESULT
        for site, table, metrics in rows:
            if table.empty:
                continue
            pooled = models.errors(_array(table, column), _array(table, "age_years"))
            federated = {name: getattr(metrics, name) for name in pooled}
            yield from _pairs(step, federated, pooled, site=site)

    def _lines(self) -> Iterator[PooledFigure]:
        if self.campaign.noises_validation:
            self.not_compared["bias"] = "told with noise of differential privacy"
            return
        healthy = self._healthy_held_out()
        for site, found in correction_of(self.results).lines.items():
            table = healthy[healthy[SITE] == site]
            line = models.line(_array(table, "predicted_years"), _array(table, "age_years"))
            for name in ("slope", "intercept_years", "residual_sd_years"):
                yield from _pairs("bias", {name: getattr(found, name)}, {name: getattr(line, name)}, site=site)

    def _healthy_held_out(self) -> pd.DataFrame:
        chosen = (self.patients["is_validation"] == 1) & (self.patients["healthy"] == 1)
        return _complete(self.patients[chosen], ["predicted_years", "age_years"])

    def _correct(self) -> None:
        """Add `corrected_years`, `gap_years` and `cole_gap_years`, NaN for who cannot be corrected."""
        table = self.patients
        slope, intercept = pd.Series(np.nan, index=table.index), pd.Series(np.nan, index=table.index)
        told = correction_of(self.results).overall
        if self.campaign.noises_validation and self.campaign.bias.scope != "site":  # corrected by the noised line
            if told is not None:
                slope[:], intercept[:] = told.slope, told.intercept_years
        else:
            self._fit(slope, intercept)
        age, predicted = table["age_years"], table["predicted_years"]
        bounds = (-_GAP_BOUND_YEARS, _GAP_BOUND_YEARS)
        table["gap_years"] = (predicted - (slope * age + intercept)).clip(*bounds)
        table["cole_gap_years"] = ((predicted - intercept) / slope - age).clip(*bounds)
        table["corrected_years"] = age + table["gap_years"]

    def _fit(self, slope: pd.Series, intercept: pd.Series) -> None:
        for fitted, corrected in self._lines_and_whom():
            if len(fitted) > 2:
                line = models.line(_array(fitted, "predicted_years"), _array(fitted, "age_years"))
                slope[corrected], intercept[corrected] = line.slope, line.intercept_years

    def _lines_and_whom(self) -> Iterator[tuple[pd.DataFrame, pd.Index]]:
        """The patients a line is fitted on, and the rows it corrects: with folds nobody helps to fit their own."""
        healthy, table = self._healthy_held_out(), self.patients
        if self.campaign.bias.scope != "site":
            fitted = healthy[healthy[SITE].isin(self.results.contributors.get("bias", ()))]
            yield fitted, table.index
            return
        for site, rows in table.groupby(SITE):
            own = healthy[healthy[SITE] == site]
            if self.campaign.validation.folds is None:
                yield own, rows.index
            else:
                for fold, members in rows.groupby("fold"):
                    yield own[own["fold"] != fold], members.index

    def _cox(self, model: CoxResult) -> Iterator[PooledFigure]:
        step, survival = f"cox:{model.model}", self.campaign.survival
        assert survival is not None
        if not model.covariates:
            self.not_compared[step] = _NO_RESULT
            return
        if survival.ties != "efron":
            self.not_compared[step] = "lifelines has Efron's rule for ties only"
            return
        asked = next(each.covariates for each in survival.models if each.name == model.model)
        table = self._followed(model.sites, [*asked, *survival.strata])
        names = [covariate.name for covariate in model.covariates]
        strata = list(survival.strata)
        if model.stratified_by_site:
            strata.append(SITE)
            table[survival.time] = _rounded_up(table[survival.time], survival.time_grid_years)
        try:
            pooled = models.cox(table, names, time=survival.time, event=survival.event, strata=strata)
        except (ConvergenceError, np.linalg.LinAlgError) as error:
            self.not_compared[step] = f"lifelines finds no estimate: {str(error).splitlines()[0]}"
            return
        federated: dict[str, float | None] = {}
        for covariate in model.covariates:
            federated[f"coef of {covariate.name}"] = covariate.coef
            federated[f"se of {covariate.name}"] = covariate.se
        if model.stratified_by_site:
            federated["log_likelihood"] = model.log_likelihood
        yield from _pairs(step, federated, pooled, grouped=not model.stratified_by_site)

    def _curves(self, found: Curves) -> Iterator[PooledFigure]:
        survival = self.campaign.survival
        assert survival is not None
        if not found.groups or not found.table_times:
            self.not_compared["kaplan-meier"] = _NO_RESULT
            return
        table = self._followed(found.sites, [found.column] if found.column else [])
        is_second = np.zeros(len(table), dtype=np.bool_)
        if found.column:
            is_second = _array(table, found.column) > (found.split_years or 0.0)
        time, event = _array(table, survival.time), _array(table, survival.event)
        for number, group in enumerate(found.groups):
            rows = is_second == bool(number) if len(found.groups) == 2 else np.ones(len(table), dtype=np.bool_)
            pooled = models.survival_at(time[rows], event[rows], found.table_times)
            for at, (ours, theirs) in enumerate(zip(group.survival, pooled, strict=True)):
                figure = f"{group.name}: fraction without the event at {found.table_times[at]:g} years"
                yield from _pairs("kaplan-meier", {figure: ours}, {figure: theirs}, grouped=True)
        if found.log_rank is not None:
            chi2 = models.log_rank(time, event, is_second, end=found.table_times[-1])
            yield from _pairs("kaplan-meier", {"log-rank χ²": found.log_rank.chi2}, {"log-rank χ²": chi2}, grouped=True)

    def _followed(self, sites: Sequence[str], needed: Sequence[str]) -> pd.DataFrame:
        """Test patients of `sites` with a follow-up time ≥ 0, an event of 0 or 1 and every needed column."""
        survival = self.campaign.survival
        assert survival is not None
        chosen = self.patients[(self.patients["is_test"] == 1) & self.patients[SITE].isin(sites)]
        table = _complete(chosen, [survival.time, survival.event, *needed])
        return table[table[survival.time] >= 0].copy()

    def _groups(self, step: str, found: GroupDifference) -> Iterator[PooledFigure]:
        groups = self.campaign.groups
        assert groups is not None
        if found.unadjusted is None and found.adjusted is None:
            self.not_compared[step] = _NO_RESULT
            return
        table = self.patients
        shaped = (table["is_train"] == 1) | ((table["is_validation"] == 1) & (table["healthy"] == 1))
        table = table[
            ((table["is_test"] == 1) | ~shaped) & table[groups.column].isin([groups.equals, groups.reference])
        ]
        table = _complete(table, [found.gap, *groups.covariates])
        table = table[table[SITE].isin(self.results.contributors.get(step, ()))]
        both = table.groupby(SITE)[groups.column].nunique() == 2
        table = table[table[SITE].isin(both.index[both])]
        kept = [name for name in groups.covariates if name not in found.withheld_columns]
        for name, result, covariates in (("adjusted", found.adjusted, kept), ("unadjusted", found.unadjusted, [])):
            if result is None:
                continue
            is_group = (_array(table, groups.column) == groups.equals).astype(np.float64)
            columns = table[covariates].to_numpy(dtype=np.float64)
            years, se = models.difference(_array(table, found.gap), is_group, columns, list(table[SITE]))
            yield from _pairs(
                step,
                {
                    f"{name} difference, years": result.difference_years,
                    f"{name} standard error, years": result.se_years,
                },
                {f"{name} difference, years": years, f"{name} standard error, years": se},
            )


def record_check(job: SimulationJob, campaign: Campaign) -> None:
    """Compare a simulated run with its pooled patients; write that into its record and its report."""
    run = RunFolder(job.folder)
    results = read_results(run.path / RESULTS)
    results = results.model_copy(update={"pooled_check": check_pooled(job, campaign, results)})
    write_results(run.path / RESULTS, results)
    (run.path / REPORT).write_text(render_report(results, events=read_events(run.events)), encoding="utf-8")


def check_pooled(job: SimulationJob, campaign: Campaign, results: Results) -> PooledCheck:
    """Compare a finished simulated run with the same models on all its patients in one table."""
    patients, cohorts = pooled_patients(job, campaign)
    check = _Check(campaign, results, patients, {})
    figures = [
        *_ridge(job, campaign, results, patients, cohorts, check.not_compared),
        *check.figures(),
    ]
    return PooledCheck(
        figures=tuple(figures),
        largest_difference=_largest(figures, grouped=False),
        largest_grouped_difference=_largest(figures, grouped=True),
        not_compared=check.not_compared,
    )


def _ridge(
    job: SimulationJob,
    campaign: Campaign,
    results: Results,
    patients: pd.DataFrame,
    cohorts: Mapping[str, SiteCohort],
    not_compared: dict[str, str],
) -> Iterator[PooledFigure]:
    """The predicted ages of an exact ridge regression, fold by fold, against one solved on one table.

    Missing values are replaced by the run's medians: sites tell medians from groups of values, which is stated in the
    preparation. What is checked is that the sums over the sites are those of one table.
    """
    estimator = configured(campaign, next(iter(cohorts.values())).features)
    phase = estimator.phases[0] if estimator is not None and len(estimator.phases) == 1 else None
    # A ridge regression of the tables' columns that is the whole model, whatever the estimator's name.
    if not isinstance(phase, RidgePhase) or not phase.products or phase.correlations or phase.computed is not None:
        return
    columns = phase.cohort_columns
    for made in results.preparation:
        if made.fold is not None and made.fold > (campaign.validation.folds or 0):
            continue  # the final model, which nobody here is predicted by
        step = "ridge" if made.fold is None else f"ridge, fold {made.fold}"
        if made.stood_in:
            not_compared[step] = "site means stand in for missing values that few patients share"
            continue
        if made.penalty is None:
            not_compared[step] = "the run has no penalty of it"
            continue
        name = "model.safetensors" if made.fold is None else f"model-fold-{made.fold}.safetensors"
        model = load_file(job.folder / name)
        if missing := _MODEL_ARRAYS - model.keys():
            not_compared[step] = f"the model has no {', '.join(sorted(missing))}"
            continue
        left_out = {*made.unused, *made.withheld_columns}
        used = np.array([column.removeprefix("feature:") not in left_out for column in columns])
        raw = patients[list(columns)].to_numpy(dtype=np.float64)
        x = np.where(np.isfinite(raw), raw, model["medians"])[:, used]
        target, usable = _on_age_scale(_array(patients, "age_years"), phase.scale)
        trained = usable & patients[SITE].isin(made.sites).to_numpy()
        trained &= _trained(patients, campaign, fold=made.fold)
        slopes, intercept = models.ridge(x[trained], target[trained], made.penalty)
        ours = model["intercept"][0] + _standardised(raw, model)[:, used] @ model["coefficients"][used]
        largest = float(np.abs(ours - (x @ slopes + intercept)).max())
        yield PooledFigure(
            step=step,
            figure=f"predictions for {len(x)} patients on the model's age scale, the largest difference",
            federated=None,
            pooled=None,
            difference=largest,
        )


def _trained(patients: pd.DataFrame, campaign: Campaign, *, fold: int | None) -> NDArray[np.bool_]:
    """Who a model was made from (n,): the others than its fold, or the training part."""
    healthy = patients["healthy"] == 1
    kept = healthy if campaign.cohort.train_on == "healthy" else healthy.notna()
    if fold is None:
        return np.asarray(kept & (patients["is_train"] == 1))
    in_no_sum = (patients["set_aside"] == 1) | (patients["set_aside_incomplete"] == 1)
    return np.asarray(kept & (patients["fold"] != fold - 1) & ~in_no_sum)


def _on_age_scale(age_years: FloatArray, scale: AgeScale) -> tuple[FloatArray, NDArray[np.bool_]]:
    """log(age + offset) or age (n,), and which ages have a place there."""
    if scale.kind == "linear":
        return age_years, np.isfinite(age_years)
    usable = age_years + scale.offset_years >= _SHORTEST_YEARS
    return np.log(np.where(usable, age_years + scale.offset_years, 1.0)), usable


def _standardised(raw: FloatArray, model: Mapping[str, FloatArray]) -> FloatArray:
    """Raw features (n, p) with medians for missing values, in the model's standard deviations."""
    known = np.where(np.isfinite(raw), raw, model["medians"])
    varies = model["sds"] > 0
    return np.where(varies, (known - model["means"]) / np.where(varies, model["sds"], 1.0), 0.0)


def _pairs(
    step: str,
    federated: Mapping[str, float | None],
    pooled: Mapping[str, float],
    *,
    site: str | None = None,
    grouped: bool = False,
) -> Iterator[PooledFigure]:
    """The figures that both have. One that the run withheld or refused is not there to compare."""
    for name, ours in federated.items():
        if ours is None or name not in pooled or not np.isfinite(pooled[name]):
            continue
        theirs = pooled[name]
        yield PooledFigure(
            step=step,
            figure=name,
            site=site,
            federated=ours,
            pooled=theirs,
            difference=ours - theirs,
            grouped=grouped,
        )


def _largest(figures: Sequence[PooledFigure], *, grouped: bool) -> float | None:
    return max((abs(each.difference) for each in figures if each.grouped is grouped), default=None)


def _complete(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows with a finite value in every column."""
    known = np.isfinite(table[list(columns)].to_numpy(dtype=np.float64)).all(axis=1)
    chosen: pd.DataFrame = table[known]
    return chosen


def _array(table: pd.DataFrame, column: str) -> FloatArray:
    return table[column].to_numpy(dtype=np.float64)


def _rounded_up(time: pd.Series, grid_years: float) -> pd.Series:
    """Times rounded up to multiples of the campaign's grid, as it says; as they are if that is 0."""
    return time if grid_years == 0 else np.ceil(time / grid_years - 1e-9) * grid_years
