"""A new campaign file from a few answers.

What is written is derived from the models that check a file, so a key that is added there is in the next file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedage.common.campaign_file._analyses import ANALYSES
from fedage.common.campaign_file._commented import EXAMPLES, comment, table_lines
from fedage.common.campaign_file.parse import TABLES

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator

_FOLDS = 5


@dataclass(frozen=True)
class Answers:
    """What a new campaign file needs to be told; the rest are defaults.

    Parameters
    ----------
    estimator
        A registered name, or None for a campaign that only analyses tables.
    bundle, options, table
        SHA-256 of a bundle that is validated, with its estimator's options and how it read tables.
    name, purpose, seed, sites
        As in `[campaign]`.
    age_column, id_column, sex_column
        Columns of the sites' tables, for a campaign on tables.
    features
        Columns or patterns that are features, for an estimator on tables.
    predicted_column
        Column of ages already predicted, for a campaign without an estimator.
    survival
        Whether follow-up is analysed; None: if a column of it is given, or nothing else is asked for.
    time_column, event_column
        Follow-up.
    covariates
        Of the Cox model; empty for what suits the campaign.
    group_column, group_equals, group_reference
        Two groups compared by their gap, if a column is given.
    held_fixed
        Columns of that comparison; None for what suits the campaign.
    """

    estimator: str | None
    name: str
    purpose: str
    seed: int = 1
    sites: tuple[str, ...] = ()
    age_column: str | None = "age"
    id_column: str | None = None
    sex_column: str | None = None
    features: tuple[str, ...] = ("*",)
    predicted_column: str | None = None
    survival: bool | None = None
    time_column: str | None = None
    event_column: str | None = None
    covariates: tuple[str, ...] = ()
    group_column: str | None = None
    group_equals: float = 1.0
    group_reference: float = 0.0
    held_fixed: tuple[str, ...] | None = None
    bundle: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)


def campaign_text(answers: Answers) -> str:
    """The text of a campaign file. `parse_campaign` accepts it if the answers are right, and says what is not.

    Raises
    ------
    UnknownEstimator
        If no such estimator is registered.
    """
    estimator = _estimator(answers.estimator)
    chosen = _chosen(answers, estimator)
    lines = comment(
        "A FedAge campaign. Prose begins with a # and a space; a key that is not in force begins with # alone: take it "
        "away to set the key. `fedage campaign check` says whether the file is right."
    )
    tables = _on_tables(estimator)
    examples = {**EXAMPLES, "cohort.modality": [] if estimator is None else list(_modalities(estimator))}
    for table, model in TABLES.items():
        if not _belongs(table, estimator):
            continue
        if table == "training" and answers.bundle is not None:
            continue
        if table == ANALYSES:
            lines += _further_analyses()
            continue
        without = (*(("modality",) if tables else ()), *(("predicted",) if estimator is not None else ()))
        lines += ["", "", *table_lines(table, model, chosen.get(table), without=without, examples=examples)]
        if table == "estimator" and estimator is not None:
            about = f"Options of {estimator.name}: {estimator.title}."
            set_here = chosen["estimator.options"]
            lines += ["", *table_lines(f"{table}.options", estimator.Options, set_here, about=about, only_set=True)]
    return "\n".join(lines) + "\n"


def _further_analyses() -> list[str]:
    """The tables of analyses that are asked for by their own, none in force."""
    # Imported here: an analysis gives its table to the campaign file, so it imports this package.
    from fedage.common.analyses.registry import own

    tables = {f"{ANALYSES}.{name}": definition.options for name, definition in own().items()}
    return [
        line
        for path, options in tables.items()
        if options is not None
        for line in ["", "", *table_lines(path, options, None)]
    ]


def reads_tables(estimator: str | None) -> bool:
    """Whether a campaign with this estimator, or None, reads the sites' tables."""
    return _on_tables(_estimator(estimator))


def _on_tables(estimator: type[Estimator] | None) -> bool:
    """Whether its estimator does, or it has none."""
    from fedage.common.estimators.base import on_tables

    return estimator is None or on_tables(estimator)


def _estimator(name: str | None) -> type[Estimator] | None:
    if name is None:
        return None
    # Imported here: estimators read campaign files in turn.
    from fedage.common import estimators

    return estimators.estimator_class(name)


