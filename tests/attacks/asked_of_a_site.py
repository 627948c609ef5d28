"""A coordinator who asks a site whatever it likes, through the code that a site answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedage.client.compute.contribute import contributions
from fedage.common.analyses.base import Again, Analysis
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray, Layout, Statistic
from tests.of_estimators import preparation

Iterate = Mapping[str, FloatArray]


@dataclass
class Attacker:
    """Asks one site, and keeps what it got."""

    campaign: Campaign
    cohort: Cohort
    folder: Path
    features: tuple[str, ...] = ()
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def steps(self) -> dict[str, Analysis]:
        first = preparation(self.campaign, self.features)
        return {**registered(self.campaign), **({} if first is None else {first.name: first})}

    def ask(self, step: str, iterate: Iterate) -> Statistic | None:
        """The site's sums, or None where it withholds them, with the rule in `refusals`."""
        first = preparation(self.campaign, self.features)
        told = contributions(
            self.campaign,
            self.cohort,
            {step: iterate},
            folder=self.folder,
            run="attack",
            guard=self.campaign.simulation.guard,
            more_steps={} if first is None else {first.name: first},
        )
        if step in told.withheld:
            self.refusals.append((told.withheld[step]["rule"], told.withheld[step]["detail"]))
            return None
        layout = self.steps[step].layout(iterate)
        return Statistic(layout=layout, vector=told.sums[step], smallest=None)

    def everything(self, step: str, *, exchanges: int = 12) -> list[Statistic]:
        """All that leaves for a step when it is asked as an honest coordinator does, from this site alone."""
        analysis, iterate, got = self.steps[step], self.steps[step].first(), []
        for _ in range(exchanges):
            statistic = self.ask(step, iterate)
            if statistic is None:
                return got
            got.append(statistic)
            outcome = analysis.combine(statistic, iterate)
            if not isinstance(outcome, Again):
                return got
            iterate = outcome.iterate
        return got

    def agreed(self, step: str) -> NDArray[np.bool_] | None:
        """The columns that the site says yes to; None where it withholds its answer."""
        statistic = self.ask(step, {})
        return None if statistic is None else statistic.vector < 0.5


def unpacked(statistic: Statistic, name: str, p: int) -> FloatArray:
    """Symmetric matrices (…, p, p) of a block of upper triangles."""
    packed = statistic[name]
    rows, columns = np.triu_indices(p)
    square = np.zeros((*packed.shape[:-1], p, p))
    square[..., rows, columns] = packed
    square[..., columns, rows] = packed
    return square


def blocks(layout: Layout) -> set[str]:
    """Names of a layout's blocks."""
    return {block.name for block in layout.fields}
