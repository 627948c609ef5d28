"""What came out, in plain words: the report's first screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fedage.common.presentation.blocks import Display
from fedage.common.presentation.participation import participants, patients_told, training_text
from fedage.common.presentation.wording import listed
from fedage.server.record.results import Results
from fedage.server.report import external
from fedage.server.report.rounds import rounds_text
from fedage.server.report.shown import shown_of, subjects_not_asked_for
from fedage.server.report.withheld_text import in_short


def sentences(results: Results, shown: Sequence[Display] | None = None) -> list[str]:
    """The summary, a sentence or two an item."""
    return [
        _what_ran(results),
        *(sentence for each in shown or shown_of(results) for sentence in each.sentences),
        *external.sentences(results),
        *in_short(results),
    ]


def banners(results: Results) -> list[str]:
    """What a reader must know before any number."""
    sentences = []
    if results.phantoms:
        sentences.append(
            "Images in this run are phantoms rendered by FedAge. No figure here says anything about patients."
        )
    if not results.run.guard:
        sentences.append("Disclosure control was switched off in this run: figures may rest on single patients.")
    if results.run.status != "finished":
        sentences.append(f"This run {_ended(results)}. What follows is what it had found until then.")
    return sentences


def not_asked(results: Results) -> str:
    """The analyses that the campaign did not ask for, which therefore have no section; empty if it asked for all."""
    absent = [*(["an estimator"] if not results.campaign.estimator else []), *subjects_not_asked_for(results)]
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
    took_part, others = training_text(results)
    exact, estimator = results.solved_exactly, results.campaign.estimator
    if results.campaign.bundle and participants(results):
        at = listed([f"{site.name} ({patients_told(site)} patients)" for site in participants(results)])
        return f"A model that was made before, of the age estimator {estimator}, was validated at {at}."
    if not participants(results) or (estimator and not results.rounds and not exact):
        return "No round of training was finished." if estimator else "No site took part."
    if not took_part:
        return f"No site's contribution is in the whole of the age estimator {estimator}: {others}."
    rest = f" {sentence(others)}" if others else ""
    patients = [site.patients for site in took_part]
    patients_text = f", {sum(n for n in patients if n)} patients" if None not in patients else ""
    names = ", ".join(site.name for site in took_part)
    alone = len(took_part) == 1
    time = duration(results)
    took, together = f" in {time}" if time else "", "" if alone else " together"
    sites = f"{len(took_part)} site{'' if alone else 's'} ({names}{patients_text})"
    if not estimator:
        return f"{sites} took part in a campaign that only analyses{took}: no model was made."
    if exact:
        folds, final = results.campaign.folds, results.campaign.final_model
        each = f", once for each of {folds} folds{' and once on everybody' if final else ''}" if folds else ""
        return (
            f"{sites} made the age estimator {estimator}{together}{took}: solved exactly from sums{each}, so no rounds "
            f"of training were needed.{rest}"
        )
    return f"{sites} trained the age estimator {estimator}{together} for {rounds_text(results.rounds)}{took}.{rest}"
