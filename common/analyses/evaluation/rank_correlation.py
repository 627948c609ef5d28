"""Spearman's rank correlation of predicted with chronological age, from binned ranks, with a bound of its error.

No patient's rank leaves a site. First the sites tell how many of them are below each point of a fixed grid of ages, by
groups that nobody stands alone in (`_guarded_groups`), with the fewest and the most that it may be. A bin's rank is the
middle of its patients' ranks, and how far a rank in it may be off follows from those bounds. Then the sites sum
products of the bins' ranks r of age and s of predicted age, and the squares of how far each patient's may be off, D_r²
and D_s².

The true centred ranks u lie in a ball of radius D_r about r, so the angle between u and r is at most arcsin(D_r / ‖r‖),
and likewise of v and s ([own]). With θ = arccos of the correlation of r and s and a the sum of these two angles, the
true correlation lies between cos(θ + a) and cos(θ − a). Ranks of equal values are their mean, as usual.

Attack: a coordinator invents ranks that are a step at one age, and so counts who is below it. Rule: ranks rise by no
more than a step of the grid may; of each column at least the minimum count differ from the most frequent value, and few
make up no sum (the influence rule); a site answers two different sets of ranks. Residual risk: these are two counts.

Notation: K grid points, n patients; ranks are divided by n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._guarded_groups import encode, guarded_groups
from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import (
    Again,
    Analysis,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    check_iterate,
)
from fedage.common.analyses.columns import MAX_GAP_YEARS, MAX_PATIENTS, cells_of_predictions, in_subset, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign, Table
from fedage.common.presentation.blocks import Display
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "rank-correlation"
_MOST_ITERATES = 2
_COLUMNS = ("age_years", "predicted_years")


class Options(Table):
    """Spearman's rank correlation of predicted with chronological age, from binned ranks."""

    bins: int = Described(default=100, ge=10, le=400, description="bins of each age, over the campaign's range of ages")


class RankCorrelation(AnalysisResult):
    """Spearman's ρ."""

    n: int = Described(description="patients")
    spearman: Number = Described(description="correlation of the bins' ranks")
    low: Number = Described(description="what the correlation of the patients' ranks cannot be below")
    high: Number = Described(description="what it cannot be above")
    error: Number = Described(description="the larger distance of these two to it")


