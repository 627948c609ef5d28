"""A campaign's patients from a site's own store, within what a data set of its policy offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.selection.row import feature_columns, with_complete_rows, with_row
from fedage.client.cohort.selection.table_cohorts import AGES_YEARS, table_cohort
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.sop_classes import normalise_modality
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table.cell_forms import NOT_NAMED, form_codes
from fedage.client.cohort.table.columns import columns_beside_images, named_columns
from fedage.client.cohort.table.extremes import find_extremes
from fedage.client.cohort.table.messages import bounded_counts, kept_extreme
from fedage.client.cohort.table.read import is_text_column, parse_numbers
from fedage.client.cohort.table.site_table import SiteTable
from fedage.client.cohort.table.sites import read_one_site
from fedage.client.cohort.table.units import ages_problem
from fedage.client.consent.policy.types import DataSet
from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.campaign.types import TableChoice
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator, modalities
from fedage.common.estimators.inputs import image_inputs
from fedage.common.estimators.table import FeaturesMissing
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    from fedage.client.cohort.store.tables import StoredTable


class SiteCohorts:
    """Cohorts from a home's store, of whatever kind the campaign asks."""

    def __init__(self, home: Path) -> None:
        self._images, self._tables = ImageCohorts(home), TableCohorts(home)

    def read(
        self, campaign: Campaign, *, data_set: DataSet | None = None, patients: Collection[str] | None = None
    ) -> SiteCohort:
        """The campaign's patients; only those with these keyed hashes, if `patients` is given (a frozen cohort).

        Raises
        ------
        RequestRefused
            Rule `no-table` or `no-images` if this site has nothing of the kind; `data-set` if the data set has nothing
            that the campaign asks for; `no-column`, `sex-codes`, `age-unit` or `features` if the site's table
            lacks something or cannot be understood.
        """
        kind = self._tables if _is_on_tables(campaign) else self._images
        return kind.read(campaign, data_set=data_set, patients=patients)

    def columns(self, campaign: Campaign, *, data_set: DataSet | None = None) -> SiteCohort:
        """The campaign's patients with their columns, before any image is looked at. Raises as `read` does."""
        kind = self._tables if _is_on_tables(campaign) else self._images
        return kind.columns(campaign, data_set=data_set)

    def count(self, campaign: Campaign, *, data_set: DataSet | None = None) -> int:
        """How many patients that would be, before any image is looked at. Raises as `read` does."""
        kind = self._tables if _is_on_tables(campaign) else self._images
        return kind.count(campaign, data_set=data_set)


def _is_on_tables(campaign: Campaign) -> bool:
    return campaign.table is not None or campaign.estimator is None


class TableCohorts:
    """Cohorts from the site's own table."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def read(
        self, campaign: Campaign, *, data_set: DataSet | None = None, patients: Collection[str] | None = None
    ) -> SiteCohort:
        """The campaign's patients and their rows of features.

        Raises
        ------
        RequestRefused
            As `SiteCohorts.read`.
        """
        from fedage.client.cohort.store.tables import read_table

        offered = data_set or DataSet()
        ages_years = offered.age_min_years, offered.age_max_years
        if offered.modality or offered.manufacturer:
            raise RequestRefused("data-set", "this site's data set contains images, and the campaign reads a table")
        with CohortStore.open(self._home) as store:
            stored = read_table(store)
            if stored is None:
                raise RequestRefused("no-table", "this site has no table indexed, and the campaign reads a table")
            table = _with_campaign_names(stored, campaign, split_uniform=store.split_uniform)
        if ages_years != AGES_YEARS and "age_years" not in table.columns:
            raise RequestRefused(
                "data-set", "this site's policy limits ages, and its table has no age column that the campaign names"
            )
        try:
            return table_cohort(table, campaign, offered_ages_years=ages_years, patients=patients)
        except FeaturesMissing:
            raise RequestRefused(
                "features", "this site's table does not have the features that the campaign file names"
            ) from None

    def columns(self, campaign: Campaign, *, data_set: DataSet | None = None) -> SiteCohort:
        """The campaign's patients and their columns."""
        return self.read(campaign, data_set=data_set)

    def count(self, campaign: Campaign, *, data_set: DataSet | None = None) -> int:
        """How many patients the table has for it."""
        return self.read(campaign, data_set=data_set).cohort.n


