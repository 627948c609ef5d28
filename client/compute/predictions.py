"""Predictions stay at the site: kept by campaign and run, and joined to the cohort when an analysis runs.

A run has one model. Predictions of a second one, analysed by the same steps, would tell by subtraction about whoever
the two models differ on; so they are kept with the digest of their model and of the cohort they were made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedage.client.disclosure.guard import Withheld
from fedage.client.site.durable import StoreUnavailable, named_failures
from fedage.common.analyses.columns import MAX_GAP_YEARS
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine.atomic import atomic_file

Line = float | FloatArray

_COLUMN = "column:"
SLOPE_BOUNDS = (0.05, 5.0)
INTERCEPT_BOUND_YEARS = 200.0
CORRECTED = ("corrected_years", "gap_years", "cole_gap_years")
"""Columns that `with_correction` adds."""
NO_SUCH_LINE = "the slope or the intercept of the bias line is out of bounds"
"""The words of every refusal of a line for what it is: which limit it misses would tell of the patients."""


def cohort_digest(cohort: Cohort, *, snapshot: str) -> str:
    """SHA-256 over the site's digest of who is in and every column: parts and outcomes as well."""
    digest = hashlib.sha256(snapshot.encode())
    for name in sorted(cohort.columns):
        digest.update(f"\n{name}\n".encode())
        digest.update(np.ascontiguousarray(cohort[name], dtype="<f8").tobytes())
    return digest.hexdigest()


def are_kept(folder: Path, *, run: str, model: str, snapshot: str) -> bool:
    """Whether this run's predictions by this model are there.

    Raises
    ------
    Withheld
        Rule `already-predicted` if they are there by another model, `cohort-changed` if they are for another cohort.
    """
    stored = _read(folder, run)
    if stored is None:
        return False
    _, of_model, of_snapshot = stored
    if of_model != model:
        raise Withheld("already-predicted", "this run's predictions were made by another model; start a new run")
    _require_cohort(of_snapshot, snapshot)
    return True


def keep(folder: Path, *, run: str, columns: Mapping[str, FloatArray], model: str, snapshot: str) -> None:
    """Write a run's predictions once; a crash leaves no file or a whole one.

    Parameters
    ----------
    columns
        (n,) each, in cohort order; `predicted_years` among them.
    model
        Digest of the weights that made them.
    snapshot
        `cohort_digest` of the cohort they were made for.

    Raises
    ------
    Withheld
        As `are_kept`.
    StoreUnavailable
        If they cannot be written.
    """
    with named_failures(_file(folder, run), unavailable=StoreUnavailable):
        _keep(folder, run=run, columns=columns, model=model, snapshot=snapshot)


def _keep(folder: Path, *, run: str, columns: Mapping[str, FloatArray], model: str, snapshot: str) -> None:
    named = {f"{_COLUMN}{name}": column for name, column in columns.items()}
    try:
        with atomic_file(_file(folder, run), replaces=False) as stream:
            np.savez(stream, model=np.array(model), snapshot=np.array(snapshot), **named)  # type: ignore[arg-type]
    except FileExistsError:  # made in between
        are_kept(folder, run=run, model=model, snapshot=snapshot)


def with_predictions(cohort: Cohort, folder: Path, *, run: str, snapshot: str) -> Cohort:
    """The cohort with the predicted columns and `raw_gap_years`, or unchanged before there are predictions.

    Raises
    ------
    Withheld
        Rule `cohort-changed` if the predictions were made for another cohort.
    """
    stored = _read(folder, run)
    if stored is None:
        return cohort
    predicted, _, of_snapshot = stored
    _require_cohort(of_snapshot, snapshot)
    if any(column.shape != (cohort.n,) for column in predicted.values()):
        raise Withheld("cohort-changed", _CHANGED)
    return cohort.with_columns(**predicted, raw_gap_years=predicted["predicted_years"] - cohort["age_years"])


def with_stored(cohort: Cohort, folder: Path, *, run: str, snapshot: str) -> Cohort:
    """The cohort with all columns that are kept under a name, or unchanged if there are none.

    Raises
    ------
    Withheld
        Rule `cohort-changed` if they were made for another cohort.
    """
    stored = _read(folder, run)
    if stored is None:
        return cohort
    columns, _, of_snapshot = stored
    _require_cohort(of_snapshot, snapshot)
    if any(column.shape != (cohort.n,) for column in columns.values()):
        raise Withheld("cohort-changed", _CHANGED)
    return cohort.with_columns(**columns)


def with_final_model(cohort: Cohort, folder: Path, *, run: str, snapshot: str) -> Cohort:
    """The cohort with the predictions of a model that none of these patients had a part in.

    Raises
    ------
    Withheld
        Rule `cohort-changed`; rule `no-predictions` if there are none.
    """
    predicted = with_predictions(cohort, folder, run=run, snapshot=snapshot)
    if predicted is cohort:
        raise Withheld("no-predictions", "this site has no predictions of the final model")
    return predicted


