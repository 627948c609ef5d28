"""A site's table on disk, as the commands leave it for an agent or a simulation: numbers and keyed hashes only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import ROW, Samples
from fedage.common.estimators.configure import configured
from fedage.common.estimators.table import FEATURE
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, read_json

_NUMBERS, _ABOUT = "table.npz", "table.json"


@dataclass(frozen=True)
class SiteTable:
    """One site's patients.

    Parameters
    ----------
    columns
        Cohort columns (n,): `age_years`, `is_male`, outcomes by their names, and `feature:NAME` for every numeric one.
    unit
        Place of each patient in [0, 1), (n,), from a keyed hash: drives the split.
    rejected
        Rows and cells set aside while reading, by reason.
    keys
        Keyed hashes of the patients in row order, where the site's own store made them; they are not written.
    """

    columns: Mapping[str, FloatArray]
    split_uniform: FloatArray
    rejected: Mapping[str, int] = field(default_factory=dict)
    keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def features(self) -> tuple[str, ...]:
        """Numeric columns that an estimator may use, by their names in the table."""
        return tuple(sorted(name.removeprefix(FEATURE) for name in self.columns if name.startswith(FEATURE)))

    @property
    def snapshot(self) -> str:
        """SHA-256 over all numbers: equal exactly for equal tables."""
        digest = hashlib.sha256(np.ascontiguousarray(self.split_uniform).tobytes())
        for name in sorted(self.columns):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.columns[name]).tobytes())
        return digest.hexdigest()


def write_site_table(home: Path, table: SiteTable) -> None:
    """Write a site's table into its home."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = sorted(table.columns)
    values = (
        np.column_stack([table.columns[name] for name in names]) if names else np.empty((table.split_uniform.size, 0))
    )
    with (home / _NUMBERS).open("wb") as stream:
        np.savez(stream, values=values, unit=table.split_uniform)
    about = {"columns": names, "rejected": dict(table.rejected)}
    (home / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def read_site_table(home: Path) -> SiteTable:
    """Read a site's table back.

    Raises
    ------
    FedAgeError
        If there is none.
    """
    if not (home / _ABOUT).is_file():
        raise FedAgeError(f"{home} holds no table; index one first")
    about = read_json(home / _ABOUT, most_bytes=MAX_RECORD_BYTES)
    with np.load(home / _NUMBERS, allow_pickle=False) as numbers:
        values, split_uniform = numbers["values"], numbers["unit"]
    columns = {name: np.ascontiguousarray(values[:, k]) for k, name in enumerate(about["columns"])}
    return SiteTable(columns, split_uniform, about["rejected"])


def samples_of(cohort: Cohort, campaign: Campaign, features: tuple[str, ...]) -> Samples | None:
    """One row of raw features a patient, (n, p), as the campaign's estimator wants them; None without an estimator.

    Raises
    ------
    FedAgeError
        If the campaign names features that the table does not have.
    """
    estimator = configured(campaign, features)
    return Samples({ROW: cohort.matrix(estimator.row_columns)}) if estimator is not None else None