def _with_campaign_names(
    stored: StoredTable, campaign: Campaign, *, split_uniform: Callable[[str], float]
) -> SiteTable:
    """The stored table under the campaign's names; identifiers, ages and sexes are those that the site says."""
    import pandas as pd

    table_choice = campaign.table or TableChoice()
    frame = stored.frame
    names = {stored.age: table_choice.age, stored.sex: table_choice.sex}
    renamed = {mine: theirs for mine, theirs in names.items() if mine and theirs and mine != theirs}
    dropped = [name for name in (table_choice.id, *renamed.values()) if name in frame.columns]
    frame = frame.drop(columns=dropped).rename(columns=renamed)
    choice = table_choice.model_copy(update={"id": None})
    campaign = campaign.model_copy(update={"table": choice})
    wanted = (choice.age, choice.sex, choice.predicted, *named_columns(campaign))
    if missing := [name for name in dict.fromkeys(wanted) if name and name not in frame.columns]:
        raise RequestRefused("no-column", f"this site's table has no column {', '.join(map(repr, missing))}")
    for name in dict.fromkeys(column for column in wanted if column and column != choice.sex):
        values, odd = parse_numbers(frame[name], missing=choice.missing)
        codes = form_codes(frame[name], odd)
        unexplained = bool(((codes != "") & (codes != NOT_NAMED)).any())
        # A word among 0 and 1 may be an event: who has it must not be missing for that.
        if is_text_column(values, odd) or (name == _event(campaign) and unexplained):
            raise _text_column(name, of="table", setting="table.columns")
        if name == choice.age and (problem := ages_problem(values)):
            raise RequestRefused("age-unit", f"column {name!r} of this site's table {problem}")
    try:
        table = read_one_site(frame, pd.Series(stored.keys, dtype="string"), campaign, keys=_Hashed(split_uniform))
    except FedAgeError:
        raise RequestRefused(
            "sex-codes", "which codes of this site's sex column are male and female is not known"
        ) from None
    return replace(table, rejected={**stored.rejected, **table.rejected})


def _event(campaign: Campaign) -> str | None:
    return campaign.survival.event if campaign.survival else None


def _text_column(name: str, *, of: str, setting: str) -> RequestRefused:
    return RequestRefused(
        "text-column",
        f"column {name!r} of this site's {of} holds texts, where numbers belong; say in {setting} of the site's "
        f'site.toml what each means, e.g. {name} = {{ column = "{name}", values = {{ "yes" = 1, "no" = 0 }} }}, and '
        "index once more",
    )


@dataclass(frozen=True)
class _Hashed:
    """Patients who have been hashed already."""

    split_uniform: Callable[[str], float]

    def patient(self, key: str, /) -> str:
        """The hash itself."""
        return key


class ImageCohorts:
    """Cohorts of images from a home's store: selected, preprocessed, and given their columns."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def read(
        self, campaign: Campaign, *, data_set: DataSet | None = None, patients: Collection[str] | None = None
    ) -> SiteCohort:
        """The campaign's patients and their samples.

        Parameters
        ----------
        campaign
            The approved file.
        data_set
            Filters of the site's own policy; they narrow what the campaign asks and never widen it.
        patients
            Keyed hashes of a frozen cohort: nobody else is in. None means anybody.

        Raises
        ------
        RequestRefused
            Rule `no-table` for a campaign that is not on images; `data-set` if the data set has none of its modalities.
        """
        estimator = self._estimator(campaign)
        with CohortStore.open(self._home) as store:
            selection = _select(store, campaign, estimator, data_set=data_set, patients=patients)
            if not store.has_images:
                raise RequestRefused("no-images", "this site has no images indexed, and the campaign reads images")
            rejected_files = store.rejected_by_reason()
            samples = SampleCache(self._home / "cache", root=store.root).build(selection, estimator)
        selection = samples.selection
        cohort = _cohort(selection, campaign, estimator)
        with_rows, unknown_columns = with_row(samples.samples, cohort, campaign, estimator)
        return SiteCohort(
            cohort=cohort,
            samples=with_rows,
            excluded=selection.excluded,
            rejected_files={
                **rejected_files,
                **_extremes(selection, campaign),
                **_of_later_exams(selection, campaign),
                **unknown_columns,
            },
            rejected_samples=dict(Counter(selection.images_not_taken) + Counter(samples.rejected)),
            snapshot=selection.snapshot,
            features=columns_beside_images(estimator),
            keys=selection.keys,
        )

    def columns(self, campaign: Campaign, *, data_set: DataSet | None = None) -> SiteCohort:
        """The campaign's patients and their columns; some of their images may turn out not to be usable."""
        estimator = self._estimator(campaign)
        with CohortStore.open(self._home) as store:
            selection = _select(store, campaign, estimator, data_set=data_set)
        cohort = _cohort(selection, campaign, estimator)
        return SiteCohort(cohort, samples=None, features=columns_beside_images(estimator), keys=selection.keys)

    def count(self, campaign: Campaign, *, data_set: DataSet | None = None) -> int:
        """How many patients the store has for it; some of their images may turn out not to be usable."""
        estimator = self._estimator(campaign)
        with CohortStore.open(self._home) as store:
            return _select(store, campaign, estimator, data_set=data_set).n

    def _estimator(self, campaign: Campaign) -> Estimator:
        if campaign.estimator is None or _is_on_tables(campaign):
            raise RequestRefused("no-table", "this site has images, and the campaign reads a table")
        return estimators.make(campaign.estimator.name, campaign.estimator.options)


