"""What a campaign file and the estimator it names say against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fedage.common.campaign._sound import Sound
from fedage.common.campaign._tables import check_table
from fedage.common.campaign._words import did_you_mean, show
from fedage.common.campaign.problems import Problem

if TYPE_CHECKING:
    from fedage.common.estimators.base import Estimator


def estimator_problems(sound: Sound) -> Iterator[Problem]:
    """Unknown estimator, wrong options, a modality or a privacy mode that the estimator cannot have."""
    yield from _nothing_to_do(sound)
    name = sound["estimator.name"] if sound.has("estimator") else None
    if name is None:
        return
    # Imported here: the estimators bring torch, which a reader of this package may not need.
    from fedage.common import estimators

    known = tuple(estimators.names())
    if name not in known:
        yield Problem("estimator.name", _unknown(name, known))
        return
    yield from fit_problems(sound, estimators.estimator_class(name))


def fit_problems(sound: Sound, estimator: type[Estimator]) -> Iterator[Problem]:
    """What does not fit between the file and this estimator."""
    from fedage.common.estimators._table import TableBase

    yield from _training_problems(sound, estimator)
    if sound.has("table") and sound.given("table.predicted"):
        yield Problem(
            "table.predicted",
            f"table.predicted = {show(sound['table.predicted'])}: must not be there with [estimator], which predicts; "
            "remove one of them",
        )
    on_tables = issubclass(estimator, TableBase)
    if on_tables != sound.has("table"):
        yield Problem(
            "table",
            f"[table] must {'be there' if on_tables else 'not be there'}: {estimator.name} is an estimator on "
            f"{'tables, and it says which column is the age' if on_tables else 'images'}; "
            f"{'add' if on_tables else 'remove'} it",
        )
    if not sound.wrong("estimator.options"):
        yield from check_table("estimator.options", sound["estimator.options"] or {}, estimator.Options).problems
    for modality in sound["cohort.modality"] or ():
        if modality is not None and modality not in estimator.modalities:
            yield Problem(
                "cohort.modality",
                f"cohort.modality = {show(modality)}: must be {_any_of(estimator.modalities)}, the modalities of "
                f"{estimator.name}; remove it, or choose another estimator",
            )
    if sound["privacy.mode"] == "sample" and estimator.couples_samples:
        yield Problem(
            "privacy.mode",
            f'privacy.mode = "sample": not possible with {estimator.name}, whose loss relates the samples of a batch '
            "to each other, so that one patient's gradient cannot be told apart; choose another of the two",
        )


def _training_problems(sound: Sound, estimator: type[Estimator]) -> Iterator[Problem]:
    """Rounds for an estimator that is trained in rounds, and for no other."""
    exact = bool(getattr(estimator, "exact", False))
    if exact and sound.has("training"):
        yield Problem("training", f"[training] must not be there: {estimator.name} is exact, without rounds; remove it")
    if not exact and sound.has("training"):
        yield from _norm_problems(sound, estimator)
    if not exact and not sound.has("training"):
        yield Problem("training", f"[training] is missing: {estimator.name} is trained in rounds; add it with rounds")


def _norm_problems(sound: Sound, estimator: type[Estimator]) -> Iterator[Problem]:
    """Bounds of the model's movement above those that the estimator states.

    Attack: a coordinator writes bounds so far that its models single patients out. Rule: a file may lower the bounds,
    not raise them. Residual risk: what is measured at the estimator's own bounds.
    """
    for key, most in (("max_step_norm", estimator.max_step_norm), ("max_path_norm", estimator.max_path_norm)):
        norm = sound[f"training.{key}"]
        if norm is not None and norm > most:
            yield Problem(
                f"training.{key}",
                f"training.{key} = {norm:g}: must be ≤ {most:g}, the bound that {estimator.name} states: with a larger "
                "one a coordinator could choose models that single patients out; lower it, or leave it out",
            )


def _nothing_to_do(sound: Sound) -> Iterator[Problem]:
    """A campaign without an estimator only analyses: it needs a table and an analysis, and nothing about training."""
    if sound.has("estimator"):
        return
    if not any(sound.has(table) for table in ("survival", "groups", "analyses")) and not sound.given("table.predicted"):
        yield Problem(
            "estimator",
            "[estimator] is missing, and so is an analysis that needs none; add [estimator], or one of [survival], "
            "[groups] and table.predicted",
        )
        return
    if sound.given("table.predicted") and not sound.given("table.age"):
        yield Problem("table.age", "table.age is missing: predicted ages are held against it; name the column")
    if not sound.has("table"):
        yield Problem("table", "[table] is missing: a campaign without [estimator] analyses the sites' tables; add it")
    for table in ("training", "bias", "validation", "planted"):
        if sound.has(table):
            yield Problem(table, f"[{table}] must not be there: without [estimator] nothing is trained; remove it")


def _unknown(name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    close = did_you_mean(name, known)
    hint = f"did you mean {show(close)}?" if close else "choose one of these"
    return f"estimator.name = {show(name)}: unknown estimator, known are {', '.join(known)}; {hint}"


def _any_of(values: Iterable[str]) -> str:
    return " or ".join(values)
