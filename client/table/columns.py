"""A table's columns as numbers, by what they are for: those that the campaign names, and features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.client.table.read import Mask, is_text, numbers
from fedage.common.analyses.plan import curves_by
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.statistic import FloatArray

OF_THE_MODEL = ("gap_years", "raw_gap_years", "cole_gap_years", "predicted_years", "corrected_years")
"""Columns that a campaign with an estimator computes; one without has to find them in the table."""
_SEX = {"m": True, "male": True, "f": False, "female": False}


@dataclass(frozen=True)
class Columns:
    """A table's numbers.

    Parameters
    ----------
    cohort
        `age_years`, `is_male` and what the campaign names, (n,) each.
    features
        The other columns, by their names in the table, NaN where missing.
    text
        Columns that hold no numbers, so are no features.
    empty
        Features without any value.
    wrong
        By column, which cells hold no number where numbers belong, (n,); only columns with some.
    """

    cohort: Mapping[str, FloatArray]
    features: Mapping[str, FloatArray]
    text: frozenset[str]
    empty: frozenset[str]
    wrong: Mapping[str, Mask]


def named_columns(campaign: Campaign) -> tuple[str, ...]:
    """Columns of the tables that the campaign's analyses name: outcomes, covariates, groups, health."""
    table, named = campaign.table, []
    if campaign.cohort.healthy != "all":
        named.append(campaign.cohort.healthy.column)
    if survival := campaign.survival:
        named += [survival.time, survival.event, *survival.strata]
        named += [covariate for model in survival.models for covariate in model.covariates]
        if survival.table_times_years and (split := curves_by(campaign)):
            named.append(split)
    if groups := campaign.groups:
        named += [groups.column, *groups.covariates]
        if campaign.estimator is None:
            named.append("gap_years" if campaign.bias.scale == "de-lange" else "cole_gap_years")
    made = {"healthy"}
    if table and table.age:
        made.add("age_years")
    if table and table.sex:
        made.add("is_male")
    if campaign.estimator is not None:
        made.update(OF_THE_MODEL)
    elif table and table.predicted and table.age:
        made.update(("predicted_years", "raw_gap_years"))
    return tuple(name for name in dict.fromkeys(named) if name not in made)


def require_columns(frame: pd.DataFrame, campaign: Campaign, *, path: Path, site_column: str | None) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    FedAgeError
        Naming all columns that are missing, and some of those there are.
    """
    table = campaign.table
    wanted = [
        site_column,
        *((table.id, table.age, table.sex, table.predicted) if table else ()),
        *named_columns(campaign),
    ]
    missing = [name for name in dict.fromkeys(wanted) if name and name not in frame.columns]
    if missing:
        there = ", ".join(list(frame.columns)[:20]) + (" …" if len(frame.columns) > 20 else "")
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in missing)} (it has {there}); "
            "correct the name in the campaign file or in the table"
        )


def read_columns(frame: pd.DataFrame, campaign: Campaign, table: TableChoice, *, site_column: str | None) -> Columns:
    """All numbers of a table."""
    named = named_columns(campaign)
    cohort: dict[str, FloatArray] = {"is_male": np.full(len(frame), np.nan)}
    features: dict[str, FloatArray] = {}
    wrong: dict[str, Mask] = {}
    text, empty = set(), set()
    for column in frame.columns:
        if column in (site_column, table.id) and column not in named:
            continue
        raw = _sex(frame[column], male=table.male) if column == table.sex else frame[column]
        values, odd = numbers(raw, missing=table.missing)
        asked_for = column in (table.age, table.sex, table.predicted) or column in named
        if not asked_for and is_text(values, odd):
            text.add(column)
            continue
        if odd.any():
            wrong[column] = odd
        if column == table.age:
            cohort["age_years"] = values
        if column == table.predicted:
            cohort["predicted_years"] = values
        if column == table.sex:
            cohort["is_male"] = np.where(np.isnan(values), np.nan, (values == table.male).astype(np.float64))
        if column in named:
            cohort[column] = values
        if not asked_for:
            features[column] = values
            if not np.isfinite(values).any():
                empty.add(column)
    if "predicted_years" in cohort and "age_years" in cohort:
        cohort["raw_gap_years"] = cohort["predicted_years"] - cohort["age_years"]
    return Columns(cohort, features, frozenset(text), frozenset(empty), wrong)


def _sex(column: pd.Series, *, male: float) -> pd.Series:
    """A column of sexes in letters or words as numbers; any other as it is."""
    words = column.astype("string").str.strip().str.lower()
    if not words.isin(_SEX).any():
        return column
    known = words.map(_SEX)
    return column.astype(object).mask(known.eq(True), male).mask(known.eq(False), male - 1)
