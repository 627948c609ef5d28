"""A site's sums for the registered analyses of an approved campaign, each released or withheld on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedage.client.cohort.selection.fold_assignment import NO_FOLD
from fedage.client.cohort.table.columns import model_columns
from fedage.client.compute import predictions
from fedage.client.compute.made_columns import require_no_levels, values_made, with_dither
from fedage.client.consent.accounts.released_columns import ReleasedColumns
from fedage.client.consent.accounts.table_grids import TableGrids
from fedage.client.consent.accounts.thresholds import Thresholds
from fedage.client.consent.accounts.told_bins import ToldBins
from fedage.client.disclosure.guard import Withheld, is_releasable, release
from fedage.client.site.cancel import stop_if_cancelled
from fedage.common.analyses.agreement import rule_of
from fedage.common.analyses.base import Analysis, Done, IterateRefused, LeftOutByFile, Summing
from fedage.common.analyses.bias.bias_line import BiasLine
from fedage.common.analyses.noised_validation import NoisedValidation
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.estimators.base import COMPUTED
from fedage.common.statistics.cohort import (
    LONGEST_FOLLOW_UP_YEARS,
    Cohort,
    MissingColumn,
    UnusableColumn,
    not_years_text,
    only_events_text,
    tells_only_events,
)
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule, require_sums
from fedage.common.statistics.statistic import FloatArray, Statistic

BIAS_LINE = "bias-line"
"""The pseudo-step whose iterate is the line (slope, intercept) that the server sends when the file says `pooled`."""

UNKNOWN_STEP = "unknown-step"
"""The rule that withholds a step which the file does not contain: its name is the message's own invention."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Which account of a deployed site an answer counts for.

    Parameters
    ----------
    folder
        Where the site keeps its accounts: its home.
    name
        Data set and coordinator.
    patients
        Digest of the cohort's patients, whatever the campaign reads of them.
    columns_folder
        Where the site keeps the columns by which sums left, over all coordinators and data sets; None for `folder`.
    keys
        Keyed hashes of the patients, in the order of the cohort's rows.
    secret
        The site's own, which noise on what a model made follows from.
    """

    folder: Path
    patients: str
    name: str = ""
    columns_folder: Path | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """What leaves for the steps of a request.

    Parameters
    ----------
    sums
        By step.
    withheld
        For each step withheld its rule and reason.
    patients
        How many patients are behind the sums together.
    smallest_cell
        The smallest group of patients behind any of them; None if nothing leaves.
    epsilon, privacy
        ε charged for them, and what the reply says of it; empty for sums without noise.
    """

    sums: dict[str, FloatArray]
    withheld: dict[str, dict[str, str]]
    patients: int = 0
    smallest_cell: int | None = None
    epsilon: float = 0.0
    privacy: Mapping[str, Any] = field(default_factory=dict)


def contributions(
    campaign: Campaign,
    cohort: Cohort,
    iterates: Mapping[str, Mapping[str, FloatArray]],
    *,
    folder: Path,
    run: str,
    guard: bool,
    more_steps: Mapping[str, Analysis] | None = None,
    account: Account | None = None,
) -> Contributions:
    """Sums by step, and for each step withheld its rule and reason.

    A step that the file does not contain is withheld like any other, so that one bad step costs only itself; a bias
    line that cannot be had costs the steps that need corrected ages.

    Parameters
    ----------
    campaign
        The approved file; its `cell_minimum` is the one that counts, so a site that wants more raises it.
    folder, run
        The campaign's state folder at the site, and the run.
    account
        Where a deployed site keeps account of what it has answered, over all campaigns; None in simulation, where the
        campaign's state folder holds it.
    """
    steps = {**registered(campaign), **(more_steps or {})}
    left: dict[str, Statistic] = {}
    behind = np.zeros(cohort.n, dtype=np.bool_)
    withheld: dict[str, dict[str, str]] = {}
    minimum_count = campaign.cell_minimum if guard else 1
    accounts = folder if account is None else account.folder
    thresholds = Thresholds(
        accounts,
        account="" if account is None else account.name,
        run=_account_of_model(campaign, run=run),
        minimum_count=minimum_count,
        patients="" if account is None else account.patients,
        has_model=campaign.estimator is not None,
    )
    grids = TableGrids(
        accounts,
        campaign=campaign.digest,
        run=run,
        minimum_count=minimum_count,
        account=None if account is None else account.name,
        patients="" if account is None else account.patients,
    )
    over_all = folder if account is None else account.columns_folder or account.folder
    patients = account.keys if account and account.keys else tuple(map(str, range(cohort.n)))
    told_bins = ToldBins(
        over_all,
        patients=patients,
        model=_account_of_model(campaign, run=run) if campaign.estimator is not None else "",
        minimum_count=minimum_count,
    )
    released = ReleasedColumns(
        over_all,
        patients=patients,
        campaign=campaign.digest,
        of_the_model=_own_columns(campaign, cohort),
        minimum_count=minimum_count,
    )
    rule = rule_of(campaign) if guard else None
    no_line: Withheld | None = None
    made = values_made(campaign, cohort)
    # Without the noise they are for the account of columns alone, which compares with earlier ones.
    seen = [cohort]
    if account is not None and account.secret and minimum_count > 1:
        seen.insert(0, with_dither(cohort, campaign, patients=patients, secret=account.secret))
    try:
        seen = [_correct(campaign, each, iterates, thresholds, minimum_count=minimum_count) for each in seen]
    except Withheld as refusal:
        no_line = refusal
    cohort, as_made = seen[0], seen[-1]
    # In the order of the file, as of two columns that nearly repeat each other the later one is withheld.
    in_order = [*(more_steps or {}), *steps]
    for step, iterate in sorted(iterates.items(), key=lambda item: in_order.index(item[0]) if item[0] in steps else 0):
        if step == BIAS_LINE:
            continue
        stop_if_cancelled()
        try:
            if step not in steps:
                raise Withheld(UNKNOWN_STEP, "the approved campaign file contains no such step")
            left[step] = _one(
                steps[step],
                cohort,
                as_made,
                iterate,
                thresholds,
                grids,
                told_bins,
                released,
                made=made,
                minimum_count=minimum_count,
                rule=rule,
            )
            subset = getattr(steps[step], "subset", None)
            behind |= True if subset is None else cohort[subset] == 1
        except _Missing as missing:
            withheld[step] = _reason(_why_missing(missing, cohort, no_line))
        except Withheld as refusal:
            withheld[step] = _reason(refusal)
    return Contributions(
        sums={step: statistic.vector for step, statistic in left.items()},
        withheld=withheld,
        patients=int(np.count_nonzero(behind)),
        smallest_cell=min((one.smallest.count for one in left.values() if one.smallest), default=None),
    )


def _account_of_model(campaign: Campaign, *, run: str) -> str:
    """Whose account the thresholds and the line on a model's columns are: the run's that made it, or the bundle's.

    Attack: each run of a campaign that validates a bundle, and each file that names it, compares the same predictions
    with other values. Rule: they share one account.
    """
    return f"{campaign.digest[:16]} {run}" if campaign.bundle is None else f"bundle {campaign.bundle[:32]}"


def _own_columns(campaign: Campaign, cohort: Cohort) -> frozenset[str]:
    """Columns that follow from sums over all sites, so that no account of them is kept.

    Attack: two bundles that predict the same for all but a few; the sums by the one less those by the other are theirs.
    Rule: what a bundle predicts is accounted for as a column of the site's table is.
    """
    if campaign.bundle is not None:
        return frozenset()
    return model_columns(campaign).union(name for name in cohort.columns if name.startswith(COMPUTED))


class _Missing(Withheld):
    """A step needs a column that the cohort does not have."""

    def __init__(self, column: str) -> None:
        self.column = column
        super().__init__("missing-column", f"this site has no column {column!r}")


def _why_missing(missing: _Missing, cohort: Cohort, no_line: Withheld | None) -> Withheld:
    """Why a column is not there: without a line there are no corrected ages, and not by every line Cole's gaps."""
    if missing.column not in predictions.CORRECTED:
        return missing
    if no_line is None and "gap_years" in cohort.columns:
        return Withheld(BIAS_LINE, predictions.NO_SUCH_LINE)
    return no_line or missing