def _cohort(selection: Selection, campaign: Campaign, estimator: Estimator) -> Cohort:
    """The columns of the patients selected, with the campaign's parts.

    A follow-up time counts from a patient's first exam. Where the campaign takes a later one, because the first is
    outside its ages or shows another view, the time from there is not known.
    """
    time = campaign.survival.time if campaign.survival else ""
    columns: dict[str, FloatArray] = {
        name: np.where(selection.has_earlier_exam, np.nan, column) if name == time else column
        for name, column in selection.outcomes.items()
    }
    columns |= {
        **feature_columns(selection, estimator),
        "age_years": selection.age_years,
        "is_male": selection.is_male,
    }
    return with_parts(Cohort(columns), selection.split_uniform, campaign)


def _of_later_exams(selection: Selection, campaign: Campaign) -> dict[str, int]:
    """Patients whose follow-up time counts from an earlier exam than the campaign takes, by reason."""
    times = selection.outcomes.get(campaign.survival.time) if campaign.survival else None
    count = 0 if times is None else int(np.count_nonzero(selection.has_earlier_exam & np.isfinite(times)))
    return {"follow-up-from-an-earlier-exam": count} if count else {}


def _extremes(selection: Selection, campaign: Campaign) -> dict[str, int]:
    """Values that may stand for "missing" in the outcomes that the campaign reads, kept, by reason."""
    return bounded_counts(
        {
            kept_extreme(name, extreme.code): extreme.count
            for name in named_columns(campaign)
            for extreme in find_extremes(selection.outcomes.get(name, np.empty(0)))
        }
    )


def _select(
    store: CohortStore,
    campaign: Campaign,
    estimator: Estimator,
    *,
    data_set: DataSet | None,
    patients: Collection[str] | None = None,
) -> Selection:
    chosen, offered = campaign.cohort, data_set or DataSet()
    selection = select(
        store,
        modalities=_within(offered, chosen.modality or modalities(estimator)),
        age_min_years=max(chosen.age_min_years, offered.age_min_years),
        age_max_years=min(chosen.age_max_years, offered.age_max_years),
        manufacturers=offered.manufacturer,
        patients=patients,
        inputs=image_inputs(estimator),
        coarsest_age_years=estimator.coarsest_age_years,
    )
    # A word among numbers may be one of them: whose it is must not be missing for that.
    for name in (_event(campaign), *columns_beside_images(estimator)):
        if name in selection.outcomes and not selection.words_known:
            raise RequestRefused(
                "text-column",
                f"this site's outcomes were indexed by an earlier release, which did not keep whether column {name!r} "
                "holds texts; index once more",
            )
        if name is not None and name in selection.words:
            raise _text_column(name, of="outcomes", setting="outcome_columns.columns")
    return with_complete_rows(selection, estimator)


def _within(data_set: DataSet, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities that both mean; an empty tuple is any, so nothing in common has to be refused."""
    wanted, offered = tuple(map(normalise_modality, wanted)), tuple(map(normalise_modality, data_set.modality))
    if not offered or not wanted:
        return wanted or offered
    if common := tuple(one for one in wanted if one in offered):
        return common
    raise RequestRefused("data-set", "this site's data set has no image of the modalities that the campaign reads")
