"""What the comparison of regional residuals finds, typed."""

from __future__ import annotations

from pydantic import Field as Described
from pydantic import field_validator

from fedage.common.record.parts import AnalysisResult, Number

NAME = "regional-residuals"


class DiagnosisDifference(AnalysisResult):
    """One region in one diagnosis against the reference."""

    diagnosis: float = Described(description="value of the column")
    difference_sd: Number = Described(description="mean over the models, SDs of age on the estimator's scale")
    p: Number = Described(description="two-sided p of t, the median of the models")
    models_higher: int = Described(description="models in which p is below alpha over the regions, and r higher")
    models_lower: int = Described(description="models in which p is below alpha over the regions, and r lower")


class RegionDifference(AnalysisResult):
    """One region."""

    region: str = Described(description="feature")
    p: Number = Described(description="p of F, all diagnoses together, the median of the models")
    models_differ: int = Described(description="models in which it is below alpha over the regions")
    diagnoses: tuple[DiagnosisDifference, ...] = Described(description="each against the reference")


class EigenvectorShare(AnalysisResult):
    """How residuals of one group lie along an eigenvector of the covariance."""

    eigenvector: int = Described(description="from 1, that of the largest eigenvalue")
    group: float = Described(description="value of the column")
    mean: Number = Described(description="of |⟨r/‖r‖, v⟩|")
    sd: Number = Described(description="its standard deviation between patients")
    is_steady: bool = Described(description="whether the SD is below 0.3 of the mean")


class RegionalResiduals(AnalysisResult):
    """Regional residuals of several diagnoses against one reference."""

    column: str = Described(default="", description="column that tells the diagnosis")
    reference: Number = Described(default=None, description="its value for the reference")
    covariates: tuple[str, ...] = Described(default=(), description="columns held fixed beside the site")
    alpha: Number = Described(default=None, description="error over all regions together")
    n_reference: int = Described(description="patients of the reference, at sites with a diagnosis")
    n: tuple[int, ...] = Described(description="patients of each diagnosis, at sites with the reference")
    sites: int = Described(description="sites with the reference and a diagnosis")
    left_out: int = Described(description="patients with a missing value, or too few of a diagnosis at their site")
    left_out_few_sites: int = Described(default=0, description="sites that left out some more and do not say how many")
    one_group_only: int = Described(description="patients at sites with one group only")
    models: int = Described(description="models, of each fold")
    threshold: float = Described(description="alpha over the number of regions")
    df: int = Described(description="degrees of freedom: patients − sites − columns")
    regions: tuple[RegionDifference, ...] = Described(description="those compared")
    eigenvectors: tuple[EigenvectorShare, ...] = Described(default=(), description="by eigenvector and group")
    withheld_columns: tuple[str, ...] = Described(
        default=(), description="regions left out at all sites, as few patients make up too much of a sum at one"
    )

    @field_validator("withheld_columns")
    @classmethod
    def _regions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Regions, not the columns that stand for them in the sites' agreement."""
        return tuple(name.removeprefix("residual:1:") for name in names)
