"""Errors of predicted ages in the unit that the campaign thinks in: in all, by sex and by year of age, with MAPE.

For children an error of half a year is large at one and small at fifteen, so that papers give months and percentages.
MAPE is the mean of |e| / max(Ω, floor): near birth a percentage of age means nothing, so ages below a stated floor
count as the floor. Groups follow from the file: everybody, each sex, and bins of age. A site tells a bin between cuts
(`age_cuts`), and the sexes where they are of enough patients and no run of bins is of nearly the same ones.

Attack: sums of |e| / max(Ω, floor) with several floors, of the same predictions, tell who is between two. Rule: a floor
is a threshold on age, of which a site keeps account; another one that few are near costs MAPE and nothing else.

Notation: Ω chronological age, ŷ predicted age, e = ŷ − Ω, years.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described

from fedage.common.analyses._summed import ages_and_errors
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome
from fedage.common.analyses.columns import (
    MAX_GAP_YEARS,
    MAX_PATIENTS,
    cells_of_predictions,
    is_usable,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.evaluation._judged import AGES, judged
from fedage.common.analyses.of_file import has_predictions
from fedage.common.campaign.types import Campaign, Table
from fedage.common.presentation.blocks import Display, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Cell as Shown
from fedage.common.presentation.cells import Table as Rows
from fedage.common.presentation.cells import count, number, percent, words
from fedage.common.record.parts import AnalysisResult, Number
from fedage.common.record.results import Results
from fedage.common.statistics.age_cuts import bins_between, cuts_of, is_near_a_run
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.disclosure import suppress_small_cells
from fedage.common.statistics.influence import Group
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "age-errors"
_MONTHS = 12.0
_SUMS = ("n", "absolute", "error", "relative", "relative_n")
_FLOOR = "mape_floor"
_UNITS = {"months": _MONTHS, "years": 1.0}


class Options(Table):
    """Errors by sex and by year of age, in months if so wanted, with their mean percentage of age."""

    unit: Literal["years", "months"] = Described(default="years", description="unit of the errors shown")
    mape_floor_years: float = Described(
        default=1.0,
        gt=0,
        le=130,
        description="ages below it count as it in the percentage error, which means nothing near 0",
    )
    age_bin_years: int = Described(default=1, ge=1, le=50, description="width of the bins of age")


class GroupErrors(AnalysisResult):
    """One group."""

    group: str = Described(description="all, male, female, or a range of ages such as 3-4")
    n: int = Described(description="patients, of the sites that tell the group")
    mae: Number = Described(description="mean absolute error, in the unit")
    mean_error: Number = Described(description="mean of predicted minus chronological age, in the unit")
    mape: Number = Described(description="mean of |error| over age, ages below the floor counted as the floor")


class AgeErrors(AnalysisResult):
    """Errors in all, by sex and by age."""

    unit: str = Described(description="years or months")
    mape_floor_years: float = Described(description="ages below it count as it in mape")
    groups: tuple[GroupErrors, ...] = Described(description="those that any site tells, all patients first")
    withheld: int = Described(description="patients who are in no bin of age told, as too few are in it at their site")


@dataclass(frozen=True)
class ErrorsByGroup(OneExchange):
    """See the module's docstring.

    Parameters
    ----------
    edges_years
        Of the bins of age, rising; the outermost bins are open.
    unit, mape_floor_years
        As in the file.
    """

    edges_years: tuple[float, ...]
    _: KW_ONLY
    unit: Literal["years", "months"] = "years"
    mape_floor_years: float = 1.0
    healthy_only: bool = False
    minimum_count: int = 1
    cuts: frozenset[int] | None = None
    name: str = NAME
    subset: str = "is_test"
    per_site: bool = True

    @property
    def _groups(self) -> tuple[str, ...]:
        pairs = zip(self.edges_years, self.edges_years[1:], strict=False)
        return ("all", "male", "female", *(f"{low:g}-{high:g}" for low, high in pairs))

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        size, most = (len(self._groups),), MAX_GAP_YEARS * MAX_PATIENTS
        return Layout(
            (
                Field("n", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("absolute", size, lower=0.0, upper=most),
                Field("error", size, lower=-most, upper=most),
                Field("relative", size, lower=0.0, upper=most / self.mape_floor_years),
                Field("relative_n", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("withheld", lower=0.0, upper=MAX_PATIENTS, whole=True),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, members, withheld = self._told(cohort)
        error = kept["predicted_years"] - kept["age_years"]
        relative = np.abs(error) / np.maximum(kept["age_years"], self.mape_floor_years)
        member = members.astype(np.float64)
        values: dict[str, FloatArray | float] = {
            "n": member.sum(axis=0),
            "absolute": np.abs(error) @ member,
            "error": error @ member,
            "relative": relative @ member,
            "relative_n": member.sum(axis=0),
            "withheld": float(withheld),
        }
        cells = [Cell(int(many), "patients of one group") for many in member.sum(axis=0)]
        cells += [Cell(withheld, "patients in no bin of age told"), *cells_of_predictions(kept["predicted_years"])]
        return Statistic.of(self.layout(iterate), values, cells)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        kept = self._evaluated(cohort)
        return [ages_and_errors(kept["age_years"], kept["predicted_years"], of="the patients evaluated")]

    def thresholds(self, iterate: Iterate) -> dict[str, float]:  # noqa: ARG002 - one-shot
        return {_FLOOR: self.mape_floor_years}

    def compared(self, cohort: Cohort) -> Cohort:
        kept = self._evaluated(cohort)
        return kept.with_columns(**{_FLOOR: kept["age_years"]})

    def spared(self, statistic: Statistic) -> Statistic:
        values = {field.name: statistic[field.name] for field in statistic.layout.fields}
        values |= {name: np.zeros_like(values[name]) for name in ("relative", "relative_n")}
        return replace(statistic, vector=statistic.layout.flatten(values))

    def binned(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Who is evaluated."""
        inside = is_usable(cohort, AGES, subset=self.subset)
        inside &= np.abs(cohort["predicted_years"] - cohort["age_years"]) <= MAX_GAP_YEARS
        return inside & (cohort["healthy"] == 1) if self.healthy_only else inside

    def telling(self, cuts: frozenset[int]) -> ErrorsByGroup:
        """With these cuts."""
        return replace(self, cuts=cuts)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        return columns_read(self._evaluated(cohort), needed=AGES)

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        if total["n"][0] < 1:
            return NotComputable("no patient with an age and a predicted age")
        unit = _UNITS[self.unit]
        groups = [
            {
                "group": name,
                "n": round(n),
                "mae": float(absolute / n * unit),
                "mean_error": float(error / n * unit),
                "mape": float(relative / relative_n) if relative_n >= 1 else None,
            }
            for name, n, absolute, error, relative, relative_n in zip(
                self._groups, *(total[each] for each in _SUMS), strict=True
            )
            if n >= 1
        ]
        about = {"unit": self.unit, "mape_floor_years": self.mape_floor_years}
        return Done({**about, "groups": groups, "withheld": round(total.scalar("withheld"))})

    def _evaluated(self, cohort: Cohort) -> Cohort:
        return judged(cohort, subset=self.subset, healthy_only=self.healthy_only)[0]

    def _told(self, cohort: Cohort) -> tuple[Cohort, NDArray[np.bool_], int]:
        """The patients evaluated, who of them is in which group told (n, g), and how many are in no bin told."""
        kept = self._evaluated(cohort)
        sex = kept.columns.get("is_male", np.full(kept.n, np.nan))
        sexes = np.column_stack([sex == 1, sex == 0, ~np.isin(sex, (0.0, 1.0))])
        place = np.clip(
            np.searchsorted(self.edges_years, kept["age_years"], side="right") - 1, 0, len(self.edges_years) - 2
        )
        bins = place[:, None] == np.arange(len(self.edges_years) - 1)
        cuts = self.cuts
        if cuts is None:
            cuts = cuts_of(kept["age_years"], self.edges_years, minimum_count=self.minimum_count)
        bins_told = bins & bins_between(cuts, bins.shape[1])
        sexes_told = self._large(sexes)[:, :2] & ~is_near_a_run(sexes, place, cuts, minimum_count=self.minimum_count)
        released = np.column_stack([np.ones(kept.n, dtype=np.bool_), sexes_told, bins_told])
        return kept, released, int(kept.n - released[:, 3:].any(axis=1).sum())

    def _large(self, groups: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Groups (n, g) without the members of those that are not told."""
        shown = suppress_small_cells(groups.sum(axis=0).astype(np.float64), self.minimum_count).shown
        return groups & shown


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if not has_predictions(campaign):
        return
    options = campaign.analyses.options(NAME, Options)
    low, high, width = campaign.cohort.age_min_years, campaign.cohort.age_max_years, float(options.age_bin_years)
    first = np.floor(low / width) * width
    edges = tuple(float(edge) for edge in np.arange(first, max(high, first + width) + width / 2, width))
    analysis = ErrorsByGroup(
        edges if edges[-1] >= high else (*edges, edges[-1] + width),
        unit=options.unit,
        mape_floor_years=options.mape_floor_years,
        healthy_only=campaign.cohort.train_on == "healthy",
        minimum_count=campaign.cell_minimum,
    )
    yield Step(analysis, ("predicted_years",))


def _asked(campaign: Campaign) -> Iterator[str]:  # noqa: ARG001 - the same for all
    yield "It sums errors of predicted ages, and errors over age, by sex and bins of age of enough patients each."


def _shown(results: Results) -> Display:
    if not results.steps_of(NAME):
        return Display()
    result = next(iter(results.of_type(AgeErrors).values()), None)
    if result is None:
        why = next(iter(results.steps_of(NAME).values())).not_computed
        return Display(sections=(Section(NAME, "Errors by sex and age", (Paragraph(why, missing=True),), place=15),))
    unit = result.unit
    headers = ("patients", "n", f"MAE, {unit}", f"mean error, {unit}", "MAPE")
    rows: tuple[tuple[Shown, ...], ...] = tuple(
        (words(one.group), count(one.n), number(one.mae), number(one.mean_error), percent(one.mape))
        for one in result.groups
    )
    table = TitledTable(
        Rows(NAME, headers, rows, why_empty="no site tells a group"), "Errors by sex and by age in years"
    )
    note = (
        f"MAPE is the mean of |error| over age, where ages below {result.mape_floor_years:g} years count as that. "
        f"{result.withheld} patients are in no bin of age, as too few are in theirs at their site."
    )
    section = Section(NAME, "Errors by sex and age", (table, Paragraph(note)), place=15)
    return Display(terminal=(table,), sections=(section,))


ANALYSIS = Definition(
    name=NAME,
    result=AgeErrors,
    steps=_steps,
    words=lambda step: "the errors by sex and age",  # noqa: ARG005 - there is one
    options=Options,
    needs_in_words="ages are predicted",
    asked=_asked,
    shown=_shown,
    place=15,
)
