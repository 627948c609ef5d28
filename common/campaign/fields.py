"""What all tables of a campaign file are made of: their base, and the values that several of them have."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedage.common.toml.column_names import PATTERN, is_column_name, normal_name


class Table(BaseModel):
    """Base of all tables: frozen, strict types, unknown keys refused.

    What checks a table is built when one is first checked, as commands that only read need few of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


def column_name(text: str) -> str:
    """The text in its normal form if it is a column's name; raises `ValueError` if not."""
    text = normal_name(text)
    if not is_column_name(text):
        raise ValueError("must be a column name without blanks at its ends")
    return text


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Column = Annotated[str, Field(pattern=PATTERN), AfterValidator(column_name)]
Header = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(normal_name)]
"""A column of a table, whatever it is called there."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Norm = Annotated[float, Field(ge=1e-3, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]

LIKELY_SITE = "likely_site"
"""Predicted column: the number of the likeliest site, from 1, in the order of those that train in campaign.sites."""
RISK_YEARS = 5
"""Years of risk that an estimator predicts, see `risk_column`."""
OUTCOME_PROBABILITY, PREDICTED_SCORE = "outcome_probability", "predicted_score"
"""Columns that estimators predict of a diagnosis and of a score."""


def risk_column(year: int) -> str:
    """Column with the risk of the event within so many years of the exam.

    >>> risk_column(1), risk_column(5)
    ('risk_1_year', 'risk_5_years')
    """
    return f"risk_{year}_year" + "s" * (year > 1)
