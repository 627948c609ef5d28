"""A site's sums for the registered analyses of an approved campaign, each released or withheld on its own."""

from __future__ import annotations

from collections.abc import Mapping

from fedage.client import predictions
from fedage.client.guard import Withheld, release
from fedage.common.analyses.base import Analysis, Done, IterateRefused
from fedage.common.analyses.plan import BIAS, registered
from fedage.common.campaign import Campaign
from fedage.common.cohort import Cohort, MissingColumn
from fedage.common.statistic import FloatArray

BIAS_LINE = "bias-line"
"""The pseudo-step whose iterate is the line (slope, intercept) that the server sends when the file says `pooled`."""


def contributions(
    campaign: Campaign,
    cohort: Cohort,
    iterates: Mapping[str, Mapping[str, FloatArray]],
    *,
    guard: bool,
) -> tuple[dict[str, FloatArray], dict[str, dict[str, str]]]:
    """Sums by step, and for each step withheld its rule and reason.

    A step that the file does not contain is withheld like any other, so that one bad step costs only itself.
    """
    steps = registered(campaign)
    sums: dict[str, FloatArray] = {}
    withheld: dict[str, dict[str, str]] = {}
    minimum_count = campaign.privacy.minimum_count if guard else 1
    try:
        corrected = _correct(campaign, cohort, iterates, minimum_count=minimum_count)
    except Withheld as refusal:
        return {}, {step: _reason(refusal) for step in iterates if step != BIAS_LINE}
    for step, iterate in iterates.items():
        if step == BIAS_LINE:
            continue
        try:
            if step not in steps:
                raise Withheld("unknown-step", "the approved campaign file contains no such step")
            sums[step] = _one(steps[step], corrected, iterate, minimum_count=minimum_count)
        except Withheld as refusal:
            withheld[step] = _reason(refusal)
    return sums, withheld


def _one(analysis: Analysis, cohort: Cohort, iterate: Mapping[str, FloatArray], *, minimum_count: int) -> FloatArray:
    try:
        analysis.check(iterate)
        statistic = analysis.local(cohort, iterate)
    except IterateRefused as refusal:
        raise Withheld("iterate", str(refusal)) from None
    except MissingColumn as missing:
        raise Withheld("missing-column", f"this site has no column {missing.column!r}") from None
    return release(statistic, minimum_count=minimum_count).vector


def _correct(
    campaign: Campaign, cohort: Cohort, iterates: Mapping[str, Mapping[str, FloatArray]], *, minimum_count: int
) -> Cohort:
    """The cohort with corrected columns where there are predictions and a line; analyses that need more say so."""
    if "predicted_years" not in cohort.columns:
        return cohort
    if campaign.bias.scope == "site":
        analysis = registered(campaign)[BIAS]
        statistic = analysis.local(cohort, analysis.first())
        if statistic.smallest is None or statistic.smallest.count < minimum_count:
            return cohort
        outcome = analysis.combine(statistic, analysis.first())
        if not isinstance(outcome, Done):
            return cohort
        return predictions.with_correction(
            cohort, slope=float(outcome.result["slope"]), intercept=float(outcome.result["intercept_years"])
        )
    line = iterates.get(BIAS_LINE, {}).get("line")
    if line is None:
        return cohort
    if line.shape != (2,):
        raise Withheld("iterate", "a bias line is a slope and an intercept")
    return predictions.with_correction(cohort, slope=float(line[0]), intercept=float(line[1]))


def _reason(refusal: Withheld) -> dict[str, str]:
    return {"rule": refusal.rule, "detail": refusal.detail}
