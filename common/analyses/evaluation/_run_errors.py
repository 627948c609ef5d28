"""Errors of predicted ages of one run, as a comparison of runs has them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from fedage.common.record.parts import Number, Part


class SiteError(Part):
    """One site's error on its test patients."""

    n: int = Field(description="test patients")
    mae_years_raw: Number = Field(description="as predicted")
    mae_years_corrected: Number = Field(default=None, description="after bias correction")
    mae_of_mean_years: Number = Field(default=None, description="of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(default=False, description="whether that is a lower bound")
    mae_of_site_mean_years: Number = Field(default=None, description="of predicting the site's own mean age")
    may_lose_to: tuple[str, ...] = Field(default=(), description="means of which only a bound is known, which is less")
    loses_to: tuple[str, ...] = Field(default=(), description="the means that do better than the raw predictions")


class Errors(Part):
    """One run's errors on test patients, over all sites and at each."""

    n: int | None = Field(default=None, description="test patients")
    mae_years_raw: Number = Field(default=None, description="as predicted; the primary figure")
    mae_years_corrected: Number = Field(default=None, description="after bias correction")
    mae_of_mean_years: Number = Field(default=None, description="of predicting the mean age of all sites")
    mae_of_mean_at_least: bool = Field(default=False, description="whether that is a lower bound")
    mae_of_site_mean_years: Number = Field(default=None, description="of predicting each site's own mean age")
    cs_5: Number = Field(default=None, description="fraction with an absolute raw error of at most 5 years")
    cs_5_low: Number = Field(default=None, description="lower bound of cs_5; sites tell no count of few patients")
    cs_5_high: Number = Field(default=None, description="upper bound of cs_5")
    pearson_r: Number = Field(default=None, description="of raw predicted and chronological age")
    by_site: dict[str, SiteError] = Field(default_factory=dict, description="the sites that released it")


Runs = Sequence[tuple[str, Errors]]
"""Each run's label and errors, in the order given."""


def sites_of(errors: Runs) -> tuple[str, ...]:
    """Every site with an error in any run, in order of name."""
    return tuple(sorted({site for _, run_errors in errors for site in run_errors.by_site}))
