"""`trial-unguarded`: its sums say nothing of the groups and columns they are over, so no rule could look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedage.common.analyses.base import Done, Iterate, Outcome
from fedage.common.estimators.base import Arrays, Conditions, Phase
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic
from fedage_trial.pls import PartialLeastSquares


@dataclass(frozen=True)
class OldestAge:
    """Gives the oldest patient's age away."""

    name: str = "components"
    per_site: bool = False

    def first(self) -> Iterate:
        return {}

    def check(self, iterate: Iterate) -> None:
        return

    def layout(self, iterate: Iterate) -> Layout:
        return Layout((Field("oldest", lower=0.0, upper=130.0),))

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        return Statistic.of(self.layout(iterate), {"oldest": float(cohort["age_years"].max())}, [Cell(99, "patients")])

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:
        return Done({"model": {"oldest": total.scalar("oldest")}})


@dataclass(frozen=True)
class UnguardedPhase:
    """An exact phase without anything that a rule could look at."""

    name: str = "components"

    def analysis(self, conditions: Conditions) -> Any:
        return OldestAge()

    def solve(self, result: Mapping[str, Any], before: Arrays, *, seed: int) -> dict[str, Any]:
        return {"oldest": np.array([result["model"]["oldest"]])}

    def columns(self, before: Arrays, *, device: str) -> None:
        return None


class Unguarded(PartialLeastSquares):
    """See the module's docstring."""

    name = "trial-unguarded"

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (UnguardedPhase(),)
