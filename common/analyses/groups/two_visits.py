"""The gap of predicted and chronological age at two visits of the same patients: its change, and how much it repeats.

Two ages and two predicted ages a patient: those of the first visit as everywhere, those of the second in two columns
of the site's table, e.g. what `fedage predict` makes of the second exams. By group, over all sites: the mean raw gap
at each visit, its mean change with the standard error, the *pace* Σ(predicted₂ − predicted₁) / Σ(age₂ − age₁) in
predicted years a year, and ICC(A,1) of the two gaps (McGraw and Wong 1996: one measurement, agreement). Of two groups
also the difference of the mean changes, with Welch's interval.

Raw gaps: where old ages are predicted too young (a line of slope a below 1), everybody's gap falls by 1 − a a year and
the pace is a, whatever their health, and another scanner moves all of them: groups are compared with each other.

Attack: as on any sums of products of columns. Rule: the influence rule on the gaps, and groups are cells. Residual
risk: that of every such sum; second visits of few patients leave nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from pydantic import Field as Described

from fedage.common.analyses._shown_in_rows import ShownInRows
from fedage.common.analyses._summed import group_of
from fedage.common.analyses.base import Analysis, Done, Iterate, NotComputable, OneExchange, Outcome, Result
from fedage.common.analyses.columns import (
    MAX_AGE_YEARS,
    MAX_GAP_YEARS,
    MAX_PATIENTS,
    cells_of_predictions,
    in_subset,
    usable,
)
from fedage.common.analyses.columns_read import ColumnsRead, columns_read
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.analyses.of_file import BoolArray, has_predictions
from fedage.common.campaign.types import Campaign, Column, Groups, Table
from fedage.common.presentation import cells
from fedage.common.record.parts import AnalysisResult, Number, Part
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import Group, differing
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "two-visits"
_Z95 = 1.959963984540054
_FIRST = ("age_years", "predicted_years")
_MOST = {"gap1": MAX_GAP_YEARS, "gap2": MAX_GAP_YEARS, "between": MAX_AGE_YEARS}
_SUMS = ("gap1", "gap2", "between", "gap1²", "gap2²", "gap1·gap2")


class Options(Table):
    """The gap at two visits of the same patients."""

    second_age: Column = Described(description="column with the age at the second visit in years")
    second_predicted: Column = Described(description="column with the predicted age at the second visit in years")


class VisitsOfGroup(Part):
    """Patients of one group."""

    group: str = Described(description="which")
    n: int = Described(description="patients with both visits")
    years_between: Number = Described(description="mean time between the visits")
    gap_first_years: Number = Described(description="mean raw gap at the first visit")
    gap_second_years: Number = Described(description="mean raw gap at the second visit")
    change_years: Number = Described(description="mean change of the gap")
    change_se_years: Number = Described(description="its standard error")
    pace: Number = Described(description="predicted years a year between the visits")
    icc: Number = Described(description="ICC(A,1) of the two gaps")


class TwoVisits(AnalysisResult):
    """Gaps at two visits, over all sites or at one."""

    groups: tuple[VisitsOfGroup, ...] = Described(
        description="all patients, or the group of interest and the reference"
    )
    difference_years: Number = Described(default=None, description="of the mean changes, group less reference")
    difference_ci95_low: Number = Described(default=None, description="Welch's interval")
    difference_ci95_high: Number = Described(default=None, description="of it")


@dataclass(frozen=True)
class Visits(OneExchange):
    """See the head of this file.

    Parameters
    ----------
    second_age, second_predicted
        Columns of the second visit.
    groups
        The file's groups; None for all patients together.
    """

    second_age: str
    second_predicted: str
    _: KW_ONLY
    groups: Groups | None = None
    subset: str = "is_test"
    name: str = NAME
    per_site: bool = True

    @property
    def _names(self) -> tuple[str, ...]:
        of = self.groups
        return ("all",) if of is None else (f"{of.column} = {of.equals:g}", f"{of.column} = {of.reference:g}")

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        size = (len(self._names),)

        def most(name: str) -> float:
            return MAX_PATIENTS * math.prod(_MOST[factor] for factor in _factors(name))

        return Layout(
            (
                Field("n", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                *(Field(name, size, lower=-most(name), upper=most(name)) for name in _SUMS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        members, left_out = self._members(cohort)
        values: dict[str, FloatArray | float] = {**left_out_values(left_out)}
        values["n"] = np.array([kept.n for kept in members], dtype=np.float64)
        columns = [self._columns(kept) for kept in members]
        for name in _SUMS:
            products = [np.prod([each[factor] for factor in _factors(name)], axis=0) for each in columns]
            values[name] = np.array([product.sum() for product in products])
        said = [Cell(kept.n, f"patients with two visits ({of})") for of, kept in zip(self._names, members, strict=True)]
        for kept in members:
            said += [*cells_of_predictions(kept["predicted_years"]), *cells_of_predictions(kept[self.second_predicted])]
            # Of times between visits only the sum leaves, no product.
            if apart := differing(self._columns(kept)["between"]):
                said.append(Cell(apart, "patients with another time between visits than the most frequent one"))
        return Statistic.of(self.layout(iterate), values, said)

    def summed(self, cohort: Cohort, iterate: Iterate) -> list[Group]:  # noqa: ARG002 - one-shot
        words = {"gap1": "gap at the first visit", "gap2": "gap at the second visit"}
        found = []
        for of, kept in zip(self._names, self._members(cohort)[0], strict=True):
            columns = {said: self._columns(kept)[name] for name, said in words.items()}
            found.append(group_of(columns, of=f"the patients with two visits ({of})"))
        return found

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        group = (self.groups.column,) if self.groups is not None else ()
        needed = (*_FIRST, self.second_age, self.second_predicted, *group)
        members = self._members(cohort)[0]
        rows = np.concatenate([columns_read(kept, needed=needed).rows for kept in members])
        return replace(columns_read(members[0], needed=needed), rows=np.sort(rows))

    def _members(self, cohort: Cohort) -> tuple[list[Cohort], int]:
        """The patients of each group with both visits, and how many of them all lack one."""
        chosen = in_subset(cohort, self.subset)
        if self.groups is not None:
            label = chosen[self.groups.column]
            chosen = chosen.where((label == self.groups.equals) | (label == self.groups.reference))
        kept, left_out = usable(chosen, (*_FIRST, self.second_age, self.second_predicted))
        plausible = np.ones(kept.n, dtype=np.bool_)
        for age, predicted in (_FIRST, (self.second_age, self.second_predicted)):
            plausible &= (kept[age] >= 0) & (kept[age] <= MAX_AGE_YEARS)
            plausible &= np.abs(kept[predicted] - kept[age]) <= MAX_GAP_YEARS
        plausible &= kept[self.second_age] > kept["age_years"]
        left_out += int(np.count_nonzero(~plausible))
        kept = kept.where(plausible)
        if self.groups is None:
            return [kept], left_out
        label = kept[self.groups.column]
        return [kept.where(label == value) for value in (self.groups.equals, self.groups.reference)], left_out

    def _columns(self, kept: Cohort) -> dict[str, FloatArray]:
        first, second = kept["age_years"], kept[self.second_age]
        return {
            "gap1": kept["predicted_years"] - first,
            "gap2": kept[self.second_predicted] - second,
            "between": second - first,
        }

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        if total["n"].sum() < 1:
            return NotComputable("no patient with an age and a predicted age at two visits")
        groups = [
            _of_group(name, float(total["n"][k]), {of: float(total[of][k]) for of in _SUMS})
            for k, name in enumerate(self._names)
        ]
        result: Result = {**left_out_result(total), "groups": groups}
        if len(groups) == 2 and all(group["change_se_years"] is not None for group in groups):
            difference = groups[0]["change_years"] - groups[1]["change_years"]
            half = _Z95 * math.hypot(*(group["change_se_years"] for group in groups))
            result |= {
                "difference_years": difference,
                "difference_ci95_low": difference - half,
                "difference_ci95_high": difference + half,
            }
        return Done(result)


def _factors(name: str) -> tuple[str, ...]:
    """The columns whose product a sum is of.

    >>> _factors("gap1²"), _factors("gap1·gap2"), _factors("between")
    (('gap1', 'gap1'), ('gap1', 'gap2'), ('between',))
    """
    return (name[:-1], name[:-1]) if name.endswith("²") else tuple(name.split("·"))


def _of_group(name: str, n: float, sums: Mapping[str, float]) -> Result:
    found: Result = {"group": name, "n": round(n), **dict.fromkeys(list(VisitsOfGroup.model_fields)[2:])}
    if n < 1:
        return found
    first, second, between = sums["gap1"] / n, sums["gap2"] / n, sums["between"] / n
    found |= {
        "years_between": between,
        "gap_first_years": first,
        "gap_second_years": second,
        "change_years": second - first,
        "pace": 1 + (second - first) / between,
    }
    if n < 2:
        return found
    squares = sums["gap1²"] - n * first**2, sums["gap2²"] - n * second**2
    product = sums["gap1·gap2"] - n * first * second
    found["change_se_years"] = math.sqrt(max(sum(squares) - 2 * product, 0.0) / (n - 1) / n)
    # Mean squares of two-way ANOVA: of patients, of visits, of the rest (McGraw and Wong 1996, table 4, k = 2).
    patients, rest = (sum(squares) / 2 + sign * product for sign in (1.0, -1.0))
    of_patients, of_rest, of_visits = patients / (n - 1), rest / (n - 1), n * (second - first) ** 2 / 2
    below = of_patients + of_rest + 2 * (of_visits - of_rest) / n
    found["icc"] = (of_patients - of_rest) / below if below > 0 else None
    return found


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    if has_predictions(campaign) and NAME in campaign.analyses.asked_for():
        options = campaign.analyses.options(NAME, Options)
        yield Step(Visits(options.second_age, options.second_predicted, groups=campaign.groups), ("predicted_years",))


def _columns(campaign: Campaign) -> Iterator[str]:
    if NAME in campaign.analyses.asked_for():
        options = campaign.analyses.options(NAME, Options)
        yield from (options.second_age, options.second_predicted)


def _sets(campaign: Campaign, cohort: Cohort) -> Iterator[BoolArray]:
    mask = cohort["is_test"] == 1
    if campaign.groups is not None and campaign.groups.column in cohort.columns:
        mask &= np.isin(cohort[campaign.groups.column], (campaign.groups.equals, campaign.groups.reference))
    columns = tuple(name for name in _columns(campaign) if name in cohort.columns)
    if columns:
        yield mask & np.isfinite(cohort.matrix(columns)).all(axis=1)


def _asked(campaign: Campaign) -> Iterator[str]:
    for options in [campaign.analyses.options(NAME, Options)] if NAME in campaign.analyses.asked_for() else []:
        yield (
            "It sums your patients' gaps at two visits, the second from the columns "
            f"{options.second_age} and {options.second_predicted}, and products of both."
        )


_HEADERS = ("patients", "n", "years between", "first gap", "second gap", "change", "SE", "pace", "ICC")


def _rows(result: TwoVisits) -> Iterator[tuple[cells.Cell, ...]]:
    for of in result.groups:
        figures = (of.years_between, of.gap_first_years, of.gap_second_years, of.change_years, of.change_se_years)
        numbers = (*(cells.number(x) for x in figures), cells.number(of.pace), cells.number(of.icc))
        yield (cells.words(of.group), cells.count(of.n), *numbers)


def _sentence(result: TwoVisits) -> str:
    parts = [
        f"{of.change_years:+.2f} ± {of.change_se_years:.2f} years over {of.years_between:.1f} ({of.n} patients, "
        f"{of.group})".replace("-", "−")
        for of in result.groups
        if None not in (of.change_years, of.change_se_years, of.years_between)
    ]
    return f"From the first visit to the second the raw gap changes by {', '.join(parts) or 'an unknown number'}."


_SHOWN = ShownInRows(
    name=NAME,
    result=TwoVisits,
    words=lambda step: "the gap at two visits",  # noqa: ARG005 - there is one
    rows=_rows,
    headers=_HEADERS,
    title="Two visits",
    caption="Raw gap at two visits, years",
    note="Where old ages are predicted too young, everybody's gap falls from visit to visit; another scanner moves "
    "everybody's. Compare groups, not one group with zero.",
    sentence=_sentence,
    place=51,
)
ANALYSIS = Definition(
    name=NAME,
    result=TwoVisits,
    steps=_steps,
    words=_SHOWN.words,
    options=Options,
    needs_in_words="ages are predicted",
    asked=_asked,
    columns=_columns,
    sets=_sets,
    shown=_SHOWN.shown,
    compared=_SHOWN.compared,
    place=51,
)
