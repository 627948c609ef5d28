"""How a site's own tables are to be read: which column is what, what its words mean. Parts of `site.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedage.common.campaign.types import Column, Header


def _absolute(value: str) -> str:
    if not Path(value).is_absolute():
        raise ValueError("must be an absolute path")
    return value


RecipeName = Literal["rsna-pneumonia", "rsna-mammography", "vindr", "embed", "cmmd", "openbhb"]
"""Public data sets whose layout is known; see `recipes`."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Part(BaseModel):
    """Base of the tables of `site.toml`: frozen, strict types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class Mapped(Part):
    """One column that campaigns may name, and how it is made of one of the hospital's."""

    column: Header = Field(description="the hospital's name of the column")
    values: dict[str, float] = Field(default_factory=dict, description="what its words mean; empty if it holds numbers")
    others: float | None = Field(default=None, description="what any word not in values means; none: missing, counted")
    divide_by: float = Field(default=1.0, gt=0, description="e.g. 365.25 to turn days into years")
    rows: Literal["first", "max", "min"] = Field(
        default="first", description="what counts where a patient has several rows"
    )


ColumnMap = dict[Column, Annotated[Header | Mapped, Field(union_mode="left_to_right")]]


class OutcomeColumns(Part):
    """`[outcome_columns]`: what the columns of the CSV of outcomes are."""

    id: Header = Field(default="patient_id", description="column of the patients' identifiers, as in the images")
    missing: tuple[float, ...] = Field(default=(), description="values that mean missing, e.g. -9999")
    columns: ColumnMap = Field(
        default_factory=dict,
        description="campaigns' names to the hospital's columns; empty: every numeric column by its own name",
    )


class TableSource(Part):
    """`[table]`: a table as the site's data, one row a patient."""

    path: AbsolutePath = Field(description="CSV, TSV or Parquet, opened read-only")
    id: Header = Field(description="column of the patients' identifiers")
    keyed: bool = Field(
        default=False, description="id holds this site's keyed hashes, as fedage site out-of-fold writes them"
    )
    age: Header | None = Field(default=None, description="column with the age in years, whatever campaigns call it")
    sex: Header | None = Field(default=None, description="column with the sex, whatever campaigns call it")
    male: float | str = Field(default="M", description="its value for males")
    female: float | str = Field(default="F", description="its value for females")
    missing: tuple[float, ...] = Field(default=(), description="values that mean missing, e.g. -9999")
    columns: dict[Header, Header | Mapped] = Field(
        default_factory=dict, description="campaigns' names to the table's, where they differ or hold words"
    )
    use: tuple[Header, ...] = Field(default=("*",), description="columns, or patterns, that campaigns may use")
    leave_out: tuple[Header, ...] = Field(default=(), description="columns, or patterns, that no campaign may use")


def as_mapped(choice: str | Mapped) -> Mapped:
    """A plain name as the column of that name."""
    return choice if isinstance(choice, Mapped) else Mapped(column=choice)
