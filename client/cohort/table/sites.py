"""PATH to sites: one table with a column that names the site, or a folder with one sub-folder, one table, a site."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.keys import Keys
from fedage.client.cohort.table.column_checks import require_usable
from fedage.client.cohort.table.columns import Columns, read_columns, require_columns, wanted_columns
from fedage.client.cohort.table.extremes import find_extremes
from fedage.client.cohort.table.identifiers import (
    count_differing_in_writing,
    count_differing_in_zeros,
    similar_name_messages,
)
from fedage.client.cohort.table.messages import (
    AGE_MAX_YEARS,
    NO_ID,
    bounded_counts,
    kept_extreme,
    neither_0_nor_1,
    neither_sex,
    no_features_text,
    not_a_number,
    reason_text,
)
from fedage.client.cohort.table.read import SUFFIXES, Mask, parse_labels, read_frame, without_bad_names
from fedage.client.cohort.table.sex import require_known, words_problem
from fedage.client.cohort.table.site_names import site_names
from fedage.client.cohort.table.site_table import SiteTable
from fedage.client.cohort.table.summary_rows import rows_of_nobody
from fedage.client.cohort.table.units import distant_median_messages, distant_year_messages, unlikely_zeros
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.estimators.table import FEATURE
from fedage.common.statistics.statistic import FloatArray
from fedage.common.toml.column_names import normal_name

if TYPE_CHECKING:
    import pandas as pd

Rows = NDArray[np.intp]
_DERIVED = ("is_male", "raw_gap_years")
"""Columns that are derived from others."""


class Hashing(Protocol):
    """What turns identifiers into keyed hashes, and those into places in [0, 1)."""

    def patient(self, patient_id: str, /) -> str:
        """Hash of an identifier."""

    def split_uniform(self, patient: str, /) -> float:
        """Place of a hashed patient."""


@dataclass
class SiteTables:
    """Sites by name, and messages about what was noticed while reading."""

    sites: dict[str, SiteTable] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class _KnownIdentifiers:
    """Identifiers of the patients met so far: as they are written, without leading zeros, and plainly written."""

    texts: set[str] = field(default_factory=set)
    without_zeros: dict[str, str] = field(default_factory=dict)
    canonical_form: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """One file: its identifiers, its numbers, and the rows of each site in it."""

    path: Path
    ids: pd.Series | None
    columns: Columns
    rows: Mapping[str, Rows]


def read_site_tables(data: Path, campaign: Campaign, *, site_column: str | None) -> SiteTables:
    """Read the sites of a campaign on tables.

    A patient who appears twice is kept where first met; a row without a usable age is set aside where age is needed; a
    cell that is no number in a column of numbers is missing. All of it is counted by site, and reported in `messages`.

    Raises
    ------
    FedAgeError
        If a file cannot be read, a column that the campaign names is not there, or no row is left.
    """
    table = campaign.table
    site_column = None if site_column is None else normal_name(site_column)
    if table is None:
        raise FedAgeError("the campaign file has no [table]; add it to say which columns are which")
    tables = SiteTables()
    sources = list(_read_sources(data, campaign, table, site_column=site_column, messages=tables.messages))
    candidate_columns = frozenset().union(*(source.columns.features.keys() | source.columns.text for source in sources))
    require_usable(sources, campaign, features={column for column in candidate_columns if _is_wanted(column, campaign)})
    # A column is a feature if it holds text nowhere and a number somewhere, so that one empty at a site stays one.
    text = frozenset().union(*(source.columns.text for source in sources))
    empty = frozenset.intersection(*(source.columns.empty for source in sources)) - text
    if table.id is None:
        tables.messages.append(NO_ID)
    if table.sex is not None:
        anybody = any(np.isfinite(source.columns.cohort["is_male"]).any() for source in sources)
        require_known([source.columns.female for source in sources], any_known=bool(anybody), table=table)
    for columns, reason in ((text, "hold text"), (empty, "hold no number at all")):
        if wanted := [column for column in columns if _is_wanted(column, campaign)]:
            tables.messages.append(no_features_text(wanted, reason))
    names = site_names(dict.fromkeys(title for source in sources for title in source.rows))
    known_identifiers = _KnownIdentifiers()
    keys = Keys(hashlib.sha256(f"simulation {campaign.campaign.seed}".encode()).digest())
    for source in sources:
        for title, rows in source.rows.items():
            name = names[title]
            if name != title:
                tables.messages.append(f"site {title!r} is called {name} in the results")
            site_table = _site_table(
                name,
                rows,
                source,
                campaign,
                excluded_columns=text | empty,
                known_identifiers=known_identifiers,
                keys=keys,
            )
            tables.messages += [
                f"{name}: {reason_text(reason, count)}" for reason, count in site_table.rejected.items()
            ]
            if site_table.split_uniform.size == 0:
                tables.messages.append(f"{name}: no row is left; the site is left out")
                continue
            if site_table.split_uniform.size == 1:
                guarded = "; its guard will release nothing that rests on it" if campaign.cell_minimum > 1 else ""
                tables.messages.append(f"{name}: a single row{guarded}")
            tables.sites[name] = site_table
    if not tables.sites:
        raise FedAgeError(
            f"{data}: no row of any site can be used; {'; '.join(tables.messages[-3:]) or 'the tables are empty'}"
        )
    tables.messages += distant_median_messages(_values_by_column(tables.sites, campaign))
    tables.messages += distant_year_messages(_in_years(tables.sites, campaign))
    return tables


def _in_years(sites: Mapping[str, SiteTable], campaign: Campaign) -> dict[str, dict[str, FloatArray]]:
    """Age, predicted age and follow-up time by their columns' names and site."""
    table, survival = campaign.table or TableChoice(), campaign.survival
    named = {table.age: "age_years", table.predicted: "predicted_years"}
    named |= {survival.time: survival.time} if survival else {}
    return {
        name: {site: table.columns[key] for site, table in sites.items() if key in table.columns}
        for name, key in named.items()
        if name
    }


