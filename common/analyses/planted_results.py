"""The truth planted in phantoms, typed, for the analyses that show it beside what they found."""

from __future__ import annotations

from pydantic import Field as Described

from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.record.results import Results


class Check(Part):
    """One comparison of what was found with what the planted truth implies."""

    what: str = Described(description="in words")
    found: Number = Described(default=None, description="the run's number")
    against: Number = Described(default=None, description="what it is held against")
    ratio: Number = Described(default=None, description="found / against, where that is the measure")
    wanted: str = Described(default="", description="what would be right, in words")
    holds: bool | None = Described(default=None, description="whether it is; null if it cannot be said")


class PlantedTruth(AnalysisResult):
    """The truth behind phantoms and what it implies for an honest estimate."""

    hazard_ratio_per_year: float = Described(description="of the true gap")
    gap_sd_years: float = Described(description="standard deviation of the true gap")
    irreducible_mae_years: Number = Described(default=None, description="of the best possible reader, all sites")
    irreducible_mae_years_by_site: dict[str, Number] = Described(default_factory=dict, description="the same by site")
    attenuation: dict[str, Number] = Described(
        default_factory=dict, description="by gap column: λ = Cov(ĝ, g)/Var(ĝ), age held fixed"
    )
    expected_hazard_ratio: dict[str, Number] = Described(
        default_factory=dict, description="by gap column: planted hazard ratio to the power λ (1 for the true gap)"
    )
    checks: tuple[Check, ...] = Described(default=(), description="the verdicts")


def truth_of(results: Results) -> PlantedTruth | None:
    """The truth behind phantoms; None if nothing was planted."""
    return next(iter(results.found(PlantedTruth).values()), None)
