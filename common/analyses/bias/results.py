"""What the analyses of age bias find, typed."""

from __future__ import annotations

from pydantic import Field as Described

from fedage.common.record.parts import AnalysisResult, Number


class GapsByAge(AnalysisResult):
    """Predicted minus chronological age by bins of chronological age."""

    n: int | None = Described(default=None, description="patients")
    edges_years: tuple[float, ...] = Described(description="b + 1 edges; the outermost bins are open")
    counts: tuple[int, ...] = Described(description="patients by bin; small bins are withheld and count 0")
    mean_years: tuple[Number, ...] = Described(description="mean gap by bin")
    sd_years: tuple[Number, ...] = Described(description="standard deviation of the gap by bin")
    withheld: int | None = Described(default=None, description="patients in withheld bins")