def _values_by_column(sites: Mapping[str, SiteTable], campaign: Campaign) -> dict[str, dict[str, FloatArray]]:
    """Covariates and wanted features by column and site; not what is in years, sex or what follows from them."""
    survival = campaign.survival
    excluded = {"age_years", "predicted_years", *_DERIVED} | ({survival.time, survival.event} if survival else set())
    values_by_column: dict[str, dict[str, FloatArray]] = {}
    for site, table in sites.items():
        for key, values in table.columns.items():
            name = key.removeprefix(FEATURE)
            if key not in excluded and (name == key or _is_wanted(name, campaign)):
                values_by_column.setdefault(name, {})[site] = values
    return values_by_column


def read_one_site(frame: pd.DataFrame, ids: pd.Series, campaign: Campaign, *, keys: Hashing) -> SiteTable:
    """One site's own table, as the campaign asks for it; columns without a number here may have some elsewhere.

    Raises
    ------
    FedAgeError
        If it is not known which numbers or words of the sex column are female.
    """
    table = campaign.table or TableChoice()
    columns = read_columns(frame, campaign, table, site_column=None)
    if table.sex is not None:
        any_known = bool(np.isfinite(columns.cohort["is_male"]).any())
        require_known([columns.female], any_known=any_known, table=table)
    if columns.sex_words is not None and (problem := words_problem(columns.sex_words)):
        raise FedAgeError(f"column {table.sex!r} {problem}")
    rows = np.arange(len(frame))
    source = _Source(Path(), ids, columns, {"": rows})
    return _site_table(
        "", rows, source, campaign, excluded_columns=columns.text, known_identifiers=_KnownIdentifiers(), keys=keys
    )


def _is_wanted(column: str, campaign: Campaign) -> bool:
    """Whether the campaign's features find this column."""
    options = campaign.estimator.options if campaign.estimator else {}
    included, left_out = ([str(name) for name in options.get(key, ())] for key in ("features", "exclude"))
    return any(fnmatchcase(column, name) for name in included) and not any(
        fnmatchcase(column, name) for name in left_out
    )