def name_of(run: str, *, fold: int | None) -> str:
    """What a run's predictions by one fold's model are kept under; the run's own name without folds."""
    return run if fold is None else f"{run}--fold-{fold}"


def with_all_folds(cohort: Cohort, folder: Path, *, run: str, folds: int, snapshot: str) -> Cohort:
    """The cohort with out-of-fold predictions only: each patient's by the model they were held out of.

    Raises
    ------
    Withheld
        Rule `cohort-changed`; rule `no-predictions` if a fold's are missing.
    """
    predicted: dict[str, FloatArray] = {}
    for fold in range(folds):
        stored = _read(folder, name_of(run, fold=fold))
        if stored is None:
            raise Withheld("no-predictions", f"this site has no predictions of fold {fold + 1}")
        columns, _, of_snapshot = stored
        _require_cohort(of_snapshot, snapshot)
        if any(column.shape != (cohort.n,) for column in columns.values()):
            raise Withheld("cohort-changed", _CHANGED)
        rows = cohort["fold"] == fold
        for name, column in columns.items():
            predicted.setdefault(name, np.full(cohort.n, np.nan))[rows] = column[rows]
    return cohort.with_columns(**predicted, raw_gap_years=predicted["predicted_years"] - cohort["age_years"])


def models_of(folder: Path, *, runs: Sequence[str]) -> str:
    """The digests of the models whose predictions are kept under these names; empty parts where there are none."""
    stored = [_read(folder, run) for run in runs]
    return " ".join("" if one is None else one[1] for one in stored)


def require_line(*, slope: Line, intercept: Line) -> None:
    """Refuse a line that no correction may use, whoever the patients are.

    Raises
    ------
    Withheld
        Rule `bias-line`.
    """
    slopes, intercepts = np.asarray(slope), np.asarray(intercept)
    if not (
        np.all((slopes >= SLOPE_BOUNDS[0]) & (slopes <= SLOPE_BOUNDS[1]))
        and np.all(np.abs(intercepts) <= INTERCEPT_BOUND_YEARS)
    ):
        raise Withheld("bias-line", NO_SUCH_LINE)


def with_correction(cohort: Cohort, *, slope: Line, intercept: Line, minimum_count: int = 1) -> Cohort:
    """The cohort with `corrected_years`, `gap_years` (de Lange) and `cole_gap_years`.

    Gaps are within bounds for everybody: analyses leave out what is beyond, and the line must not choose whom.

    Attack: a line so steep that the gaps of all patients but one are cut to the bound; the sums over gaps, and of ages
    times gaps, then give that patient's age and prediction. The same holds where one gap is cut, as sums over all of
    the uncut ones are known from those of the raw predictions. Rule: nobody's gap is cut. A line that would cut a gap
    is refused; one that would cut Cole's only, which a flat line multiplies, leaves no Cole gap.
    Residual risk: the refusal tells that somebody is beyond the bound, once for each run.

    Parameters
    ----------
    slope, intercept
        One line for all, or each patient's own (n,): with folds, the line fitted without them.
    minimum_count
        Fewest patients of a cell; at 1, where single patients may be shown, gaps are cut.

    Raises
    ------
    Withheld
        Rule `bias-line` if the line is not one a correction may use.
    """
    require_line(slope=slope, intercept=intercept)
    slopes, intercepts = np.asarray(slope), np.asarray(intercept)
    age, predicted = cohort["age_years"], cohort["predicted_years"]
    gap, cole = predicted - (slopes * age + intercepts), (predicted - intercepts) / slopes - age
    if minimum_count == 1:
        gap, cole = (np.clip(values, -MAX_GAP_YEARS, MAX_GAP_YEARS) for values in (gap, cole))
    if np.any(np.abs(gap) > MAX_GAP_YEARS):
        raise Withheld("bias-line", NO_SUCH_LINE)
    columns = {"corrected_years": age + gap, "gap_years": gap}
    if not np.any(np.abs(cole) > MAX_GAP_YEARS):
        columns["cole_gap_years"] = cole
    return cohort.with_columns(**columns)


_CHANGED = "the cohort is no longer the one the predictions were made for; start a new run"


def _require_cohort(known: str, snapshot: str) -> None:
    if known != snapshot:
        raise Withheld("cohort-changed", _CHANGED)


def _read(folder: Path, run: str) -> tuple[dict[str, FloatArray], str, str] | None:
    """Predicted columns (n,), the digest of their model, and of their cohort."""
    path = _file(folder, run)
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        columns = {name.removeprefix(_COLUMN): archive[name] for name in archive.files if name.startswith(_COLUMN)}
        # Kept by an earlier release under its own name.
        columns |= {"predicted_years": archive["predicted_years"]} if "predicted_years" in archive.files else {}
        return columns, str(archive["model"]), str(archive["snapshot"])


def _file(folder: Path, run: str) -> Path:
    safe = "".join(c for c in run if c.isalnum() or c in "-_")
    if not safe or safe != run:
        raise Withheld("malformed-request", "a run's name has letters, digits, - and _ only")
    return folder / f"predictions-{run}.npz"