def _belongs(table: str, estimator: type[Estimator] | None) -> bool:
    """Whether a file of this kind may have the table at all."""
    if table == "table":
        return _on_tables(estimator)
    if table == "training":
        return estimator is not None and estimator.trained_in_rounds
    return estimator is not None or table not in ("estimator", "bias", "validation")


def _chosen(answers: Answers, estimator: type[Estimator] | None) -> dict[str, dict[str, Any]]:
    """The tables that are in force, with what is not left to its default."""
    about: dict[str, Any] = {"name": answers.name, "purpose": answers.purpose, "seed": answers.seed}
    if answers.sites:
        about["sites"] = answers.sites
    chosen: dict[str, dict[str, Any]] = {"campaign": about, "cohort": {}, "privacy": {}, "simulation": {}}
    if _on_tables(estimator):
        columns = {
            "id": answers.id_column,
            "age": answers.age_column,
            "predicted": answers.predicted_column,
            "sex": answers.sex_column,
        }
        chosen["table"] = {key: column for key, column in columns.items() if column is not None} | dict(answers.table)
    if estimator is not None:
        chosen["estimator"] = {"name": estimator.name}
        asks_features = "features" in estimator.Options.model_fields
        chosen["estimator.options"] = {"features": answers.features} if asks_features else {}
        chosen["cohort"] = _ages(estimator)
        quorum = {"quorum": min(2, len(answers.sites))} if answers.sites else {}
        chosen["training"] = {**estimator.usual_training, **quorum}
        folds = {"folds": _FOLDS, "final_model": True}
        chosen["validation"] = folds if _on_tables(estimator) else {"fractions": {}}
        chosen["bias"] = {}
        if answers.bundle is not None:
            chosen["estimator"]["bundle"] = answers.bundle
            chosen["estimator.options"] = dict(answers.options)
            chosen["validation"] = {"folds": _FOLDS}
    if _has_survival(answers):
        chosen["survival"] = _survival(answers)
    if answers.group_column is not None:
        usual = ("age_years",) if estimator is not None or answers.age_column else ()
        chosen["groups"] = {
            "column": answers.group_column,
            "equals": answers.group_equals,
            "reference": answers.group_reference,
            "covariates": usual if answers.held_fixed is None else answers.held_fixed,
        }
    return chosen


def _modalities(estimator: type[Estimator]) -> tuple[str, ...]:
    from fedage.common.estimators.base import modalities

    return modalities(estimator)


def _ages(estimator: type[Estimator]) -> dict[str, Any]:
    """Age limits, for an estimator that cannot learn every age."""
    from fedage.common.campaign.types import CohortChoice
    from fedage.common.estimators import make
    from fedage.common.estimators.base import on_tables
    from fedage.common.estimators.configure import usual_age_limits

    if on_tables(estimator):
        return {}
    low, high = usual_age_limits(make(estimator.name, {}))
    any_age = CohortChoice()
    limits = {"age_min_years": low, "age_max_years": high}
    return {key: years for key, years in limits.items() if years != getattr(any_age, key)}


def usual_covariates(estimator: str | None, *, age: str | None, predicted: str | None) -> tuple[str, ...]:
    """What a Cox model begins with: the gap where there is one, and age where it is known."""
    if estimator is not None:
        return ("gap_years", "age_years")
    return (*(("raw_gap_years",) if predicted and age else ()), *(("age_years",) if age else ()))


def _has_survival(answers: Answers) -> bool:
    if answers.survival is not None:
        return answers.survival
    alone = answers.estimator is None and answers.group_column is None and answers.predicted_column is None
    return alone or answers.time_column is not None or answers.event_column is not None


def _survival(answers: Answers) -> dict[str, Any]:
    columns = {"time": answers.time_column, "event": answers.event_column}
    usual = usual_covariates(answers.estimator, age=answers.age_column, predicted=answers.predicted_column)
    covariates = answers.covariates or usual
    has_gap = any("gap_years" in covariate for covariate in covariates)
    models = [{"name": "gap" if has_gap else "first", "covariates": covariates}] if covariates else []
    return {**{key: column for key, column in columns.items() if column is not None}, "models": models}
