"""PATH to sites: one table with a column that names the site, or a folder with one sub-folder, one table, a site."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fedage.client.cohort.keys import Keys
from fedage.client.table.names import site_names
from fedage.client.table.read import SUFFIXES, is_numeric, numbers, read_frame
from fedage.client.table_store import SiteTable
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators._table import FEATURE
from fedage.common.statistic import FloatArray

AGE_MAX_YEARS = 130.0


@dataclass
class SiteTables:
    """Sites by name, and in one line each what was odd while reading."""

    sites: dict[str, SiteTable] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def read_site_tables(data: Path, campaign: Campaign, *, site_column: str | None) -> SiteTables:
    """Read the sites of a campaign on tables.

    A patient who appears twice is kept where first met; a row without a usable age is set aside where age is needed;
    a cell that is no number in a column of numbers is missing. All of it is counted, by site and in `said`.

    Raises
    ------
    FedAgeError
        If a file cannot be read, a column that the campaign names is not there, or no row is left.
    """
    read = SiteTables()
    frames = dict(_frames(data, campaign, site_column=site_column))
    names = site_names(frames)
    seen: set[str] = set()
    keys = Keys(hashlib.sha256(f"simulation {campaign.campaign.seed}".encode()).digest())
    for title, frame in frames.items():
        if names[title] != title:
            read.said.append(f"site {title!r} is called {names[title]} in the results")
        table = _site(names[title], frame, campaign, site_column=site_column, seen=seen, keys=keys, said=read.said)
        if table.unit.size == 0:
            read.said.append(f"{names[title]}: no row is left; the site is left out")
            continue
        if table.unit.size == 1:
            read.said.append(f"{names[title]}: a single row; its guard will release nothing that rests on it")
        read.sites[names[title]] = table
    if not read.sites:
        raise FedAgeError(
            f"{data}: no row of any site can be used; {'; '.join(read.said[-3:]) or 'the tables are empty'}"
        )
    return read


def _frames(data: Path, campaign: Campaign, *, site_column: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and frame of each site."""
    if data.is_dir():
        for folder in sorted(path for path in data.iterdir() if path.is_dir()):
            files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
            if len(files) != 1:
                raise FedAgeError(
                    f"{folder} must hold exactly one table ({', '.join(SUFFIXES)}), it holds {len(files)}"
                )
            frame = read_frame(files[0])
            _require_columns(frame, campaign, path=files[0], site_column=None)
            yield folder.name, frame
        return
    frame = read_frame(data)
    if site_column is None:
        raise FedAgeError(f"{data} is one table; name the column that tells its sites apart with --site-column")
    _require_columns(frame, campaign, path=data, site_column=site_column)
    titles = frame[site_column].astype("string").str.strip()
    for title in titles.dropna().unique():
        if title:
            yield str(title), frame[(titles == title).to_numpy(dtype=bool, na_value=False)]


def _require_columns(frame: pd.DataFrame, campaign: Campaign, *, path: Path, site_column: str | None) -> None:
    derived = ("age_years", "is_male", "healthy", "gap_years", "raw_gap_years", "cole_gap_years", "predicted_years")
    table = campaign.table
    wanted = [site_column, table.id if table else None, table.age if table else None, table.sex if table else None]
    named = [name for name in wanted if name] + [name for name in named_columns(campaign) if name not in derived]
    missing = [name for name in dict.fromkeys(named) if name not in frame.columns]
    if missing:
        there = ", ".join(list(frame.columns)[:20]) + (" …" if len(frame.columns) > 20 else "")
        raise FedAgeError(
            f"{path} has no column {', '.join(repr(name) for name in missing)} (it has {there}); "
            "correct the name in the campaign file or in the table"
        )


def named_columns(campaign: Campaign) -> tuple[str, ...]:
    """Columns of the tables that the campaign's analyses name: outcomes, covariates, groups, health."""
    named: list[str] = []
    if campaign.cohort.healthy != "all":
        named.append(campaign.cohort.healthy.column)
    if survival := campaign.survival:
        named += [survival.time, survival.event, *survival.strata]
        named += [covariate for model in survival.models for covariate in model.covariates]
    if groups := getattr(campaign, "groups", None):
        named += [groups.column, *groups.covariates]
    return tuple(dict.fromkeys(named))


