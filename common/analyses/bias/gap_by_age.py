"""The gap by age, the picture of age bias. Bins with few patients are withheld at the site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedage.common.analyses._age_bins import age_edges, bin_of
from fedage.common.analyses.agreement import rule_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.bias.results import GapsByAge
from fedage.common.analyses.columns import MAX_PATIENTS, bound_of, in_subset, is_usable, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Display, FigureBlock, Section
from fedage.common.presentation.participation import drawn, has_predicted_ages
from fedage.common.record.results import Results
from fedage.common.statistics.age_cuts import bins_between, cuts_of
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.disclosure import Suppressed
from fedage.common.statistics.influence import InfluenceRule, dominated
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic


@dataclass(frozen=True)
class GapByAge(OneExchange):
    """Mean and SD of a gap in each bin of chronological age, the picture of age bias.

    A bin is told between cuts (`age_cuts`); with `influence` one of which a single patient makes up most of the spread
    is withheld too.

    Result: `n`, `left_out`, `withheld`, `edges_years`, and per bin `counts`, `mean_years`, `sd_years` (None where there
    is nobody, or too few; the SD has n − 1 degrees of freedom).
    """

    name: str
    gap: str
    edges_years: tuple[float, ...]
    _: KW_ONLY
    subset: str = "is_test"
    minimum_count: int = 1
    influence: InfluenceRule | None = None
    cuts: frozenset[int] | None = None
    per_site: bool = False

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        bins, bound = (len(self.edges_years) - 1,), bound_of(self.gap)
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("withheld", lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("counts", bins, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("gap", bins, lower=-bound * MAX_PATIENTS, upper=bound * MAX_PATIENTS),
                Field("gap_squared", bins, lower=0.0, upper=bound**2 * MAX_PATIENTS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = usable(in_subset(cohort, self.subset), ("age_years", self.gap))
        bins, where, gap = len(self.edges_years) - 1, bin_of(kept["age_years"], self.edges_years), kept[self.gap]
        counts = np.bincount(where, minlength=bins).astype(np.float64)
        safe = self._suppressed(counts, where, gap, shown=self._told(kept))
        values: dict[str, FloatArray | float] = {
            "n": kept.n,
            **left_out_values(left_out),
            "withheld": safe.withheld,
            "counts": safe.counts,
            "gap": np.where(safe.shown, np.bincount(where, weights=gap, minlength=bins), 0.0),
            "gap_squared": np.where(safe.shown, np.bincount(where, weights=gap * gap, minlength=bins), 0.0),
        }
        cells = [
            Cell(kept.n, "patients with a gap"),
            Cell(safe.withheld, "patients in withheld age bins"),
            *(Cell(int(count), "patients of one age bin") for count in safe.counts),
        ]
        return Statistic.of(self.layout(iterate), values, cells)

    def binned(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Whoever has a gap."""
        return is_usable(cohort, ("age_years", self.gap), subset=self.subset)

    def telling(self, cuts: frozenset[int]) -> GapByAge:
        """With these cuts."""
        return replace(self, cuts=cuts)

    def _told(self, kept: Cohort) -> NDArray[np.bool_]:
        """The bins that may be told."""
        cuts = self.cuts
        if cuts is None:
            cuts = cuts_of(kept["age_years"], self.edges_years, minimum_count=self.minimum_count)
        return bins_between(cuts, len(self.edges_years) - 1)

    def _suppressed(
        self, counts: FloatArray, where: NDArray[np.intp], gap: FloatArray, *, shown: NDArray[np.bool_]
    ) -> Suppressed:
        """Without bins that are not `shown`, those of which one patient is most of the spread, and what tells either.

        Σgap and Σgap² over everybody are known from elsewhere, hence those of all withheld bins together.
        """
        rule = self.influence
        if rule is not None:
            shown = shown & ~np.array([dominated(gap[where == each], rule) for each in range(counts.size)])
        while rule is not None and not shown.all():
            withheld = ~shown[where]
            few = 0 < np.count_nonzero(withheld) < self.minimum_count
            occupied = np.where(shown & (counts > 0), counts, np.inf)
            if not (few or dominated(gap[withheld], rule)) or not np.isfinite(occupied).any():
                break
            shown[np.argmin(occupied)] = False
        return Suppressed(counts=np.where(shown, counts, 0.0), shown=shown, withheld=int(counts[~shown].sum()))

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(in_subset(cohort, self.subset), needed=("age_years", self.gap))

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        if total.scalar("n") < 1:
            return NotComputable(f"no patient with {self.subset} = 1, an age and {self.gap}")
        n = np.rint(total["counts"])
        mean = total["gap"] / np.maximum(n, 1)
        variance = np.maximum(total["gap_squared"] - n * mean**2, 0.0) / np.maximum(n - 1, 1)
        return Done(
            {
                "n": round(total.scalar("n")),
                **left_out_result(total),
                "withheld": round(total.scalar("withheld")),
                "edges_years": list(self.edges_years),
                "counts": n.astype(int).tolist(),
                "mean_years": [float(m) if k >= 1 else None for k, m in zip(n, mean, strict=True)],
                "sd_years": [float(np.sqrt(v)) if k >= 2 else None for k, v in zip(n, variance, strict=True)],
            }
        )


