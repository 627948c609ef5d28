"""The report's tables about what a model on tables was made from."""

from __future__ import annotations

from fedage.common.presentation.cells import NONE, Cell, Table, count, left_out, number, words
from fedage.server.record.results import Preparation, Results

_SOURCES = {
    "campaign": "campaign file",
    "inner-folds": "cross-validation",
    "too-few-patients": "number of features",
}


def preparation(results: Results) -> Table:
    """One row a fold: patients, features, how sure the medians are, and the penalty."""
    folds = any(item.fold is not None for item in results.preparation)
    rows = tuple(
        (
            *((_fold(results, item),) if folds else ()),
            count(item.n),
            left_out(item.left_out, few_sites=item.left_out_few_sites),
            NONE if item.features is None else count(item.features - len(item.unused)),
            count(len(item.unused)),
            number(_error(item, 0), 3),
            number(_error(item, 1), 3),
            _digits(item.penalty),
            words(_SOURCES.get(item.penalty_from, item.penalty_from)),
        )
        for item in results.preparation
    )
    headers = (
        *(("fold",) if folds else ()),
        "training patients",
        "left out",
        "features used",
        "not used",
        "medians within ±, SD",
        "half of them within ±, SD",
        "penalty λ",
        "its source",
    )
    return Table("preparation", headers, rows, why_empty="This model needs no preparation.")


def cross_validation(results: Results) -> Table:
    """Root mean squared error of every penalty tried; folds as columns."""
    tried = [item for item in results.preparation if item.cross_validation]
    penalties = sorted({penalty for item in tried for penalty, _ in item.cross_validation if penalty is not None})
    errors = [dict(item.cross_validation) for item in tried]
    rows = tuple((_digits(penalty), *(number(of_fold.get(penalty), 4) for of_fold in errors)) for penalty in penalties)
    headers = tuple("RMSE" if item.fold is None else f"RMSE, fold {_fold(results, item).text}" for item in tried)
    note = "On the age scale of the model (years, or the logarithm of years). The strongest penalty "
    "whose error is hardly above the least is used."
    return Table(
        "cross-validation",
        ("penalty λ", *headers),
        rows,
        why_empty="No penalty was chosen by cross-validation.",
        note=note if rows else "",
    )


def _fold(results: Results, item: Preparation) -> Cell:
    """The fold, or that the model is the one on everybody."""
    if item.fold is None:
        return NONE
    return count(item.fold) if item.fold <= (results.campaign.folds or 0) else words("all")


def _error(item: Preparation, which: int) -> float | None:
    return item.median_error_in_sd[which] if len(item.median_error_in_sd) == 2 else None


def _digits(value: float | None) -> Cell:
    """Three digits that count, whatever the size."""
    return NONE if value is None else Cell(f"{value:.3g}", repr(float(value)))
