"""A table's columns as numbers, by what they are for: those that the campaign names, and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import Codes, forms, is_miswritten, known_words
from fedage.client.cohort.table.header import columns_in_words
from fedage.client.cohort.table.read import Mask, is_text, numbers
from fedage.client.cohort.table.sex import kinds_of_words, sexes
from fedage.common import estimators
from fedage.common.analyses.plan import definitions
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import pandas as pd

    from fedage.common.estimators.base import Estimator

OF_THE_MODEL = ("gap_years", "raw_gap_years", "cole_gap_years", "predicted_years", "corrected_years")
"""Columns that a campaign with an estimator computes; one without has to find them in the table."""


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
    written
        By column, what the cells without a number hold instead (`forms`), (n,); only columns with some, not the sex.
    words
        By column, those known words for yes and no that it holds.
    miswritten
        Columns of numbers of which some are written otherwise; none of them is a feature.
    female
        The numbers that were read as female.
    sex_words
        What each cell of the sex column is as a word (`sex.kinds_of_words`), (n,); None without such a column.
    """

    cohort: Mapping[str, FloatArray]
    features: Mapping[str, FloatArray]
    text: frozenset[str]
    empty: frozenset[str]
    wrong: Mapping[str, Mask]
    written: Mapping[str, Codes] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    miswritten: frozenset[str] = frozenset()
    female: frozenset[float] = frozenset()
    sex_words: NDArray[np.object_] | None = None


def of_the_model(campaign: Campaign) -> frozenset[str]:
    """Columns that the campaign's model makes; none without an estimator."""
    if campaign.estimator is None:
        return frozenset()
    return frozenset((*OF_THE_MODEL, *(output.column for output in estimator_outline(campaign).outputs)))


def estimator_outline(campaign: Campaign) -> Estimator:
    """The campaign's estimator before it has seen any table."""
    assert campaign.estimator is not None
    return estimators.make(campaign.estimator.name, campaign.estimator.options)


def named_columns(campaign: Campaign) -> tuple[str, ...]:
    """Columns of the tables that the campaign's analyses name: outcomes, covariates, groups, health."""
    table, named = campaign.table, []
    if campaign.cohort.healthy != "all":
        named.append(campaign.cohort.healthy.column)
    named += [column for each in definitions(campaign) for column in each.columns(campaign)]
    made = {"healthy"}
    if table and table.age:
        made.add("age_years")
    if table and table.sex:
        made.add("is_male")
    if campaign.estimator is not None:
        learnt = (target.column for target in estimator_outline(campaign).targets)
        named += [column for column in learnt if column not in ("age_years", "is_male")]  # read anyway
        made.update(of_the_model(campaign))
    elif table and table.predicted and table.age:
        made.update(("predicted_years", "raw_gap_years"))
    return tuple(name for name in dict.fromkeys(named) if name not in made)


def wanted_columns(campaign: Campaign, *, site_column: str | None) -> tuple[str, ...]:
    """All columns that a table must have, each once; features are not among them."""
    table = campaign.table
    roles = (table.id, table.age, table.sex, table.predicted) if table else ()
    wanted = [site_column, *roles, *named_columns(campaign)]
    return tuple(name for name in dict.fromkeys(wanted) if name)


def require_columns(frame: pd.DataFrame, campaign: Campaign, *, path: Path, site_column: str | None) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    FedAgeError
        Naming all columns that are missing, and those that are called nearly so.
    """
    wanted = wanted_columns(campaign, site_column=site_column)
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        there = columns_in_words(list(frame.columns), wanted=missing, known=wanted)
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in missing)} (it has {there}); "
            f"correct the name in the campaign file or in the table{_of_a_gap(missing, campaign)}"
        )


def _of_a_gap(missing: Sequence[str], campaign: Campaign) -> str:
    """Where a missing column of gaps comes from: no line of the campaign file need name it."""
    if campaign.estimator is not None or not any(name in OF_THE_MODEL for name in missing):
        return ""
    who = "[groups] compares" if campaign.groups else "the campaign asks for"
    return f". {who} the age gap: name the column with predicted ages in table.predicted, or bring one of gaps"


def read_columns(frame: pd.DataFrame, campaign: Campaign, table: TableChoice, *, site_column: str | None) -> Columns:
    """All numbers of a table."""
    named = named_columns(campaign)
    cohort: dict[str, FloatArray] = {"is_male": np.full(len(frame), np.nan)}
    features: dict[str, FloatArray] = {}
    wrong: dict[str, Mask] = {}
    written: dict[str, Codes] = {}
    words: dict[str, tuple[str, ...]] = {}
    text, empty, miswritten = set(), set(), set()
    female: frozenset[float] = frozenset()
    sex_words = None
    for column in frame.columns:
        if column in (site_column, table.id) and column not in named:
            continue
        values, odd = numbers(frame[column], missing=table.missing)
        if column == table.sex:
            cohort["is_male"], odd, female = sexes(frame[column], table)
            sex_words = kinds_of_words(frame[column])
            values = _as_codes(values, cohort["is_male"], table)
        elif odd.any():
            written[column] = forms(frame[column], odd)
            words[column] = tuple(known_words(frame[column][odd].astype("string").unique()))
            if is_miswritten(written[column], numbers=int(np.isfinite(values).sum())):
                miswritten.add(column)
        asked_for = column in (table.age, table.sex, table.predicted) or column in named
        if not asked_for and (column in miswritten or is_text(values, odd)):
            text.add(column)
            continue
        if odd.any():
            wrong[column] = odd
        if column == table.age:
            cohort["age_years"] = values
        if column == table.predicted:
            cohort["predicted_years"] = values
        if column in named:
            cohort[column] = values
        if not asked_for:
            features[column] = values
            if not np.isfinite(values).any():
                empty.add(column)
    if "predicted_years" in cohort and "age_years" in cohort:
        cohort["raw_gap_years"] = cohort["predicted_years"] - cohort["age_years"]
    return Columns(
        cohort,
        features,
        frozenset(text),
        frozenset(empty),
        wrong,
        written,
        words,
        frozenset(miswritten),
        female,
        sex_words,
    )


def _as_codes(values: FloatArray, is_male: FloatArray, table: TableChoice) -> FloatArray:
    """A sex column's numbers (n,), with the words' codes where it holds words; NaN where it says nothing."""
    codes = np.where(is_male == 1, table.male, table.male - 1 if table.female is None else table.female)
    return np.where(np.isnan(is_male), np.nan, np.where(np.isnan(values), codes, values))