def _one(
    analysis: Analysis,
    cohort: Cohort,
    as_made: Cohort,
    iterate: Mapping[str, FloatArray],
    thresholds: Thresholds,
    grids: TableGrids,
    told_bins: ToldBins,
    released: ReleasedColumns,
    *,
    made: tuple[str, ...],
    minimum_count: int,
    rule: InfluenceRule | None,
) -> Statistic:
    if getattr(analysis, "of_total", False):
        # A hidden sum, of which the minimum count is asked over all sites (`survival.total_grid`).
        minimum_count, released = 1, released.of_total()
    try:
        analysis.check(iterate)
        _require_follow_up(analysis, cohort)
        thresholds.require_counted(analysis, cohort, iterate)
        grids.require_rounding(analysis)
        analysis = told_bins.accounted(grids.accounted(analysis, iterate), cohort)
        if rule is not None:
            require_no_levels(analysis, as_made, iterate, made=made, minimum_count=minimum_count)
        if isinstance(analysis, NoisedValidation):
            # Its own noise is for one patient's values; the size of a column's noise follows from all of them.
            cohort = as_made
        while True:
            question = released.question_of(analysis, as_made, iterate)
            statistic = analysis.local(question.over(cohort), iterate)
            releasable = is_releasable(statistic, minimum_count=minimum_count)
            if rule is not None and isinstance(analysis, Summing) and releasable:
                require_sums(analysis.summed(cohort, iterate), rule)
            # On disk before anything leaves; asked anew if other sums left meanwhile.
            if not releasable or released.keep(question):
                break
    except IterateRefused as refusal:
        raise Withheld("iterate", str(refusal)) from None
    except LeftOutByFile as left_out:
        raise Withheld("left-out-by-file", str(left_out)) from None
    except InfluenceRefused as refusal:
        raise Withheld(refusal.rule, str(refusal)) from None
    except MissingColumn as missing:
        raise _Missing(missing.column) from None
    except UnusableColumn as unusable:
        raise Withheld("column-values", str(unusable)) from None
    allowed = thresholds.accounted(analysis, cohort, iterate, release(statistic, minimum_count=minimum_count))
    grids.answered(analysis, iterate, allowed)
    return allowed


