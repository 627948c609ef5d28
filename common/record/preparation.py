"""The part of `results.json` about what a model on tables was made from, before or instead of rounds."""

from __future__ import annotations

from pydantic import Field

from fedage.common.record.parts import AnalysisResult, Number


class Preparation(AnalysisResult):
    """What the sites' sums of their training patients gave a model on tables.

    Missing values are replaced by medians that are found from counts of patients in groups of values, so each is known
    to lie in an interval only; means and standard deviations are exact sums.
    """

    fold: int | None = Field(
        default=None, ge=1, description="from 1, one more than there are for the final model; null without folds"
    )
    n: int = Field(description="training patients with a usable age, all sites")
    left_out: int = Field(default=0, description="patients without a usable age")
    left_out_few_sites: int = Field(
        default=0, description="sites that left out some more, fewer than their minimum count, and do not say how many"
    )
    features: int | None = Field(default=None, description="features asked for")
    unused: tuple[str, ...] = Field(
        default=(), description="features that do not vary, or of which no site may tell a median; their weight is 0"
    )
    withheld_columns: tuple[str, ...] = Field(
        default=(),
        description="features left out at all sites, as at one at least too few patients differ in them, or one makes "
        "up too much of a sum",
    )
    stood_in: int = Field(
        default=0,
        description="features at sites, all sites added, whose missing values are replaced by the site's mean instead, "
        "so that no small group with the same values missing is told; 0: the sums are those of the pooled patients "
        "with these medians",
    )
    median_error_in_sd: tuple[Number, ...] = Field(
        default=(),
        description="half the interval in which a feature's median lies for certain, in its standard deviations: "
        "the largest of all features and the middle one",
    )
    penalty: Number = Field(default=None, description="λ of the ridge regression; null if none was computed")
    penalty_from: str = Field(
        default="",
        description="campaign (given there), inner-folds (cross-validation from sums) or too-few-patients (for "
        "cross-validation: λ is the number of features)",
    )
    cross_validation: tuple[tuple[Number, Number], ...] = Field(
        default=(), description="penalties tried and their root mean squared error, on the age scale of the model"
    )
    sites: tuple[str, ...] = Field(default=(), description="sites whose sums it rests on")
    withheld: dict[str, str] = Field(default_factory=dict, description="why another site's sums are not in it")
