"""By which bins of age a site has told sums: two tables of nearly the same patients with other bins are subtracted.

See `fedage.common.statistics.age_cuts` for the attack, the rule and what remains. Kept for good, over all campaigns,
coordinators and data sets, as the patients are the same; with whom (8 bytes of a keyed hash each) and in which cell.
What is about to be told is on disk before it is computed, so that two messages at once see each other.

Errors of two models do not subtract; counts do. So a table of another model's predictions is held against those of the
same patients only. Residual risk: where some patients have come, two campaigns that each train a model tell how many
came in each bin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedage.client.consent.accounts.account_file import account_transaction
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.sqlite import Connection, Tables, insert, scalar
from fedage.common.analyses.base import Analysis
from fedage.common.statistics.age_cuts import Binned, Cells, EarlierCells, cells_between, cuts_of
from fedage.common.statistics.cohort import Cohort

TOLD_BINS_FILE = "told-bins.db"
_TABLES: Tables = {
    "tables": (
        "CREATE TABLE tables (id INTEGER NOT NULL, sha256 VARCHAR(64) NOT NULL, model VARCHAR(128) NOT NULL, "
        "patients BLOB NOT NULL, cells BLOB NOT NULL, PRIMARY KEY (id), UNIQUE (sha256))",
    ),
}
_PATIENT, _CELL = "<u8", "<u2"
Hashes = NDArray[np.uint64]


class ToldBins:
    """The account.

    Parameters
    ----------
    folder
        Where it is kept: at a deployed site one folder for all campaigns.
    patients
        Keyed hashes of the cohort's patients, in the order of its rows.
    model
        Whose predictions they are: a run's, a bundle's, or the table's if empty.
    minimum_count
        Fewest patients for whom two tables may differ; 1 keeps no account.
    """

    def __init__(self, folder: Path, *, patients: Sequence[str], model: str, minimum_count: int) -> None:
        self._path = folder / TOLD_BINS_FILE
        self._patients, self._model = patients, model
        self._minimum_count = minimum_count

    def accounted(self, analysis: Analysis, cohort: Cohort) -> Analysis:
        """The analysis with no other bins than those that may be told, which are written down.

        Raises
        ------
        Withheld
            Rule `store-unavailable` if the account cannot be kept.
        """
        if self._minimum_count == 1 or not isinstance(analysis, Binned):
            return analysis
        inside = np.flatnonzero(analysis.binned(cohort))
        if inside.size < self._minimum_count:
            return analysis  # the guard withholds it
        ages = cohort["age_years"][inside]
        hashes = np.array([_hash(self._patients[int(row)]) for row in inside], dtype=np.uint64)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with account_transaction(self._path, tables=_TABLES) as connection:
            cuts = cuts_of(
                ages,
                analysis.edges_years,
                minimum_count=self._minimum_count,
                earlier=_earlier(connection, hashes, model=self._model),
            )
            _keep(connection, hashes, cells_between(ages, analysis.edges_years, cuts), model=self._model)
        return analysis.telling(cuts)


def _hash(patient: str) -> int:
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "little")


def _earlier(connection: Connection, hashes: Hashes, *, model: str) -> list[EarlierCells]:
    """What was told before, for the patients (n,) of today."""
    order = np.argsort(hashes)
    today = hashes[order].astype(_PATIENT).tobytes()
    which = "SELECT patients, cells FROM tables WHERE model = ? OR patients = ? ORDER BY id"
    found = []
    for row in connection.execute(which, (model, today)):
        theirs, cells = np.frombuffer(row["patients"], _PATIENT), np.frombuffer(row["cells"], _CELL)
        if theirs.size != cells.size or not theirs.size:
            raise Withheld("store-unavailable", "the site cannot read its account of what it has answered")
        place = np.minimum(np.searchsorted(hashes, theirs, sorter=order), hashes.size - 1)
        mine = order[place]
        known = hashes[mine] == theirs
        cell = np.full(hashes.size, -1, dtype=np.int64)
        cell[mine[known]] = cells[known]
        found.append(EarlierCells(cell=cell, sizes=np.bincount(cells)))
    return found


def _keep(connection: Connection, hashes: Hashes, cells: Cells, *, model: str) -> None:
    order = np.argsort(hashes)
    _, cells = np.unique(cells, return_inverse=True)  # without empty ones
    patients, packed = hashes[order].astype(_PATIENT).tobytes(), cells[order].astype(_CELL).tobytes()
    sha256 = hashlib.sha256(model.encode() + patients + packed).hexdigest()
    if scalar(connection, "SELECT id FROM tables WHERE sha256 = ?", (sha256,)) is None:
        insert(connection, "tables", {"sha256": sha256, "model": model, "patients": patients, "cells": packed})
