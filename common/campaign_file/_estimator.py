"""What a campaign file and the estimator it names say against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fedage.common.campaign.fields import LIKELY_SITE
from fedage.common.campaign_file._private import noise_problems, privacy_problems
from fedage.common.campaign_file._sound import ValidValues
from fedage.common.toml.problems import Problem
from fedage.common.toml.tables import check_table
from fedage.common.toml.words import did_you_mean, show

if TYPE_CHECKING:
    from fedage.common.campaign.types import CohortChoice
    from fedage.common.estimators.base import Estimator

_AGE_LIMITS = ("age_min_years", "age_max_years")


def estimator_problems(sound: ValidValues) -> Iterator[Problem]:
    """Unknown estimator, wrong options, a modality or a privacy mode that the estimator cannot have."""
    yield from _nothing_to_do(sound)
    name = sound["estimator.name"] if sound.has("estimator") else None
    if name is None:
        return
    # Imported here: estimators read campaign files in turn.
    from fedage.common import estimators

    known = tuple(estimators.names())
    if name not in known:
        yield Problem("estimator.name", _unknown(name, known))
        return
    try:
        chosen = estimators.estimator_class(name)
    except estimators.EstimatorRefused as refused:
        yield Problem("estimator.name", f"estimator.name = {show(name)}: {refused}")
        return
    yield from fit_problems(sound, chosen)


def fit_problems(sound: ValidValues, estimator: type[Estimator]) -> Iterator[Problem]:
    """What does not fit between the file and this estimator."""
    from fedage.common.estimators.base import modalities, on_tables

    if sound["estimator.bundle"] is None:
        yield from _training_problems(sound, estimator)
    if sound.has("table") and sound.given("table.predicted"):
        yield Problem(
            "table.predicted",
            f"table.predicted = {show(sound['table.predicted'])}: must not be there with [estimator], which predicts; "
            "remove one of them",
        )
    takes_rows, found_in = on_tables(estimator), modalities(estimator)
    if takes_rows != sound.has("table"):
        yield Problem(
            "table",
            f"[table] must {'be there' if takes_rows else 'not be there'}: {estimator.name} is an estimator on "
            f"{'tables, and it says which column is the age' if takes_rows else 'images'}; "
            f"{'add' if takes_rows else 'remove'} it",
        )
    if not sound.wrong("estimator.options"):
        wrong = check_table("estimator.options", sound["estimator.options"] or {}, estimator.Options).problems
        yield from wrong
        if not wrong:
            yield from _phase_problems(sound, estimator)
    for modality in sound["cohort.modality"] or ():
        if modality is not None and found_in and modality not in found_in:
            yield Problem(
                "cohort.modality",
                f"cohort.modality = {show(modality)}: must be {_any_of(found_in)}, the modalities of "
                f"{estimator.name}; remove it, or choose another estimator",
            )


def _phase_problems(sound: ValidValues, estimator: type[Estimator]) -> Iterator[Problem]:
    """What the phases of the estimator, with these options, cannot do."""
    from fedage.common import estimators
    from fedage.common.estimators.base import Conditions, ExactPhase, RoundsPhase
    from fedage.common.estimators.configure import PhaseRefused, phases_of, require_exact

    try:
        made = estimators.make(estimator.name, sound["estimator.options"] or {}).for_any_table()
        yield from _loss_problems(sound, made)
        yield from _age_problems(sound, made)
        if sound["privacy.mode"] in ("sample", "client"):
            yield from privacy_problems(made, mode=sound["privacy.mode"])
        else:
            yield from noise_problems(made)
        yield from _site_probe_problems(sound, made)
        phases = [phase for phase in phases_of(made) if isinstance(phase, RoundsPhase)]
        for exact in (phase for phase in phases_of(made) if isinstance(phase, ExactPhase)):
            require_exact(exact, exact.analysis(Conditions(minimum_count=2)))
    except PhaseRefused as refused:
        yield Problem("estimator.name", f"estimator.name = {show(estimator.name)}: {refused}")
        return
    except (RuntimeError, ValueError):
        return  # it has to see a table first, or its options are refused for what they say together
    yield from _start_problems(sound, made)
    yield from _outcome_problems(sound, made)
    batch = sound["training.batch_size"] if sound.has("training") else None
    for phase in phases:
        if batch is not None and batch < phase.smallest_batch:
            yield Problem(
                "training.batch_size",
                f"training.batch_size = {batch}: must be ≥ {phase.smallest_batch} with {estimator.name}, whose loss "
                f"looks at a whole batch (phase {phase.name}); raise it",
            )


def _outcome_problems(sound: ValidValues, made: Estimator) -> Iterator[Problem]:
    """Rounds of an outcome are not chosen by the error of age, which is all that is told after a round."""
    from fedage.common.estimators.outcomes import LearnsOutcome

    for key in ("keep", "patience_rounds"):
        value = sound[f"training.{key}"] if sound.has("training") else None
        if isinstance(made, LearnsOutcome) and value not in (None, "last"):
            yield Problem(
                f"training.{key}",
                f"training.{key} = {show(value)}: not possible with {made.name}, as the round would be chosen by the "
                "error of age, not by that of the outcome; leave it out",
            )


def _start_problems(sound: ValidValues, made: Estimator) -> Iterator[Problem]:
    """A bundle has the model after the last phase, so that only one phase in rounds, the last, can begin with it."""
    if not sound.has("training"):
        return
    from fedage.common.estimators.configure import rounds_phases
    from fedage.common.estimators.outcomes import LearnsOutcome

    in_rounds = rounds_phases(made)
    begins_with_age = isinstance(made, LearnsOutcome)
    if sound["training.start_bundle"] is None:
        if begins_with_age and len(in_rounds) == 1:
            yield Problem(
                "training.start_bundle",
                "training.start_bundle is missing: with estimator.options.age_first = false the rounds begin with a "
                "bundle of the model of age; name it, or leave age_first out",
            )
        return
    if begins_with_age and len(in_rounds) > 1:
        yield Problem(
            "estimator.options.age_first",
            "estimator.options.age_first must be false with training.start_bundle, the model of age that the rounds "
            "begin with; set it, or leave start_bundle out",
        )
        return
    if in_rounds != (len(made.phases) - 1,):
        yield Problem(
            "training.start_bundle",
            f"training.start_bundle: not possible with {made.name}, whose model is made in other phases after the "
            "first rounds; leave it out",
        )
    if (sound["estimator.options"] or {}).get("weights_sha256"):
        yield Problem(
            "training.start_bundle",
            "training.start_bundle: not possible with estimator.options.weights_sha256, another model to begin with; "
            "remove one of them",
        )


def _site_probe_problems(sound: ValidValues, made: Estimator) -> Iterator[Problem]:
    """Sites that cannot be told apart, or may not."""
    if not any(output.column == LIKELY_SITE for output in made.outputs):
        return
    train = set(sound["campaign.sites"] or ()) - set(sound["validation.sites"] or ())
    if len(train) < 2:
        yield Problem(
            "campaign.sites",
            f"campaign.sites has {len(train)} sites that train: estimator.options.site_probe needs at least 2 to tell "
            "apart; name the sites",
        )
    if sound["privacy.secure_aggregation"]:
        yield Problem(
            "estimator.options.site_probe",
            "estimator.options.site_probe: not possible with privacy.secure_aggregation = true, as what tells sites "
            "apart shows the mean embedding of each, which is hidden; remove one of the two",
        )


def _loss_problems(sound: ValidValues, made: Estimator) -> Iterator[Problem]:
    """A loss that tells of single patients, see `KinkedLoss`."""
    from fedage.common.estimators.configure import kinked_loss

    bends, minimum = kinked_loss(made), sound["privacy.minimum_count"]
    if bends and minimum is not None and minimum > 1 and sound["simulation.guard"] is not False:
        yield Problem(
            "estimator.options.loss",
            f"estimator.options.{bends}: not possible with privacy.minimum_count = {minimum}: the loss bends where one "
            'patient\'s error passes a value, so that updates tell of that patient; use loss = "mse"',
        )


def _training_problems(sound: ValidValues, estimator: type[Estimator]) -> Iterator[Problem]:
    """Rounds for an estimator that is trained in rounds, and for no other."""
    exact = not estimator.trained_in_rounds
    if exact and sound.has("training"):
        yield Problem("training", f"[training] must not be there: {estimator.name} is exact, without rounds; remove it")
    if not exact and sound.has("training"):
        yield from _norm_problems(sound, estimator)
    if not exact and not sound.has("training"):
        yield Problem("training", f"[training] is missing: {estimator.name} is trained in rounds; add it with rounds")


def _norm_problems(sound: ValidValues, estimator: type[Estimator]) -> Iterator[Problem]:
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


def _nothing_to_do(sound: ValidValues) -> Iterator[Problem]:
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
    for table in ("training", "bias", "validation"):
        if sound.has(table):
            yield Problem(table, f"[{table}] must not be there: without [estimator] nothing is trained; remove it")


def from_estimator(sound: ValidValues, cohort: CohortChoice) -> dict[str, Any]:
    """What follows from a sound file's estimator: cohort with age limits, predicted columns, images."""
    made = _made(sound, sound["estimator.name"]) if sound.has("estimator") else None
    if made is None:
        return {}
    from fedage.common.estimators.configure import usual_age_limits
    from fedage.common.estimators.inputs import image_shapes

    limits = dict(zip(_AGE_LIMITS, usual_age_limits(made), strict=True))
    stated = {key for key in _AGE_LIMITS if sound.given(f"cohort.{key}")}
    narrowed = cohort.model_copy(update={key: years for key, years in limits.items() if key not in stated})
    return {
        "cohort": narrowed,
        "predicted_columns": tuple(output.column for output in made.outputs),
        "image_shapes": image_shapes(made),
    }