@dataclass(frozen=True)
class BinnedRanks:
    """See the module's docstring.

    Parameters
    ----------
    points_years
        Grid (K,), rising; K + 1 bins, the outermost open.
    """

    points_years: tuple[float, ...]
    _: KW_ONLY
    healthy_only: bool = False
    minimum_count: int = 1
    subset: str = "is_test"
    name: str = NAME
    per_site: bool = False

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        if not iterate:
            return
        bins = (2, len(self.points_years) + 1)
        check_iterate(iterate, {"ranks": bins, "off": bins}, bound=1.0)
        if np.any(np.diff(iterate["ranks"], axis=1) < 0) or np.any(iterate["ranks"] < 0) or np.any(iterate["off"] < 0):
            raise IterateRefused("ranks must not fall, and neither they nor how far they are off are negative")

    def counted(self, iterate: Iterate) -> tuple[str, int]:
        return ("ranks" if iterate else "counts"), _MOST_ITERATES

    def layout(self, iterate: Iterate) -> Layout:
        if not iterate:
            grid = (2, len(self.points_years))
            ends = [Field(end, grid, lower=0.0, upper=MAX_PATIENTS, whole=True) for end in ("fewest", "middle", "most")]
            return Layout((Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True), *ends))
        sums = ("r", "s", "rr", "ss", "rs", "off_r", "off_s")
        return Layout(
            (
                Field("n", lower=0.0, upper=MAX_PATIENTS, whole=True),
                *(Field(name, lower=0.0, upper=MAX_PATIENTS) for name in sums),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept = self._evaluated(cohort)
        cells = [Cell(kept.n, "patients evaluated"), *cells_of_predictions(kept["predicted_years"])]
        if iterate:
            (r, s), (off_r, off_s) = self._of_bins(kept, iterate["ranks"]), self._of_bins(kept, iterate["off"])
            sums = {"r": r.sum(), "s": s.sum(), "rr": r @ r, "ss": s @ s, "rs": r @ s}
            values = {"n": kept.n, **sums, "off_r": off_r @ off_r, "off_s": off_s @ off_s}
            return Statistic.of(self.layout(iterate), values, cells)
        points = encode(np.array(self.points_years))
        fewest, middle, most = (np.zeros((2, points.size)) for _ in range(3))
        for k, column in enumerate(_COLUMNS):
            groups = guarded_groups(kept[column], minimum_count=self.minimum_count)
            fewest[k] = groups.below(points, by=groups.end - 1)
            middle[k] = groups.below(points, by=groups.mean)
            most[k] = groups.below(points, by=groups.start)
            cells += [Cell(int(many), "patients in one group of ages") for many in groups.count]
        ends = {"fewest": fewest, "middle": middle, "most": most}
        return Statistic.of(self.layout(iterate), {"n": kept.n, **ends}, cells)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:
        if not iterate:
            return []
        kept = self._evaluated(cohort)
        r, s = self._of_bins(kept, iterate["ranks"])
        return [group_of({"rank of age": r, "rank of predicted age": s}, of="the patients evaluated")]

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - the same for all
        return columns_read(self._evaluated(cohort), needed=_COLUMNS)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        n = total.scalar("n")
        if n < 2:
            return NotComputable("fewer than two patients with an age and a predicted age")
        if not iterate:
            return Again(_ranks(total, n))
        rr, ss, rs = (
            total.scalar(a + b) - total.scalar(a) * total.scalar(b) / n for a, b in (("r", "r"), ("s", "s"), ("r", "s"))
        )
        if min(rr, ss) <= 0:
            return NotComputable("all patients are in one bin of age or of predicted age")
        rho = float(np.clip(rs / math.sqrt(rr * ss), -1.0, 1.0))
        away = sum(
            math.asin(min(1.0, math.sqrt(total.scalar(off) / size))) for off, size in (("off_r", rr), ("off_s", ss))
        )
        angle = math.acos(rho)
        low, high = math.cos(min(math.pi, angle + away)), math.cos(max(0.0, angle - away))
        return Done({"n": round(n), "spearman": rho, "low": low, "high": high, "error": max(rho - low, high - rho)})

    def _evaluated(self, cohort: Cohort) -> Cohort:
        """As `Evaluation` has them."""
        kept, _ = usable(in_subset(cohort, self.subset, healthy_only=self.healthy_only), _COLUMNS)
        return kept.where(np.abs(kept["predicted_years"] - kept["age_years"]) <= MAX_GAP_YEARS)

    def _of_bins(self, kept: Cohort, values: FloatArray) -> list[FloatArray]:
        """What each patient's two bins have, (n,) each."""
        points = encode(np.array(self.points_years))
        return [
            values[k][np.searchsorted(points, encode(kept[column]), side="right")] for k, column in enumerate(_COLUMNS)
        ]


def _ranks(total: Statistic, n: float) -> Iterate:
    """Ranks of the bins and how far a patient's may be off, (2, K + 1), over n."""
    ends = []
    for name in ("fewest", "middle", "most"):
        below = np.concatenate([np.zeros((2, 1)), total[name], np.full((2, 1), n)], axis=1)
        ends.append(np.maximum.accumulate(below, axis=1))
    fewest, middle, most = ends
    ranks = (middle[:, :-1] + middle[:, 1:]) / 2
    # Ranks less a half: a patient of a bin is above those below its lower point and not above those below its upper.
    off = np.maximum(most[:, 1:] - ranks, ranks - fewest[:, :-1])
    return {"ranks": np.clip(ranks / n, 0.0, 1.0), "off": np.clip(off / n, 0.0, 1.0)}


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    given = campaign.analyses.options(NAME)
    if given is None or not has_predictions(campaign):
        return
    cohort, bins = campaign.cohort, Options.model_validate(given).bins
    points = np.linspace(cohort.age_min_years, cohort.age_max_years, bins + 1)[1:-1]
    analysis = BinnedRanks(
        tuple(float(point) for point in points),
        healthy_only=cohort.train_on == "healthy",
        minimum_count=campaign.cell_minimum,
    )
    yield Step(analysis, ("predicted_years",))


def _asked(campaign: Campaign) -> Iterator[str]:
    if campaign.analyses.options(NAME) is not None:
        yield "It counts patients below points of age and of predicted age, in groups, and sums products of ranks."


def _shown(results: Results) -> Display:
    found = next(iter(results.of_type(RankCorrelation).values()), None)
    if found is None or found.spearman is None or found.error is None:
        return Display()
    return Display(
        sentences=(
            f"Spearman's rank correlation of predicted with chronological age is {found.spearman:.3f} from binned "
            f"ranks; that of the patients' own ranks is between {found.low:.3f} and {found.high:.3f}.",
        )
    )


ANALYSIS = Definition(
    name=NAME,
    result=RankCorrelation,
    steps=_steps,
    words=lambda step: "the rank correlation",  # noqa: ARG005 - there is one
    options=Options,
    needs_in_words="ages are predicted",
    asked=_asked,
    shown=_shown,
    place=16,
)
