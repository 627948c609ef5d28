"""`results.json`: the record of a run. The report and the dashboard only draw it.

Ages and gaps are in years, times in years or seconds as the name says. A number that could not be computed is null. A
count of patients that is null was withheld because it is small. Parts that come from an analysis keep further keys that
the analysis gives.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from fedage.common.analyses.registry import definition_of, own
from fedage.common.errors import FedAgeError
from fedage.common.record import results as generic
from fedage.common.record.parts import (
    AgeSummary,
    AnalysisResult,
    AuditHead,
    CampaignInfo,
    Round,
    RunInfo,
    SitePrivacy,
    SiteRecord,
    Withheld,
)
from fedage.common.record.pooled import PooledCheck, PooledFigure
from fedage.common.record.preparation import Preparation
from fedage.common.record.results import SCHEMA_VERSION
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, FileTooLarge, read_json

__all__ = [
    "SCHEMA_VERSION",
    "AgeSummary",
    "AuditHead",
    "CampaignInfo",
    "PooledCheck",
    "PooledFigure",
    "Preparation",
    "Results",
    "ResultsUnreadable",
    "Round",
    "RunInfo",
    "SitePrivacy",
    "SiteRecord",
    "StepResult",
    "Withheld",
    "read_results",
    "schema_text",
    "write_results",
]


class StepResult(generic.StepResult):
    """What came of one step: a result, or why there is none."""

    @classmethod
    def kind_of(cls, analysis: str) -> type[AnalysisResult]:
        """The type of an analysis' results; results of one that is not installed here stay as they are."""
        definition = definition_of(analysis)
        return AnalysisResult if definition is None else definition.result


class Results(generic.Results):
    """A whole run."""

    analyses: dict[str, StepResult] = Field(
        default_factory=dict, description="by registered step; its result is described where its analysis is"
    )
    external: dict[str, StepResult] = Field(
        default_factory=dict,
        description="the same steps over the sites that only validate, where others train; `analyses` is without them",
    )


class ResultsUnreadable(FedAgeError):
    """A file is not a `results.json` that this version reads."""


def schema_text() -> str:
    """The JSON schema of `results.json`, as committed in `results.schema.json`: FedAge's own analyses are in it.

    Each analysis' results are of its own type; those of an installed package are described there.
    """
    schema = Results.model_json_schema()
    forms = []
    for name, definition in sorted(own().items()):
        of_result = definition.result.model_json_schema()
        schema["$defs"] |= of_result.pop("$defs", {}) | {definition.result.__name__: of_result}
        form = {"$ref": f"#/$defs/{definition.result.__name__}"}
        typed = {"result": {"anyOf": [form, {"type": "null"}]}, "by_site": {"additionalProperties": form}}
        forms.append({"if": {"properties": {"analysis": {"const": name}}}, "then": {"properties": typed}})
    schema["$defs"]["StepResult"]["allOf"] = forms
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def write_results(path: Path, results: Results, *, durable: bool = True) -> None:
    """Write the record atomically: a reader sees the whole old file or the whole new one.

    `durable` waits until it is on the disk itself; without, it outlives the process, not a power cut.
    """
    text = json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o644, durable=durable)


def read_results(path: Path | str) -> Results:
    """Read a record.

    Raises
    ------
    ResultsUnreadable
        If it is not there, not JSON, of another schema version, or does not fit the schema.
    """
    path = Path(path)
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
            f"{path} does not fit schema {version}: {error.error_count()} mistakes, the first at {where} "
            f"({first['msg']}); it was edited or is no results.json"
        ) from None
