"""What a bundle says of its model: everything that a site needs to use it, and to know for whom it was made.

Ages, gaps and lines are in years. Legend: Ω chronological age, ŷ predicted age, p columns of a row.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from fedage.common.campaign.types import TableChoice
from fedage.common.record.parts import Number, Part

FORMAT: Literal[1] = 1
OVERALL = "all sites"
"""What the line over all sites is called where a site's own may be chosen instead."""


class Line(Part):
    """A bias line ŷ = slope · Ω + intercept, on patients that the model was not trained on."""

    slope: float = Field(gt=0, description="a")
    intercept_years: float = Field(description="b")
    n: int = Field(ge=0, description="healthy patients it is fitted on")


class BoundedColumn(Part):
    """A column that the model predicts, with the bounds that predictions are cut to."""

    column: str
    lower: float
    upper: float


class InputTaken(Part):
    """What an exam must hold."""

    name: str
    rank: int
    modalities: tuple[str, ...] = ()
    optional: bool = False


class Errors(Part):
    """How far predicted ages were off, on patients that the model was not trained on."""

    n: int = Field(description="patients")
    mae_years: Number = Field(description="mean absolute error, raw")
    mean_error_years: Number = None
    mae_of_mean_years: Number = Field(default=None, description="of predicting the mean age for everybody")


class Origin(Part):
    """The run that the model comes from."""

    campaign: str
    purpose: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the campaign file's bytes")
    run: str
    environment: Literal["deployment", "simulation"]
    guard: bool = Field(description="whether the sites' disclosure control was on")
    phantoms: bool = Field(description="whether the patients were rendered by FedAge and are nobody")
    folds: int | None = Field(default=None, description="folds beside which this final model was made; null without")
    finished_utc: str | None = None


class TrainedOn(Part):
    """Who the model was made from."""

    sites: dict[str, int | None] = Field(description="sites with their patients; null where too few to be told")
    train_on: str = Field(default="all", description="`all` or `healthy`")
    age_limits_years: tuple[float, float] = Field(description="youngest and oldest age that the campaign took")
    ages_seen_years: tuple[float, float] | None = Field(
        default=None, description="between which ages patients are told of; null where nobody told ages"
    )


class Description(Part):
    """A bundle without its arrays; `sha256` of those is in it, and the signature is over all of it."""

    format: Literal[1] = FORMAT
    fedage_version: str
    origin: Origin
    estimator: str
    options: dict[str, Any] = Field(description="the estimator's, features of a table by their names")
    samples_version: int = Field(description="version of the estimator's preprocessing")
    shapes: dict[str, tuple[int, ...]] = Field(description="of a sample's arrays")
    inputs: tuple[InputTaken, ...]
    row: tuple[str, ...] = Field(default=(), description="columns (p,) of a row, in the model's order")
    outputs: tuple[BoundedColumn, ...]
    age_scale: str = Field(default="years", description="what the model is linear in, or predicts")
    age_offset_years: float = Field(default=0.0, description="added to age before the logarithm")
    table: dict[str, Any] | None = Field(default=None, description="`[table]` of the campaign file")
    modality: tuple[str, ...] = Field(default=(), description="DICOM modalities; empty means the estimator's")
    trained_on: TrainedOn
    bias_method: str = "linear"
    lines: dict[str, Line] = Field(default_factory=dict, description="bias lines by site")
    overall_line: Line | None = Field(default=None, description="over all sites")
    errors: Errors | None = Field(default=None, description="over all sites that told any")
    errors_by_site: dict[str, Errors] = Field(default_factory=dict)
    own_statistics: bool = Field(
        default=False,
        description="whether each site normalises by its own means and variances, and the arrays hold nobody's",
    )
    privacy: str = Field(default="", description="the weights' differential privacy in a sentence; empty without")
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="over names, types, shapes and values")
    card: str = Field(description="the model card, Markdown")

    @property
    def table_choice(self) -> TableChoice | None:
        """How the sites' tables were read; None for a model on images."""
        return None if self.table is None else TableChoice.model_validate_json(json.dumps(self.table))

    def line(self, name: str) -> Line | None:
        """The line of a site, or over all sites; None if there is none of that name."""
        return self.overall_line if name == OVERALL else self.lines.get(name)
