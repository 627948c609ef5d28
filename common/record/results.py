"""`results.json` as a whole: the record of a run. The report and the dashboard only draw it.

Ages and gaps are in years, times in years or seconds as the name says. A number that could not be computed is null. A
count of patients that is null was withheld because it is small. Parts that come from an analysis keep further keys that
the analysis gives.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedage.common.record.groups import Groups
from fedage.common.record.parts import (
    Bias,
    CampaignInfo,
    Evaluation,
    Figures,
    Part,
    PlantedTruth,
    Round,
    RunInfo,
    SiteRecord,
    Survival,
)
from fedage.common.record.pooled import PooledCheck
from fedage.common.record.preparation import Preparation

SCHEMA_VERSION: Literal[1] = 1


class Results(Part):
    """A whole run."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="of this layout")
    fedage_version: str = Field(description="the coordinator's")
    flwr_version: str = Field(description="the coordinator's Flower")
    campaign: CampaignInfo
    run: RunInfo
    phantoms: bool = Field(description="whether the images were rendered by FedAge and are of nobody")
    sites: tuple[SiteRecord, ...] = Field(default=(), description="in the order of their names")
    preparation: tuple[Preparation, ...] = Field(
        default=(), description="of a model on tables, by fold; such a model may need no rounds beside it"
    )
    rounds: tuple[Round, ...] = Field(default=(), description="in order")
    contributors: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="the sites whose sums are in the result of each analysis, by registered name"
    )
    evaluation: Evaluation = Evaluation()
    bias: Bias = Bias()
    figures: Figures = Figures()
    survival: Survival | None = Field(default=None, description="null if the campaign asked for none")
    groups: Groups | None = Field(default=None, description="null if the campaign compares none")
    planted: PlantedTruth | None = Field(default=None, description="null if nothing was planted")
    pooled_check: PooledCheck | None = Field(
        default=None, description="null unless the run was simulated with --check-pooled"
    )
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know, in sentences")

    @property
    def solved_exactly(self) -> bool:
        """Whether the model is solved from the sites' sums and needs no round of training."""
        return bool(self.preparation) and self.campaign.rounds is None and not self.rounds