def _read_sources(
    data: Path, campaign: Campaign, table: TableChoice, *, site_column: str | None, messages: list[str]
) -> Iterator[_Source]:
    if not data.is_dir() and site_column is None:
        raise FedAgeError(f"{data} is one table; name the column that tells its sites apart with --site-column")
    if data.is_dir() and site_column is not None:
        raise FedAgeError(
            f"{data} is a folder, where each sub-folder is a site; leave --site-column out, or give one table"
        )
    files = _files(data)
    if data.is_dir():
        messages += similar_name_messages([title for _, title in files], column="folders of sites")
    for path, title in files:
        text = [table.id] if table.id else []
        frame = read_frame(path, text=text, sites=site_column, known=wanted_columns(campaign, site_column=site_column))
        frame, left_out = without_bad_names(frame, path=path)
        messages += left_out
        nobodys = rows_of_nobody(frame, id_column=table.id, site_column=site_column)
        messages += [
            f"{path.name}: {reason_text(reason, int(rows.sum()))}" for reason, rows in nobodys.items() if rows.any()
        ]
        if (is_nobodys := np.any([*nobodys.values()], axis=0)).any():
            frame = frame[~is_nobodys].reset_index(drop=True)
        require_columns(frame, campaign, path=path, site_column=site_column)
        rows = {title: np.arange(len(frame))} if title else _rows_by_site(frame, str(site_column), messages=messages)
        ids = parse_labels(frame[table.id]) if table.id else None
        yield _Source(path, ids, read_columns(frame, campaign, table, site_column=site_column), rows)


def _files(data: Path) -> list[tuple[Path, str]]:
    """Files and the site of each; no site where a column tells it."""
    if not data.is_dir():
        return [(data, "")]
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise FedAgeError(f"{data} has no sub-folders; give one table, or a folder with one sub-folder a site")
    files_by_site = []
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if len(files) != 1:
            raise FedAgeError(f"{folder} must hold exactly one table ({', '.join(SUFFIXES)}), it holds {len(files)}")
        files_by_site.append((files[0], folder.name))
    return files_by_site


def _rows_by_site(frame: pd.DataFrame, site_column: str, *, messages: list[str]) -> dict[str, Rows]:
    import pandas as pd

    titles = parse_labels(frame[site_column])
    names = frame[site_column].dropna().astype("string").unique().tolist()
    messages += similar_name_messages(names, column=f"sites in column {site_column!r}")
    if n_without_site := int(titles.isna().sum()):
        rows = "1 row names" if n_without_site == 1 else f"{n_without_site} rows name"
        messages.append(f"{rows} no site in column {site_column!r}, set aside")
    codes, site_labels = pd.factorize(titles)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(site_labels) + 1))
    return {str(title): order[starts[k] : starts[k + 1]] for k, title in enumerate(site_labels)}


def _site_table(
    name: str,
    rows: Rows,
    source: _Source,
    campaign: Campaign,
    *,
    excluded_columns: frozenset[str],
    known_identifiers: _KnownIdentifiers,
    keys: Hashing,
) -> SiteTable:
    rejected: dict[str, int] = {}
    if source.ids is None:
        ids = [f"{name} {row}" for row in range(len(rows))]
    else:
        rows, ids = _first_rows(rows, source.ids, known_identifiers=known_identifiers, rejected=rejected)
    columns = source.columns
    for column, is_not_number in columns.not_numbers.items():
        if column not in excluded_columns:
            if column in columns.cell_codes:
                counts = Counter(form for form in columns.cell_codes[column][rows] if form)
                rejected |= {not_a_number(column, form): count for form, count in counts.items()}
            else:
                rejected[neither_sex(column)] = int(np.count_nonzero(is_not_number[rows]))
    rejected |= _count_extremes(rows, columns, campaign)
    cohort = {column: values[rows] for column, values in columns.cohort.items()}
    keep = _has_usable_age(cohort, campaign, rejected=rejected)
    cohort = {column: values[keep] for column, values in cohort.items()}
    _check_follow_up(cohort, campaign, rejected=rejected)
    rows = rows[keep]
    for column, values in columns.features.items():
        if column not in excluded_columns:
            cohort[FEATURE + column] = values[rows]
    hashed = tuple(keys.patient(ids[k]) for k in np.flatnonzero(keep))
    split_uniform = np.array([keys.split_uniform(key) for key in hashed], dtype=np.float64)
    return SiteTable(cohort, split_uniform, bounded_counts(rejected), hashed)