def _made(sound: ValidValues, name: str) -> Estimator | None:
    """The estimator as the file configures it; None where it has to see a table first, or refuses its options."""
    from fedage.common import estimators

    try:
        return estimators.make(name, sound["estimator.options"] or {})
    except (RuntimeError, ValueError):
        return None


def _age_problems(sound: ValidValues, made: Estimator) -> Iterator[Problem]:
    """Ages that the estimator cannot learn or predict."""
    from fedage.common.estimators.configure import usual_age_limits

    usual = usual_age_limits(made)
    stated = [sound[f"cohort.{key}"] if sound.given(f"cohort.{key}") else None for key in _AGE_LIMITS]
    for key, years, bound, sign in zip(_AGE_LIMITS, stated, made.ages_years, (1, -1), strict=True):
        if years is not None and sign * (years - bound) < 0:
            low, high = made.ages_years
            yield Problem(
                f"cohort.{key}",
                f"cohort.{key} = {years:g}: must be {'≥' if sign > 0 else '≤'} {bound:g}, as {made.name} with these "
                f"options is for ages from {low:g} to {high:g}; change the limit, or the estimator's options",
            )
    low, high = (limit if years is None else years for limit, years in zip(usual, stated, strict=True))
    if None in stated and low >= high:
        yield Problem(
            "cohort",
            f"[cohort] must state age_min_years and age_max_years: {made.name} with these options is for ages from "
            f"{made.ages_years[0]:g} to {made.ages_years[1]:g}, in which there are no limits of whole 5 years; state "
            "them, or change the estimator's options",
        )


def _unknown(name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    close = did_you_mean(name, known)
    hint = f"did you mean {show(close)}?" if close else "choose one of these"
    return f"estimator.name = {show(name)}: unknown estimator, known are {', '.join(known)}; {hint}"


def _any_of(values: Iterable[str]) -> str:
    return " or ".join(values)
