"""`results.json` as a whole: the record of a run. The report and the dashboard only draw it.

Ages and gaps are in years, times in years or seconds as the name says. A number that could not be computed is null. A
count of patients that is null was withheld because it is small. Parts that come from an analysis keep further keys that
the analysis gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, SerializeAsAny, model_validator

from fedage.common.record._version_1 import PARTS, upgraded
from fedage.common.record.parts import (
    AnalysisResult,
    CampaignInfo,
    Part,
    Reference,
    Round,
    RunInfo,
    SiteRecord,
    plain,
)
from fedage.common.record.pooled import PooledCheck
from fedage.common.record.preparation import Preparation

SCHEMA_VERSION: Literal[2] = 2
NO_ESTIMATOR = (
    "the campaign has no estimator, so it predicts no age itself and judges none that the sites' tables bring"
)


F = TypeVar("F", bound=AnalysisResult)


class StepResult(Part):
    """What came of one step: a result, or why there is none."""

    analysis: str = Field(description="which analysis it is a step of; its result's form is that analysis' own")
    about: dict[str, Any] = Field(default_factory=dict, description="what the campaign file asks for in this step")
    result: SerializeAsAny[AnalysisResult] | None = Field(default=None, description="over all contributing sites")
    by_site: dict[str, SerializeAsAny[AnalysisResult]] = Field(
        default_factory=dict, description="each site's own, if told"
    )
    sites: tuple[str, ...] = Field(default=(), description="sites whose sums the result rests on")
    not_computed: str = Field(default="", description="why there is no result")
    costs: tuple[AnalysisResult, ...] = Field(
        default=(), description="sites that make the result coarser for all, and how much"
    )

    @classmethod
    def kind_of(cls, analysis: str) -> type[AnalysisResult]:
        """The type of an analysis' results; this base keeps them as they are. `server/record` knows the analyses."""
        del analysis
        return AnalysisResult

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("analysis"), str):
            return values
        kind = cls.kind_of(values["analysis"])
        result, by_site = values.get("result"), values.get("by_site", {})
        typed: dict[str, Any] = {"result": None if result is None else kind.model_validate(result)}
        if isinstance(by_site, Mapping):
            typed["by_site"] = {site: kind.model_validate(item) for site, item in by_site.items()}
        return {**values, **typed}


class Results(Part):
    """A whole run."""

    schema_version: Literal[2] = Field(default=SCHEMA_VERSION, description="of this layout")
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
    analyses: Mapping[str, StepResult] = Field(
        default_factory=dict, description="by registered step; its result is described where its analysis is"
    )
    external: Mapping[str, StepResult] = Field(
        default_factory=dict,
        description="the same steps over the sites that only validate, where others train; `analyses` is without them",
    )
    pooled_check: PooledCheck | None = Field(
        default=None, description="null unless the run was simulated with --check-pooled"
    )
    notes: tuple[str, ...] = Field(default=(), description="what a reader must know, in sentences")

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Also the values of a record of version 1, or with parts of one."""
        if isinstance(values, Mapping) and (values.get("schema_version") == 1 or any(key in values for key in PARTS)):
            try:
                return upgraded(plain(values))
            except (AttributeError, KeyError, TypeError):
                raise ValueError("a part of a record of version 1 is not of its form") from None
        return values

    @property
    def contributors(self) -> dict[str, tuple[str, ...]]:
        """The sites whose sums are in the result of each step that tells them."""
        return {name: step.sites for name, step in self.analyses.items() if step.sites}

    @property
    def solved_exactly(self) -> bool:
        """Whether the model is solved from the sites' sums and needs no round of training."""
        return bool(self.preparation) and self.campaign.rounds is None and not self.rounds

    def outcome(self, step: str, kind: type[F]) -> tuple[F | None, str | None]:
        """What a step found, and why if it found nothing; no reason where a record should have it and has not."""
        step_result = self.analyses.get(step)
        if step_result is None:
            return None, None if self.campaign.estimator else NO_ESTIMATOR
        return (step_result.result, None) if isinstance(step_result.result, kind) else (None, step_result.not_computed)

    def steps_of(self, analysis: str) -> dict[str, StepResult]:
        """The steps of one analysis, in the record's order."""
        return {name: step for name, step in self.analyses.items() if step.analysis == analysis}

    def of_type(self, kind: type[F]) -> dict[str, F]:
        """The results of one type over all contributing sites, by step, in the record's order."""
        return {name: step.result for name, step in self.analyses.items() if isinstance(step.result, kind)}

    def reference(self, figure: str) -> Reference | None:
        """What a figure is shown beside (`AnalysisResult.references`): of the first analysis that gives anything."""
        given = (step.result.references() for step in self.analyses.values() if step.result is not None)
        return next((references[figure] for references in given if figure in references), None)
