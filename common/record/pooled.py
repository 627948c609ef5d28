"""The part of `results.json` about a simulated run held against the same models fitted on one table."""

from __future__ import annotations

from pydantic import Field

from fedage.common.record.parts import Number, Part


class PooledFigure(Part):
    """One figure of the run and the same figure from the pooled patients."""

    step: str = Field(description="the analysis, by its registered name")
    figure: str = Field(description="which of its figures, with its unit")
    site: str | None = Field(default=None, description="whose; null for all sites in the result together")
    federated: Number = Field(description="as the run gives it, from sums; null where many figures are compared as one")
    pooled: Number = Field(description="from one table of the same patients, by lifelines or numpy; null likewise")
    difference: float = Field(description="federated minus pooled, or the largest such |difference| of many figures")
    grouped: bool = Field(
        default=False,
        description="whether the run knew the times between common table times only, so that they need not be equal",
    )


class PooledCheck(Part):
    """What `fedage simulate --check-pooled` found: only a simulation has all patients in one place."""

    figures: tuple[PooledFigure, ...] = Field(default=(), description="in the order of the analyses")
    largest_difference: Number = Field(
        default=None, description="largest |difference| of figures that are exact sums; null without any"
    )
    largest_grouped_difference: Number = Field(default=None, description="the same of figures from grouped times")
    not_compared: dict[str, str] = Field(default_factory=dict, description="analyses left out, with the reason")