RAW, CORRECTED = "gap-by-age:raw", "gap-by-age:corrected"
_WORDS = {RAW: "the raw gap by age", CORRECTED: "the corrected gap by age"}


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    gaps = {RAW: "raw_gap_years", CORRECTED: "gap_years"}
    edges = age_edges(campaign.cohort.age_min_years, campaign.cohort.age_max_years)
    minimum, rule = campaign.cell_minimum, rule_of(campaign)
    for name, gap in gaps.items():
        if campaign.estimator is not None or (gap == "raw_gap_years" and has_predictions(campaign)):
            yield Step(GapByAge(name, gap, edges, minimum_count=minimum, influence=rule), (gap,))


def _shown(results: Results) -> Display:
    if not has_predicted_ages(results):
        return Display()
    raw, why = results.outcome(RAW, GapsByAge)
    corrected, _ = results.outcome(CORRECTED, GapsByAge)

    def figure() -> str | None:
        from fedage.common.analyses.bias._gap_by_age_figure import gap_by_age

        return gap_by_age(raw, corrected)

    caption = (
        f"{drawn(results)} by chronological age: mean of the gap (predicted minus chronological age) and one standard "
        "deviation in each bin, with the number of patients. A mean that falls with age is age bias."
        f"{_remaining_bias(results)}{_withheld_bins(results)}"
    )
    block = FigureBlock(figure, caption, "no site released it" if why is None else why)
    return Display(sections=(Section("gap", "Age bias and its correction", (block,), place=21, reasons_once=True),))


def _remaining_bias(results: Results) -> str:
    """From where to where the mean gap runs after correction: a straight line from other patients leaves some bias."""
    gaps, _ = results.outcome(CORRECTED, GapsByAge)
    known = [] if gaps is None else [(k, mean) for k, mean in enumerate(gaps.mean_years) if mean is not None]
    if gaps is None or len(known) < 2:
        return ""
    (first, youngest), (last, oldest) = known[0], known[-1]
    bias = correction_of(results)
    fitted = bias.overall.n if bias.overall is not None else None
    on = f", which was fitted on {fitted} other patients," if fitted and not results.campaign.folds else ""
    lines = "the line" if bias.scope == "pooled" or len(bias.lines) == 1 else "the sites' lines"
    were = on if lines == "the line" else on.replace(" was ", " were ")
    edges = gaps.edges_years
    return (
        f" After correction the mean is {_signed(youngest)} years at {edges[first]:g} to {edges[first + 1]:g} years of "
        f"age and {_signed(oldest)} at {edges[last]:g} to {edges[last + 1]:g}: what differs from zero there is bias "
        f"that {lines}{were} did not take away, or chance in a small bin."
    )


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _withheld_bins(results: Results) -> str:
    gaps, _ = results.outcome(RAW, GapsByAge)
    if gaps is None or not gaps.withheld:
        return ""
    return f" {gaps.withheld} patients in small bins (–) are withheld by their sites."


ANALYSIS = Definition(
    name="gap-by-age",
    result=GapsByAge,
    steps=_steps,
    words=lambda step: _WORDS.get(step, step),
    shown=_shown,
    place=31,
)
