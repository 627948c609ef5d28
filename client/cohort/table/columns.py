"""A table's columns as numbers: those that the campaign names, and the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.table.cell_forms import Codes, form_codes, is_miswritten, known_words
from fedage.client.cohort.table.header import columns_text
from fedage.client.cohort.table.read import Mask, is_text_column, parse_numbers
from fedage.client.cohort.table.sex import kinds_of_words, parse_sexes
from fedage.common import estimators
from fedage.common.analyses.registry import of_campaign
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import on_tables
from fedage.common.estimators.table import FEATURE
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import pandas as pd

    from fedage.common.estimators.base import Estimator

MODEL_COLUMNS = ("gap_years", "raw_gap_years", "cole_gap_years", "predicted_years", "corrected_years")
"""Columns that a campaign with an estimator computes. A campaign without one reads them from the table."""


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
        Columns that hold text, which cannot be features.
    empty
        Features without any value.
    wrong
        By column, which cells (n,) hold something that is no number; only columns that have such cells.
    written
        By column, form codes (n,) of those cells (`form_codes`); not for the sex.
    words
        By column, the known words for yes and no in it.
    miswritten
        Numeric columns in which some numbers are in a form that is not read; none of them is a feature.
    female
        The numbers that were read as female.
    sex_words
        What each cell of the sex column is as a word (`sex.kinds_of_words`), (n,); None without such a column.
    """

    cohort: Mapping[str, FloatArray]
    features: Mapping[str, FloatArray]
    text: frozenset[str]
    empty: frozenset[str]
    not_numbers: Mapping[str, Mask]
    cell_codes: Mapping[str, Codes] = field(default_factory=dict)
    yes_no_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    miswritten: frozenset[str] = frozenset()
    female: frozenset[float] = frozenset()
    sex_words: NDArray[np.object_] | None = None


def model_columns(campaign: Campaign) -> frozenset[str]:
    """Columns that the campaign's model computes; none without an estimator."""
    if campaign.estimator is None:
        return frozenset()
    return frozenset((*MODEL_COLUMNS, *(output.column for output in estimator_outline(campaign).outputs)))


def estimator_outline(campaign: Campaign) -> Estimator:
    """The campaign's estimator, not yet configured with a table's features."""
    assert campaign.estimator is not None
    return estimators.make(campaign.estimator.name, campaign.estimator.options)


def columns_beside_images(estimator: Estimator) -> tuple[str, ...]:
    """Columns of the site's outcomes that make the row of an estimator on images, by their names there."""
    row = () if on_tables(estimator) else estimator.row_columns
    return tuple(column.removeprefix(FEATURE) for column in row if column.startswith(FEATURE))


def named_columns(campaign: Campaign) -> tuple[str, ...]:
    """Table columns that the campaign's analyses name: outcomes, covariates, groups, health."""
    table, names = campaign.table, []
    if campaign.cohort.healthy != "all":
        names.append(campaign.cohort.healthy.column)
    names += [column for definition in of_campaign(campaign) for column in definition.columns(campaign)]
    computed = {"healthy"}
    if table and table.age:
        computed.add("age_years")
    if table and table.sex:
        computed.add("is_male")
    if campaign.estimator is not None:
        target_columns = (target.column for target in estimator_outline(campaign).targets)
        names += [column for column in target_columns if column not in ("age_years", "is_male")]  # read anyway
        names += columns_beside_images(estimator_outline(campaign))
        computed.update(model_columns(campaign))
    elif table and table.predicted and table.age:
        computed.update(("predicted_years", "raw_gap_years"))
    return tuple(name for name in dict.fromkeys(names) if name not in computed)


def wanted_columns(campaign: Campaign, *, site_column: str | None) -> tuple[str, ...]:
    """All columns that a table must have, each once; features are not included."""
    table = campaign.table
    roles = (table.id, table.age, table.sex, table.predicted) if table else ()
    wanted = [site_column, *roles, *named_columns(campaign)]
    return tuple(name for name in dict.fromkeys(wanted) if name)


def require_columns(frame: pd.DataFrame, campaign: Campaign, *, path: Path, site_column: str | None) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    FedAgeError
        Naming all missing columns, and those with a similar name.
    """
    wanted = wanted_columns(campaign, site_column=site_column)
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        available = columns_text(list(frame.columns), wanted=missing, known=wanted)
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in missing)} (it has {available}); "
            f"correct the name in the campaign file or in the table{_gap_column_hint(missing, campaign)}"
        )


def _gap_column_hint(missing: Sequence[str], campaign: Campaign) -> str:
    """How to provide a missing column of age gaps, which the campaign file need not name."""
    if campaign.estimator is not None or not any(name in MODEL_COLUMNS for name in missing):
        return ""
    needed_by = "[groups] compares" if campaign.groups else "the campaign asks for"
    return f". {needed_by} the age gap: name the column of predicted ages in table.predicted, or add a column of gaps"


def read_columns(frame: pd.DataFrame, campaign: Campaign, table: TableChoice, *, site_column: str | None) -> Columns:
    """Read all columns of a table as numbers."""
    named = named_columns(campaign)
    cohort: dict[str, FloatArray] = {"is_male": np.full(len(frame), np.nan)}
    features: dict[str, FloatArray] = {}
    not_numbers: dict[str, Mask] = {}
    cell_codes: dict[str, Codes] = {}
    yes_no_words: dict[str, tuple[str, ...]] = {}
    text, empty, miswritten = set(), set(), set()
    female: frozenset[float] = frozenset()
    sex_words = None
    for column in frame.columns:
        if column in (site_column, table.id) and column not in named:
            continue
        values, is_not_number = parse_numbers(frame[column], missing=table.missing)
        if column == table.sex:
            cohort["is_male"], is_not_number, female = parse_sexes(frame[column], table)
            sex_words = kinds_of_words(frame[column])
            values = _as_codes(values, cohort["is_male"], table)
        elif is_not_number.any():
            cell_codes[column] = form_codes(frame[column], is_not_number)
            yes_no_words[column] = tuple(known_words(frame[column][is_not_number].astype("string").unique()))
            if is_miswritten(cell_codes[column], numbers=int(np.isfinite(values).sum())):
                miswritten.add(column)
        is_named = column in (table.age, table.sex, table.predicted) or column in named
        if not is_named and (column in miswritten or is_text_column(values, is_not_number)):
            text.add(column)
            continue
        if is_not_number.any():
            not_numbers[column] = is_not_number
        if column == table.age:
            cohort["age_years"] = values
        if column == table.predicted:
            cohort["predicted_years"] = values
        if column in named:
            cohort[column] = values
        if not is_named:
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
        not_numbers,
        cell_codes,
        yes_no_words,
        frozenset(miswritten),
        female,
        sex_words,
    )


def _as_codes(values: FloatArray, is_male: FloatArray, table: TableChoice) -> FloatArray:
    """A sex column's codes (n,), with the code for a word where it holds one; NaN where unknown."""
    codes = np.where(is_male == 1, table.male, table.male - 1 if table.female is None else table.female)
    return np.where(np.isnan(is_male), np.nan, np.where(np.isnan(values), codes, values))
