"""The comparison's tables: the terminal and the page show the same ones."""

from __future__ import annotations

from fedage.common.presentation.cells import NONE, Cell, Table, words
from fedage.common.presentation.wording import listed
from fedage.common.toml.words import show
from fedage.server.compare.comparison import ComparedRun, Comparison


def headline(comparison: Comparison, *, with_columns: bool = True) -> Table:
    """One row a run: what it was, and what analyses add in columns: without `with_columns` those of the page only."""
    columns = [column for each in comparison.shown for column in each.headline]
    if with_columns:
        columns += [column for each in comparison.shown for column in each.columns]
    # Nothing that is trained in rounds: nothing to aggregate.
    strategies = any(run.strategy for run in comparison.runs)
    headers = ("run", "estimator", *(["strategy"] if strategies else []), "rounds", "seed")
    rows = tuple(
        (
            words(run.label),
            words(run.estimator or ""),
            *((words(run.strategy or ""),) if strategies else ()),
            _rounds(run),
            Cell(str(run.seed), str(run.seed)),
            *(cells.get(run.label, NONE) for _, cells in columns),
        )
        for run in comparison.runs
    )
    return Table("runs", (*headers, *(header for header, _ in columns)), rows)


def settings(comparison: Comparison) -> Table:
    """What differs between the campaign files."""
    rows = tuple(
        (words(item.key), *(NONE if value is None else words(show(value)) for value in item.values))
        for item in comparison.settings
    )
    at_hand = [run for run in comparison.runs if "settings" not in run.missing]
    why = "the campaign files differ in nothing but what they are called"
    if len(at_hand) < 2:
        why = "fewer than two runs have their campaign.toml beside the record"
    return Table("settings", ("setting", *(run.label for run in comparison.runs)), rows, why_empty=why)


def missing(comparison: Comparison) -> Table:
    """What a run does not have."""
    rows = tuple(
        (words(run.label), words(part), words(reason))
        for run in comparison.runs
        for part, reason in run.missing.items()
    )
    return Table("missing", ("run", "not there", "why"), rows, why_empty="every run has every part")


def banners(comparison: Comparison) -> list[str]:
    """What a reader must know before any number."""
    sentences = []
    rendered = [run.label for run in comparison.runs if run.phantoms]
    if rendered:
        whose = "all these runs" if len(rendered) == len(comparison.runs) else listed(rendered)
        sentences.append(
            f"Images in {whose} are phantoms rendered by FedAge. No figure from them says anything about patients."
        )
    unguarded = [run.label for run in comparison.runs if not run.guard]
    if unguarded:
        whose = "all these runs" if len(unguarded) == len(comparison.runs) else listed(unguarded)
        sentences.append(f"Disclosure control was switched off in {whose}: figures may rest on single patients.")
    ended = [f"{run.label} {run.status}" for run in comparison.runs if run.status != "finished"]
    if ended:
        sentences.append(
            f"Not every run finished ({', '.join(ended)}): what they show is what they had found until then."
        )
    return sentences


def _rounds(run: ComparedRun) -> Cell:
    folds = "" if run.folds is None else f" × {run.folds} folds"
    return Cell(f"exact{folds}") if run.exact else Cell(f"{run.rounds}{folds}", str(run.rounds))