def _first_rows(
    rows: Rows, ids: pd.Series, *, known_identifiers: _KnownIdentifiers, rejected: dict[str, int]
) -> tuple[Rows, list[str]]:
    """The rows of patients met here for the first time, and who they are."""
    site_ids = ids.iloc[rows]
    has_id = site_ids.notna().to_numpy(dtype=bool)
    is_repeated = has_id & site_ids.duplicated().to_numpy(dtype=bool)
    texts = site_ids.fillna("").tolist()
    is_at_another_site = (
        has_id
        & ~is_repeated
        & np.fromiter((text in known_identifiers.texts for text in texts), dtype=bool, count=len(texts))
    )
    rejected["row-without-id"] = int(np.count_nonzero(~has_id))
    rejected["patient-twice-at-site"] = int(np.count_nonzero(is_repeated))
    rejected["patient-at-another-site"] = int(np.count_nonzero(is_at_another_site))
    keep = np.flatnonzero(has_id & ~is_repeated & ~is_at_another_site)
    kept_ids = [texts[k] for k in keep]
    known_identifiers.texts.update(kept_ids)
    rejected["kept-identifier-differs-in-zeros"] = count_differing_in_zeros(
        kept_ids, known=known_identifiers.without_zeros
    )
    rejected["kept-identifier-differs-in-writing"] = count_differing_in_writing(
        kept_ids, known=known_identifiers.canonical_form
    )
    return rows[keep], kept_ids


def _count_extremes(rows: Rows, columns: Columns, campaign: Campaign) -> dict[str, int]:
    """Values that may stand for "missing" in what the campaign reads, by reason."""
    table = campaign.table
    table_names = {"age_years": table.age or "", "predicted_years": table.predicted or ""} if table else {}
    values_by_name = {
        table_names.get(name, name): values for name, values in columns.cohort.items() if name not in _DERIVED
    }
    values_by_name |= {name: values for name, values in columns.features.items() if _is_wanted(name, campaign)}
    return {
        kept_extreme(name, extreme.code): extreme.count
        for name, values in values_by_name.items()
        for extreme in find_extremes(values[rows])
    }


def _has_usable_age(cohort: Mapping[str, np.ndarray], campaign: Campaign, *, rejected: dict[str, int]) -> Mask:
    """Who has an age that can be used, where the table has one, (n,)."""
    is_usable = np.ones(len(cohort["is_male"]), dtype=bool)
    age = cohort.get("age_years")
    if age is None:
        return is_usable
    implausible = (age < 0) | (age > AGE_MAX_YEARS)
    zero = unlikely_zeros(np.where(implausible, np.nan, age))
    rejected["implausible-age"] = int(np.count_nonzero(implausible))
    rejected["zero-age"] = int(np.count_nonzero(zero))
    is_usable &= ~implausible & ~zero
    if campaign.estimator is not None:
        rejected["no-age"] = int(np.count_nonzero(np.isnan(age)))
        is_usable &= np.isfinite(age)
    return is_usable


def _check_follow_up(cohort: Mapping[str, np.ndarray], campaign: Campaign, *, rejected: dict[str, int]) -> None:
    """Count what the survival analyses will not take, so that a column of 1 and 2 does not pass for one of events."""
    if (survival := campaign.survival) is None:
        return
    time, event = cohort[survival.time], cohort[survival.event]
    rejected["negative-time"] = int(np.count_nonzero(time < 0))
    rejected[neither_0_nor_1(survival.event)] = int(np.count_nonzero(np.isfinite(event) & ~np.isin(event, (0.0, 1.0))))
