"""`results.json`: the record of a run. The report and the dashboard only draw it.

Ages and gaps are in years, times in years or seconds as the name says. A number that could not be computed is null. A
count of patients that is null was withheld because it is small. Parts that come from an analysis keep further keys that
the analysis gives.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fedage.common.bounded import MAX_RECORD_BYTES, FileTooLarge, read_json
from fedage.common.errors import FedAgeError
from fedage.server._results_groups import Difference, GroupDifference, Groups, Roc, SiteDifference
from fedage.server._results_parts import (
    AgeSummary,
    AuditHead,
    Bias,
    BiasLine,
    CampaignInfo,
    Check,
    Coefficient,
    CoxResult,
    ErrorCurve,
    Evaluated,
    EvaluatedPart,
    Evaluation,
    Figures,
    GapByAge,
    GridCost,
    KaplanMeier,
    LogRank,
    Metrics,
    Part,
    PlantedTruth,
    PredictedByAge,
    Round,
    RunInfo,
    SiteRecord,
    Survival,
    SurvivalCurve,
    Withheld,
)
from fedage.server._results_pooled import PooledCheck, PooledFigure
from fedage.server._results_preparation import Preparation

__all__ = [
    "SCHEMA_VERSION",
    "AgeSummary",
    "AuditHead",
    "Bias",
    "BiasLine",
    "CampaignInfo",
    "Check",
    "Coefficient",
    "CoxResult",
    "Difference",
    "ErrorCurve",
    "Evaluated",
    "EvaluatedPart",
    "Evaluation",
    "Figures",
    "GapByAge",
    "GridCost",
    "GroupDifference",
    "Groups",
    "KaplanMeier",
    "LogRank",
    "Metrics",
    "PlantedTruth",
    "PooledCheck",
    "PooledFigure",
    "PredictedByAge",
    "Preparation",
    "Results",
    "ResultsUnreadable",
    "Roc",
    "Round",
    "RunInfo",
    "SiteDifference",
    "SiteRecord",
    "Survival",
    "SurvivalCurve",
    "Withheld",
    "read_results",
    "schema_text",
    "write_results",
]

SCHEMA_VERSION: Literal[1] = 1


class ResultsUnreadable(FedAgeError):
    """A file is not a `results.json` that this version reads."""


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


def schema_text() -> str:
    """The JSON schema of `results.json`, as committed in `results.schema.json`."""
    return json.dumps(Results.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def write_results(path: Path, results: Results, *, durable: bool = True) -> None:
    """Write the record atomically: a reader sees the whole old file or the whole new one.

    `durable` waits until it is on the disk itself; without, it outlives the process, not a power cut.
    """
    text = json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_results(path: Path) -> Results:
    """Read a record.

    Raises
    ------
    ResultsUnreadable
        If it is not there, not JSON, of another schema version, or does not fit the schema.
    """
    try:
        values = read_json(path, most_bytes=MAX_RECORD_BYTES)
    except FileTooLarge as error:
        raise ResultsUnreadable(
            f"{path} has {error.strerror}: it is no record; give the results.json of a run"
        ) from None
    except OSError as error:
        raise ResultsUnreadable(f"{path} cannot be read ({error.strerror}); give the results.json of a run") from None
    except ValueError:
        raise ResultsUnreadable(f"{path} is not JSON; give the results.json of a run") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ResultsUnreadable(f"{path} has no schema_version; give the results.json of a run")
    if version > SCHEMA_VERSION:
        raise ResultsUnreadable(
            f"{path} has schema_version {version}, this FedAge reads up to {SCHEMA_VERSION}; install a newer FedAge"
        )
    try:
        return Results.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ResultsUnreadable(
            f"{path} does not fit schema {SCHEMA_VERSION}: {error.error_count()} mistakes, the first at {where} "
            f"({first['msg']}); it was edited or is no results.json"
        ) from None