def _site(
    name: str,
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    site_column: str | None,
    seen: set[str],
    keys: Keys,
    said: list[str],
) -> SiteTable:
    table = campaign.table
    if table is None:
        raise FedAgeError("the campaign file has no [table]; add it to say which columns are which")
    rejected: dict[str, int] = {}
    ids = frame[table.id].astype("string").str.strip() if table.id else None
    if ids is not None:
        known = (ids.notna() & (ids != "")).to_numpy(dtype=bool, na_value=False)
        rejected["row-without-id"] = int(np.count_nonzero(~known))
        inside = known & ids.duplicated().to_numpy()
        rejected["patient-twice-at-site"] = int(np.count_nonzero(inside))
        elsewhere = known & ~inside & ids.isin(seen).to_numpy(dtype=bool)
        rejected["patient-at-another-site"] = int(np.count_nonzero(elsewhere))
        keep = known & ~inside & ~elsewhere
        frame, ids = frame[keep], ids[keep]
        seen.update(ids)
    columns, features, wrong = _numbers(frame, campaign, site_column=site_column)
    rejected.update({f"not-a-number:{column}": count for column, count in wrong.items()})
    keep = np.ones(len(frame), dtype=bool)
    if table.age:
        age = columns["age_years"]
        implausible = (age < 0) | (age > AGE_MAX_YEARS)
        rejected["implausible-age"] = int(np.count_nonzero(implausible))
        keep &= ~implausible
        if campaign.estimator is not None:
            rejected["no-age"] = int(np.count_nonzero(np.isnan(age)))
            keep &= np.isfinite(age)
    who = [str(value) for value in ids] if ids is not None else [f"{name} {row}" for row in range(len(frame))]
    unit = np.array([keys.unit(keys.patient(value)) for value in who], dtype=np.float64)
    rejected = {reason: count for reason, count in rejected.items() if count}
    said += [f"{name}: {_words(reason, count)}" for reason, count in rejected.items()]
    features = {FEATURE + column: values for column, values in features.items()}
    return SiteTable({key: values[keep] for key, values in {**columns, **features}.items()}, unit[keep], rejected)


def _numbers(
    frame: pd.DataFrame, campaign: Campaign, *, site_column: str | None
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], dict[str, int]]:
    """Cohort columns, features, and cells by column that are no numbers where numbers belong."""
    table = campaign.table
    missing = table.missing if table else ()
    named = named_columns(campaign)
    special = {site_column, table.id if table else None, table.age if table else None, table.sex if table else None}
    columns: dict[str, FloatArray] = {"is_male": np.full(len(frame), np.nan)}
    features: dict[str, FloatArray] = {}
    wrong: dict[str, int] = {}
    for column in frame.columns:
        if column in (site_column, table.id if table else None):
            continue
        values, not_numbers = numbers(frame[column], missing=missing)
        asked_for = column in special or column in named
        if not asked_for and not is_numeric(values, not_numbers):
            continue
        if not_numbers:
            wrong[column] = not_numbers
        if table and column == table.age:
            columns["age_years"] = values
        if table and column == table.sex:
            columns["is_male"] = np.where(np.isnan(values), np.nan, (values == table.male).astype(np.float64))
        if column in named:
            columns[column] = values
        elif not asked_for:
            features[column] = values
    return columns, features, wrong


_SENTENCES: Mapping[str, str] = {
    "row-without-id": "without an identifier, set aside",
    "patient-twice-at-site": "of a patient who is there already, set aside (the first is kept)",
    "patient-at-another-site": "of a patient whom an earlier site has, set aside",
    "implausible-age": f"with an age below 0 or above {AGE_MAX_YEARS:g} years, set aside",
    "no-age": "without an age, set aside",
}


def _words(reason: str, count: int) -> str:
    rows = "row" if count == 1 else "rows"
    if reason.startswith("not-a-number:"):
        cells = "cell" if count == 1 else "cells"
        return f"{count} {cells} of column {reason.partition(':')[2]!r} hold no number and count as missing"
    return f"{count} {rows} {_SENTENCES[reason]}"
