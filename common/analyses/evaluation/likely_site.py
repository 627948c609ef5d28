"""How well a patient's site is told from what a model keeps of the images, and the OpenBHB score.

A model with a site probe predicts of each patient the number of the likeliest of the sites that train. Each site counts
how many of its patients who were not trained on are assigned to it: its recall. The balanced accuracy is the mean of
the recalls, 1/K by chance with K sites. OpenBHB score = external MAE · (balanced accuracy)^0.3 (Dufumier et al. 2022),
lower is better; external sites are those that only validate (`validation.sites`), by the model that they are sent: with
folds the final one, where recalls are out of fold. To leave each site out in turn is a campaign each.

Attack: the model assigns one patient apart from all others, so that the count is that patient's. Rule: of few or none
assigned, or not assigned, a site tells bounds (`told_count`), so that all figures here lie between bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses.base import Analysis, Done, Iterate, LeftOutByFile, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import MAX_PATIENTS, usable
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation._judged import judged, told_count
from fedage.common.analyses.evaluation.metrics import TEST
from fedage.common.analyses.evaluation.results import Metrics
from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.campaign.types import Campaign
from fedage.common.presentation.blocks import Display
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results, StepResult
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic

NAME = "site-probe"
EXPONENT = 0.3


class SiteProbe(AnalysisResult):
    """How well sites are told from a model's embedding of patients who were not trained on; lower is better."""

    n: int | None = Described(default=None, description="patients, all sites that train")
    recall_low: dict[str, float] = Described(description="by site, lower bound of the share assigned to it")
    recall_high: dict[str, float] = Described(description="upper bound of that share")
    balanced_accuracy_low: float = Described(description="lower bound of the mean of the recalls")
    balanced_accuracy_high: float = Described(description="upper bound of that mean")
    chance: float = Described(description="balanced accuracy by chance: 1 / number of sites")
    internal_mae_years: Number = Described(default=None, description="MAE of age at sites that train")
    external_mae_years: Number = Described(default=None, description="MAE of age at sites that only validate")
    openbhb_low: Number = Described(default=None, description="lower bound of external MAE · balanced accuracy^0.3")
    openbhb_high: Number = Described(default=None, description="upper bound of that score")


@dataclass(frozen=True)
class SiteProbed(OneExchange):
    """See the head of this file. Result: `SiteProbe` without what follows from other analyses.

    Parameters
    ----------
    sites
        Those that train, in the order of the predicted numbers.
    site
        The one that counts; empty at the coordinator.
    """

    sites: tuple[str, ...]
    site: str = ""
    subset: str = "is_test"
    healthy_only: bool = False
    minimum_count: int = 1
    name: str = NAME
    per_site: bool = False

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        shape = (len(self.sites),)
        return Layout(
            tuple(
                Field(name, shape, lower=0.0, upper=MAX_PATIENTS, whole=True)
                for name in ("n", "assigned_low", "assigned_high")
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        if self.site not in self.sites:
            raise LeftOutByFile("only sites that train are told apart")
        kept, at = self._judged(cohort), self.sites.index(self.site)
        assigned = int(np.count_nonzero(kept[LIKELY_SITE] == at + 1))
        values = {field.name: np.zeros(field.shape) for field in self.layout(iterate).fields}
        values["n"][at] = kept.n
        bounds = told_count(assigned, of=kept.n, minimum_count=self.minimum_count)
        values["assigned_low"][at], values["assigned_high"][at] = bounds
        return Statistic.of(self.layout(iterate), dict(values), [Cell(kept.n, "patients assigned to a site")])

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._judged(cohort), needed=(LIKELY_SITE,))

    def _judged(self, cohort: Cohort) -> Cohort:
        """The patients of the evaluation; whoever has a predicted age has a site."""
        return usable(judged(cohort, subset=self.subset, healthy_only=self.healthy_only)[0], (LIKELY_SITE,))[0]

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = total["n"]
        there = n > 0
        if np.count_nonzero(there) < 2:
            return NotComputable("sites are told apart from two sites on that train and hold patients out")
        low, high = (total[f"assigned_{end}"][there] / n[there] for end in ("low", "high"))
        names = [site for site, inside in zip(self.sites, there, strict=True) if inside]
        return Done(
            {
                "n": round(n.sum()),
                "recall_low": dict(zip(names, low.tolist(), strict=True)),
                "recall_high": dict(zip(names, high.tolist(), strict=True)),
                "balanced_accuracy_low": float(low.mean()),
                "balanced_accuracy_high": float(high.mean()),
                "chance": 1 / len(self.sites),
            }
        )


def openbhb_score(external_mae_years: float, balanced_accuracy: float) -> float:
    """External MAE · (balanced accuracy, a fraction)^0.3.

    >>> round(openbhb_score(3.76, 0.051), 4)
    1.5398
    """
    return float(external_mae_years * balanced_accuracy**EXPONENT)


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if LIKELY_SITE in campaign.predicted_columns and campaign.bundle is None:
        analysis = SiteProbed(
            campaign.training_sites,
            campaign.site,
            healthy_only=campaign.cohort.train_on == "healthy",
            minimum_count=campaign.cell_minimum,
        )
        yield Step(analysis, ("predicted_years",))


def _conclude(campaign: Campaign, results: Results) -> Mapping[str, SiteProbe]:  # noqa: ARG001 - of the record alone
    found, _ = results.outcome(NAME, SiteProbe)
    if found is None:
        return {}
    internal, external = _mae(results.analyses), _mae(results.external)
    score: dict[str, Number] = {}
    if external is not None:
        score = {
            "openbhb_low": openbhb_score(external, found.balanced_accuracy_low),
            "openbhb_high": openbhb_score(external, found.balanced_accuracy_high),
        }
    known = {"internal_mae_years": internal, "external_mae_years": external, **score}
    return {NAME: found.model_copy(update=known)}


def _mae(steps: Mapping[str, StepResult]) -> float | None:
    """Of ages as predicted, over patients that were not trained on."""
    evaluated = steps[TEST].result if TEST in steps else None
    return evaluated.mae_years if isinstance(evaluated, Metrics) else None


def _shown(results: Results) -> Display:
    found, _ = results.outcome(NAME, SiteProbe)
    if found is None:
        return Display()
    parts = [
        f"From the model's embedding the right one of {round(1 / found.chance)} sites is told with a balanced accuracy "
        f"of {_range(found.balanced_accuracy_low, found.balanced_accuracy_high)} ({found.chance:.2f} by chance)"
    ]
    if found.internal_mae_years is not None:
        parts.append(f"the MAE is {found.internal_mae_years:.2f} years at sites that train")
    if found.external_mae_years is not None and found.openbhb_low is not None and found.openbhb_high is not None:
        parts.append(
            f"{found.external_mae_years:.2f} years at those that only validate, which makes an OpenBHB score of "
            f"{_range(found.openbhb_low, found.openbhb_high)}"
        )
    return Display(sentences=("; ".join(parts) + ".",))


def _range(low: float, high: float) -> str:
    return f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"


def _asked(campaign: Campaign) -> Iterator[str]:
    if LIKELY_SITE not in campaign.predicted_columns or campaign.bundle is not None:
        return
    yield (
        "Of each patient the model says which site the images are likely from, and this site tells how many of those "
        "held out are assigned to it."
    )


ANALYSIS = Definition(
    name=NAME,
    result=SiteProbe,
    steps=_steps,
    words=lambda step: "how well sites are told from embeddings",  # noqa: ARG005 - there is one
    builds_on=("evaluation",),
    asked=_asked,
    conclude=_conclude,
    shown=_shown,
    place=34,
)
