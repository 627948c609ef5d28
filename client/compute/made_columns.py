"""Columns that a campaign's model makes: the noise that a site adds to them, and when their sums do not leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedage.client.cohort.table.columns import MODEL_COLUMNS, estimator_outline
from fedage.client.disclosure.dither import dither_of
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.base import Analysis
from fedage.common.analyses.columns_read import ReadsColumns, with_rows
from fedage.common.campaign import Campaign
from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.estimators.base import COMPUTED, PREDICTED_YEARS
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import RULE, differing
from fedage.common.statistics.influence_levels import few_beside_levels, noise_sd_of
from fedage.common.statistics.statistic import FloatArray


def values_made(campaign: Campaign, cohort: Cohort) -> tuple[str, ...]:
    """The columns of values that the campaign's model made, as it made them; gaps follow from the age among them."""
    if campaign.estimator is None:
        return ()
    # A site's number is told as counts alone, and has levels by its nature.
    outputs = {output.column for output in estimator_outline(campaign).outputs} - {LIKELY_SITE}
    return tuple(name for name in cohort.columns if name in outputs or name.startswith(COMPUTED))


def with_dither(cohort: Cohort, campaign: Campaign, *, patients: Sequence[str], secret: bytes) -> Cohort:
    """The cohort with the site's noise on what the model made (`dither_of`), and the gaps that follow from it."""
    made: dict[str, FloatArray] = {
        name: cohort[name] + dither_of(name, cohort[name], patients=patients, secret=secret)
        for name in values_made(campaign, cohort)
    }
    if PREDICTED_YEARS in made and "raw_gap_years" in cohort.columns:
        made["raw_gap_years"] = made[PREDICTED_YEARS] - cohort["age_years"]
    return cohort.with_columns(**made) if made else cohort


def require_no_levels(
    analysis: Analysis, cohort: Cohort, iterate: Mapping[str, FloatArray], *, made: Sequence[str], minimum_count: int
) -> None:
    """Refuse sums over what a model made to have few patients beside levels; `cohort` as it was made, without noise.

    Raises
    ------
    Withheld
        Rule `minimum-count` or `influence`.
    """
    if minimum_count == 1 or not made or not isinstance(analysis, ReadsColumns):
        return
    read = analysis.columns_read(with_rows(cohort), iterate)
    if read.leave is None or not read.rows.size:
        return
    names = {PREDICTED_YEARS if name in MODEL_COLUMNS else name for name in read.leave}
    for name in made:
        if name not in names or name.startswith(COMPUTED):
            continue
        values = cohort[name][read.rows]
        if 0 < differing(values) < minimum_count:
            raise Withheld("minimum-count", f"fewer than {minimum_count} patients with another {name} than the others")
        if few_beside_levels(values, noise_sd=noise_sd_of(cohort[name]), minimum_count=minimum_count):
            raise Withheld(
                RULE,
                f"{name} has a few levels at this site, and too few patients beside them; sums over it would give "
                "these few away",
            )