def _require_follow_up(analysis: Analysis, cohort: Cohort) -> None:
    """Refuse follow-up times of which one is longer than any life (their unit is another), and events without a 0.

    Days at one site beside years at another would make one curve of both; without the impossible times, only those
    followed for a short time would be left.

    Raises
    ------
    UnusableColumn
        With the mapping that would mend it.
    """
    time, event = getattr(analysis, "time", None), getattr(analysis, "event", None)
    if not isinstance(time, str) or time not in cohort.columns:
        return
    if np.any(cohort[time] > LONGEST_FOLLOW_UP_YEARS):
        raise UnusableColumn(time, not_years_text(time))
    known = isinstance(event, str) and event in cohort.columns
    if known and tells_only_events(time=cohort[time], event=cohort[str(event)]):
        raise UnusableColumn(str(event), only_events_text(str(event)))


def _correct(
    campaign: Campaign,
    cohort: Cohort,
    iterates: Mapping[str, Mapping[str, FloatArray]],
    thresholds: Thresholds,
    *,
    minimum_count: int,
) -> Cohort:
    """The cohort with corrected columns, or as it is before there are predictions.

    Raises
    ------
    Withheld
        If there is no line to correct by, with the reason.
    """
    if campaign.estimator is None or "predicted_years" not in cohort.columns:
        return cohort
    if campaign.bias.scope == "site":
        if campaign.validation.folds is not None:
            return _corrected_without_themselves(campaign, cohort, minimum_count=minimum_count)
        slope, intercept = _own_line(cohort, minimum_count=minimum_count)
        return predictions.with_correction(cohort, slope=slope, intercept=intercept, minimum_count=minimum_count)
    line = iterates.get(BIAS_LINE, {}).get("line")
    if line is None:
        raise Withheld(
            BIAS_LINE, "the campaign file asks for one bias line for all sites, and the request does not contain it"
        )
    if line.shape != (2,):
        raise Withheld("iterate", "a bias line must be two numbers, slope and intercept")
    slope, intercept = float(line[0]), float(line[1])
    predictions.require_line(slope=slope, intercept=intercept)
    # Counted before it is tried on the patients, as its refusal tells of them.
    thresholds.require_line(slope=slope, intercept=intercept)
    return predictions.with_correction(cohort, slope=slope, intercept=intercept, minimum_count=minimum_count)


def _corrected_without_themselves(campaign: Campaign, cohort: Cohort, *, minimum_count: int) -> Cohort:
    """Each fold corrected by the line of the other folds' healthy patients: nobody helps to fit their own line."""
    slopes, intercepts = np.ones(cohort.n), np.zeros(cohort.n)  # of those in no fold, who have no prediction either
    in_a_fold = cohort["fold"] != NO_FOLD
    for fold in range(campaign.validation.folds or 0):
        inside = cohort["fold"] == fold
        if inside.any():
            others = cohort.with_columns(is_validation=(in_a_fold & ~inside).astype(np.float64))
            slopes[inside], intercepts[inside] = _own_line(others, minimum_count=minimum_count)
    return predictions.with_correction(cohort, slope=slopes, intercept=intercepts, minimum_count=minimum_count)


def _own_line(cohort: Cohort, *, minimum_count: int) -> tuple[float, float]:
    """Slope and intercept (years) of the site's own bias line."""
    analysis = BiasLine()  # it stays here, so that it needs no noise
    statistic = analysis.local(cohort, analysis.first())
    if statistic.smallest is None or statistic.smallest.count < minimum_count:
        raise Withheld(BIAS_LINE, f"fewer than {minimum_count} healthy validation patients to fit the line on")
    outcome = analysis.combine(statistic, analysis.first())
    if not isinstance(outcome, Done):
        raise Withheld(BIAS_LINE, "this site's own line cannot be fitted: too few patients, ages or too flat a line")
    return float(outcome.result["slope"]), float(outcome.result["intercept_years"])


def _reason(refusal: Withheld) -> dict[str, str]:
    return {"rule": refusal.rule, "detail": refusal.detail}
