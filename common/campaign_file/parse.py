"""A campaign file to a frozen `Campaign`, or to every mistake in it at once.

Three passes: the syntax; each table by itself; then, on whatever is right, what the keys say against each other, what
is planned and not built, and what the estimator allows. A mistake in one key hides none in another.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import BaseModel

from fedage.common.campaign.types import (
    FOLDS_OF_A_BUNDLE,
    About,
    Analyses,
    Bias,
    Campaign,
    CohortChoice,
    EstimatorChoice,
    Groups,
    Privacy,
    Simulation,
    Survival,
    TableChoice,
    Training,
    Validation,
)
from fedage.common.campaign_file._analyses import (
    ANALYSES,
    analyses_asked_for_by_name,
    analysis_problems,
    contradictory_analyses,
)
from fedage.common.campaign_file._contradictions import contradictions
from fedage.common.campaign_file._estimator import estimator_problems, from_estimator
from fedage.common.campaign_file._rules import not_built
from fedage.common.campaign_file._sound import ValidValues
from fedage.common.toml import text as _toml
from fedage.common.toml.problems import CampaignErrors, Problem
from fedage.common.toml.tables import Checked, check_table
from fedage.common.toml.words import did_you_mean

TABLES: dict[str, type[BaseModel]] = {
    "campaign": About,
    "estimator": EstimatorChoice,
    "cohort": CohortChoice,
    "table": TableChoice,
    "training": Training,
    "validation": Validation,
    "privacy": Privacy,
    "bias": Bias,
    "survival": Survival,
    "groups": Groups,
    ANALYSES: Analyses,
    "simulation": Simulation,
}
_REQUIRED = tuple(name for name in TABLES if Campaign.model_fields[name].is_required())


def parse_campaign(text: str, *, name: str = "campaign.toml") -> Campaign:
    """Check the text of a campaign file.

    Parameters
    ----------
    text
        The file's contents. The digest is that of its UTF-8 bytes.
    name
        What messages call the file.

    Raises
    ------
    CampaignErrors
        With every problem of the file.
    """
    source = _toml.read(text, name=name)
    if source.tables is None:
        raise CampaignErrors(source.problems, name=name)
    problems = list(source.problems)
    problems += _unknown_tables(source.tables)
    checked = {key: _check(key, source.tables[key]) for key in TABLES if key in source.tables}
    for key in TABLES:
        if key in checked:
            problems += [p for p in checked[key].problems if not _only_lost(p, source.lost)]
        elif key in _REQUIRED:
            problems.append(_missing_table(key))
    sound = ValidValues(
        tables={key: table.sound for key, table in checked.items()},
        models=TABLES,
        bad=frozenset().union(*(table.bad for table in checked.values())),
        lost=source.lost,
    )
    problems += not_built(sound)
    problems += contradictions(sound)
    problems += estimator_problems(sound)
    problems += analysis_problems(sound)
    if problems:
        raise CampaignErrors(problems, name=name)
    values: dict[str, Any] = {key: table.value for key, table in checked.items()}
    values |= from_estimator(sound, values.get("cohort", CohortChoice()))
    if sound["estimator.bundle"] is not None and "validation" not in values:
        values["validation"] = Validation(folds=FOLDS_OF_A_BUNDLE)
    campaign = Campaign(**values, text=text, digest=hashlib.sha256(text.encode("utf-8")).hexdigest())
    if contradictory := list(contradictory_analyses(campaign)):
        raise CampaignErrors(contradictory, name=name)
    return campaign


def _check(key: str, raw: Any) -> Checked:
    homes = {field: table for table, model in TABLES.items() if table != key for field in model.model_fields}
    return check_table(key, raw, TABLES[key], homes=homes)


def _unknown_tables(tables: dict[str, Any]) -> list[Problem]:
    problems = []
    unknown = [key for key in tables if key not in TABLES]
    # Asked once: which analyses are installed takes milliseconds, and a file may have thousands of unknown keys.
    analyses = analyses_asked_for_by_name() if unknown else []
    for key in unknown:
        homes = [table for table, model in TABLES.items() if key in model.model_fields]
        close = did_you_mean(key, TABLES)
        if homes:
            mend = f"it belongs in [{homes[0]}]"
        elif close is not None:
            mend = f"did you mean [{close}]?"
        elif (analysis := did_you_mean(key, analyses)) is not None:
            mend = f"did you mean [{ANALYSES}.{analysis}]?"
        else:
            mend = f"a campaign file has {', '.join(f'[{table}]' for table in TABLES)}"
        what = f"[{key}]: unknown table" if isinstance(tables[key], dict) else f"{key}: unknown key outside any table"
        problems.append(Problem(key, f"{what}; {mend}"))
    return problems


def _missing_table(key: str) -> Problem:
    required = [name for name, field in TABLES[key].model_fields.items() if field.is_required()]
    return Problem(key, f"[{key}] is missing: every campaign has it; add [{key}] with at least {', '.join(required)}")


def _only_lost(problem: Problem, lost: frozenset[str]) -> bool:
    """Whether a key seems missing only because its line could not be read."""
    return problem.key.rpartition(".")[2] in lost and " is missing: " in problem.message
