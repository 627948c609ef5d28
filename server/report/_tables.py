"""The report's tables, straight from the record."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from fedage.common.presentation.cells import (
    NONE,
    Cell,
    Table,
    count,
    number,
    reasons,
    words,
)
from fedage.common.presentation.participation import participants, patients_told
from fedage.common.presentation.wording import listed
from fedage.common.record.parts import WHOLE_SITE
from fedage.server.record.results import Results, SiteRecord
from fedage.server.report import site_text
from fedage.server.report.withheld_text import withholdings

T = TypeVar("T")


def sites(results: Results) -> Table:
    """What each site brought and what it set aside."""
    folds = tuple(f"fold {number}" for number in range(1, (results.campaign.folds or 0) + 1))
    # Without an estimator nobody is trained on or held out.
    parts = folds or (_PARTS if results.campaign.estimator else ())
    has_heads = site_text.are_told(results)
    rows = tuple(
        (
            words(site.name),
            words(_status(site, folds=bool(folds))),
            *((words(site.role),) if has_heads else ()),
            words("hidden") if site.hidden else count(site.patients) if patients_told(site) != "-" else NONE,
            *((words(_held_out(site, folds=len(folds))),) if folds else ()),
            *(count(site.patients_by_part[part]) if part in site.patients_by_part else NONE for part in parts),
        )
        for site in results.sites
    )
    notes = ["A patient of fold k is predicted by the model that was made without fold k."] if folds and rows else []
    notes += site_text.held_out(results)
    return Table(
        "sites",
        ("site", "status", *(("role",) if has_heads else ()), "patients", *(("held out in",) if folds else ()), *parts),
        rows,
        why_empty="No site answered the offer of the campaign.",
        note=" ".join(notes),
    )


def set_aside(results: Results) -> Table:
    """What each site could not use, what it computed on, and where its audit log stood."""
    has_heads = site_text.are_told(results)
    rows = tuple(
        (
            words(site.name),
            reasons(site.excluded, minimum=site.minimum_count),
            reasons(site.rejected_files, minimum=site.minimum_count),
            reasons(site.rejected_samples, minimum=site.minimum_count),
            words(site.device),
            *((words(site_text.audit_head(site)),) if has_heads else ()),
        )
        for site in participants(results)
    )
    headers = ("site", "patients excluded", "files rejected", "images refused", "device")
    return Table(
        "set-aside",
        (*headers, *(("audit log",) if has_heads else ())),
        rows,
        why_empty="No site answered the offer of the campaign.",
        note=site_text.PURPOSE if has_heads else "",
    )


def _status(site: SiteRecord, *, folds: bool) -> str:
    when = f" in round {site.dropped_out_in_round}" if site.dropped_out_in_round else ""
    when += " of the last fold" if when and folds else ""
    return f"{site.status}{when}{': ' if site.reason else ''}{site.reason}"


def _held_out(site: SiteRecord, *, folds: int) -> str:
    return "" if site.held_out_in_folds is None else f"{site.held_out_in_folds} of {folds} folds"


_PARTS = ("train", "validation", "test")


def withheld(results: Results) -> Table:
    """What did not leave which sites, one row a contribution and reason."""
    rows = tuple(
        (words(item.step), words(item.rests_on), words(", ".join(sites)), words(reason))
        for item in withholdings(results)
        for reason, sites in item.why.items()
    )
    headers = ("contribution", "result rests on", "withheld by", "why")
    return Table("withheld", headers, rows, why_empty="No site withheld a contribution.")


def troubles(results: Results) -> Table:
    """What went wrong, in the sites' order; what repeats is told once."""
    rows = tuple(
        (words(site.name), words(trouble if times == 1 else f"{trouble} ({times} times)"))
        for site in results.sites
        for trouble, times in Counter(site.troubles).items()
    )
    return Table("troubles", ("site", "what went wrong"), rows, why_empty="Nothing went wrong at any site.")


def privacy(results: Results) -> Table:
    """What each site's updates cost its patients, in a campaign with differential privacy."""
    spent = [(site.name, site.privacy) for site in results.sites if site.privacy is not None]
    rows = tuple(
        (
            words(name),
            number(one.epsilon, 3),
            words(f"{one.delta:g}" if one.delta is not None else ""),
            number(one.noise_multiplier, 3),
            number(one.clip_norm, 3),
            number(one.sampling_rate, 4),
            count(one.steps),
        )
        for name, one in spent
    )
    accountants = sorted({one.accountant for _, one in spent if one.accountant})
    whose = "for adding or removing one patient. Each site's own word"
    if any(one.adjacency == WHOLE_SITE for _, one in spent):
        whose = "for whole sites, towards everybody but the coordinator, who adds the noise"
    return Table(
        "privacy",
        ("site", "ε", "δ", "noise multiplier", "clip norm", "sampling rate", "steps a round"),
        rows,
        why_empty="The campaign was without differential privacy.",
        note=f"By the {listed(accountants)}, {whose}. The notes below say what it covers and what not."
        if accountants
        else "",
    )


def rounds(results: Results) -> Table:
    """Every round."""
    folds = any(item.fold is not None for item in results.rounds)
    rows = tuple(
        (
            *((_fold(results, item.fold),) if folds else ()),
            count(item.number),
            number(item.seconds, 1),
            number(item.train_loss, 4),
            number(item.validation_mae_years),
            number(item.update_norm, 3),
            words(", ".join(item.sites)),
        )
        for item in results.rounds
    )
    headers = ("round", "seconds", "training loss", "validation MAE, years", "update norm", "sites")
    headers_by_fold = ("fold", *headers)
    return Table("rounds", headers_by_fold if folds else headers, rows, why_empty=no_rounds(results))


def _fold(results: Results, fold: int | None) -> Cell:
    """A fold; of the model on everybody that it is that one."""
    if fold is None:
        return NONE
    return count(fold) if fold <= (results.campaign.folds or 0) else words("all")


def no_rounds(results: Results) -> str:
    """Why there is no round."""
    if results.solved_exactly:
        return "The model is solved exactly from the sites' sums, so there are no rounds."
    if results.campaign.bundle:
        return "Nothing was trained: the model was made before, and was validated."
    return "No round of training was finished."
