"""What came out, in plain words: the report's first screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fedage.common.presentation.blocks import Shown
from fedage.common.presentation.participation import judged, participants, training_in_words
from fedage.common.wording import listed
from fedage.server.errors_in_words import sentences as error_sentences
from fedage.server.report._rounds import rounds_in_words
from fedage.server.results import Results
from fedage.server.shown import shown_of
from fedage.server.withheld_in_words import in_short


def sentences(results: Results, shown: Sequence[Shown] | None = None) -> list[str]:
    """The summary, a sentence or two an item."""
    return [
        _what_ran(results),
        *_age(results),
        *error_sentences(results),
        *(sentence for each in shown or shown_of(results) for sentence in each.sentences),
        *_truth(results),
        *in_short(results),
    ]


def banners(results: Results) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if results.phantoms:
        found.append("Images in this run are phantoms rendered by FedAge. No figure here says anything about patients.")
    if not results.run.guard:
        found.append("Disclosure control was switched off in this run: figures may rest on single patients.")
    if results.run.status != "finished":
        found.append(f"This run {_ended(results)}. What follows is what it had found until then.")
    return found


def not_asked(results: Results) -> str:
    """The analyses that the campaign did not ask for, which therefore have no section; empty if it asked for all."""
    absent = [
        *(["an estimator"] if not results.campaign.estimator else []),
        *(["a survival analysis"] if results.survival is None else []),
        *(["a comparison of groups"] if results.groups is None else []),
    ]
    return listed(absent) if absent else ""


def sites_told(results: Results) -> str:
    """The sites that took part, and those that did not, by name; empty without any."""
    taking = [site.name for site in participants(results)]
    others = [site.name for site in results.sites if site.name not in taking]
    if not others:
        return ", ".join(taking)
    return f"{', '.join(taking) or 'none took part'} (offered to {', '.join(others)} too)"


def duration(results: Results) -> str:
    """How long the run took, e.g. `4 min 10 s`; empty if it is not known."""
    if results.run.finished_utc is None:
        return ""
    try:
        began = datetime.fromisoformat(results.run.started_utc)
        seconds = round((datetime.fromisoformat(results.run.finished_utc) - began).total_seconds())
    except (ValueError, TypeError):
        return ""
    hours, rest = divmod(max(seconds, 0), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def sentence(reason: str) -> str:
    """A reason as a sentence: a capital first, a full stop last."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."


def moment(utc: str) -> str:
    """An ISO 8601 time for reading."""
    return f"{utc[:19].replace('T', ' ')} UTC"


def _ended(results: Results) -> str:
    reason = results.run.reason.rstrip(".")
    return f"{results.run.status}: {reason}" if reason else results.run.status


def _what_ran(results: Results) -> str:
    took_part, others = training_in_words(results)
    exact, estimator = results.solved_exactly, results.campaign.estimator
    if not participants(results) or (estimator and not results.rounds and not exact):
        return "No round of training was finished." if estimator else "No site took part."
    if not took_part:
        return f"No site's contribution is in the whole of the age estimator {estimator}: {others}."
    rest = f" {sentence(others)}" if others else ""
    patients = [site.patients for site in took_part]
    told = f", {sum(n for n in patients if n)} patients" if None not in patients else ""
    names = ", ".join(site.name for site in took_part)
    alone = len(took_part) == 1
    time = duration(results)
    took, together = f" in {time}" if time else "", "" if alone else " together"
    sites = f"{len(took_part)} site{'' if alone else 's'} ({names}{told})"
    if not estimator:
        return f"{sites} took part in a campaign that only analyses{took}: no model was made."
    if exact:
        folds = len(results.preparation)
        each = f", once for each of {folds} folds" if folds > 1 else ""
        return (
            f"{sites} made the age estimator {estimator}{together}{took}: solved exactly from sums{each}, so no rounds "
            f"of training were needed.{rest}"
        )
    return f"{sites} trained the age estimator {estimator}{together} for {rounds_in_words(results.rounds)}{took}.{rest}"


def _age(results: Results) -> list[str]:
    test = results.evaluation.test
    folds = ", each predicted by the model made without their fold," if results.campaign.folds else ""
    if not results.campaign.estimator and test.raw.overall is None:
        return []
    if test.raw.overall is None or test.raw.overall.mae_years is None:
        return [f"How good the predicted ages are is not known: {_why(test.raw.not_computed)}."]
    raw = test.raw.overall
    whose = f"{raw.n} {judged(results)}{folds}"
    found = f"On {whose} the predicted age is off by {raw.mae_years:.2f} years on average (MAE, raw)"
    against = []
    if raw.mae_of_mean_years is not None:
        bound = "at least " if raw.mae_of_mean_at_least else ""
        against.append(f"predicting the mean age for everybody would be off by {bound}{raw.mae_of_mean_years:.2f}")
    if raw.mae_of_site_mean_years is not None:
        against.append(f"each site's own mean by {raw.mae_of_site_mean_years:.2f}")
    if results.planted is not None and results.planted.irreducible_mae_years is not None:
        against.append(f"the best possible reader by {results.planted.irreducible_mae_years:.2f}")
    said = [f"{found}{'; ' + ', '.join(against) if against else ''}."]
    corrected = test.corrected.overall
    if corrected is not None and corrected.mae_years is not None:
        said.append(
            f"After correction of the age bias it is {corrected.mae_years:.2f} years. The correction uses the true "
            "age, which flatters any model: compare models by the raw figure."
        )
    return said


def _truth(results: Results) -> list[str]:
    if results.planted is None:
        return []
    checks = results.planted.checks
    decided = [check.holds for check in checks if check.holds is not None]
    if not decided:
        return []
    open_ = len(checks) - len(decided)
    rest = f" {open_} could not be asked: too few events." if open_ else ""
    return [f"{sum(decided)} of {len(decided)} comparisons with the planted truth hold.{rest}"]


def _why(reason: str) -> str:
    return (reason or "no site released it").rstrip(".")
