"""Where a model looks: the mean map of how much of each predicted age rests on which part of the image.

At its site each patient has a map over a coarse grid of the preprocessed image: the share of every cell in how far the
predicted age moves when cells are blotted out, one sum of 1 a patient. For the sums the map is tempered: the roots of
the shares over their sum, so that a patient with all in one cell outweighs an even map less ([own]). What leaves are
sums of tempered maps over all patients evaluated, over bins of age, and over the values of one column, such as density.

Attack: a model under which one patient's map is that patient's image, and everybody else's map is known. The sum less
what is known is a picture. Rule: of every group whose sum leaves, and of those who are in none, each cell has to pass
the influence rule (`influence.columns_passing`): it is the same for everybody, or enough patients differ, and no few
make up nearly all of how it varies. A cell that fails in one group is told of none, and all cells withheld together
have to pass too, as the cells of a map add up to 1. A group of which more than a tenth of the cells fail is not told.

Attack: sums of two groups that differ by a patient. Rule: groups by age lie between cuts that the site keeps account
of (`age_cuts`); a group by a value has at least the minimum count, and is told only where no run of bins of age is
nearly the same patients. Residual risk: a model that draws many patients' images into their maps shows their mean
image, on the grid; a run has one model, and a site keeps account of runs.

Notation: n patients, G groups, K cells of all images; maps (n, K), each row with sum 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Described
from pydantic import model_validator

from fedage.common.analyses._age_bins import bin_of
from fedage.common.analyses.agreement import rule_of
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
from fedage.common.analyses.evaluation.saliency_result import Saliency
from fedage.common.analyses.left_out import left_out_fields, left_out_result, left_out_values
from fedage.common.campaign.types import Campaign, Column, Table
from fedage.common.presentation.blocks import Display, FigureBlock, Section
from fedage.common.presentation.participation import judged as judged_words
from fedage.common.record.results import Results
from fedage.common.statistics.age_cuts import bins_between, cuts_of, is_near_a_run
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.disclosure import suppress_small_cells
from fedage.common.statistics.influence import InfluenceRule, columns_passing
from fedage.common.statistics.statistic import Cell, Field, FloatArray, Layout, Statistic

NAME = "saliency"
ALL = "all"
BoolArray = NDArray[np.bool_]
_NEARLY_ALL = 0.9


class Options(Table):
    """Where in the images the model looks, as mean maps on a coarse grid, in all and by age.

    For each patient evaluated the model predicts once more for every cell of the grid.
    """

    cells: int = Described(default=8, ge=2, le=16, description="cells of the grid along an image's longest side")
    age_bin_years: int = Described(default=10, ge=5, le=50, multiple_of=5, description="width of the groups by age")
    column: Column | None = Described(
        default=None, description="outcome column whose values are groups as well, e.g. density"
    )
    values: tuple[float, ...] = Described(default=(), max_length=8, description="those values")

    @model_validator(mode="after")
    def _both(self) -> Options:
        if (self.column is None) != (not self.values):
            raise ValueError("column and values belong together; set both, or neither")
        if len(set(self.values)) < len(self.values):
            raise ValueError("values must be different; remove the one that is there twice")
        return self


@dataclass(frozen=True)
class SaliencySums(OneExchange):
    """See the module's docstring.

    Parameters
    ----------
    grids
        Of the estimator's images.
    edges_years
        Of the bins of age, rising; the outermost bins are open.
    column, values
        A column whose values make groups.
    """

    grids: tuple[CoarseGrid, ...]
    edges_years: tuple[float, ...]
    _: KW_ONLY
    column: str | None = None
    values: tuple[float, ...] = ()
    healthy_only: bool = False
    minimum_count: int = 1
    influence: InfluenceRule | None = None
    cuts: frozenset[int] | None = None
    name: str = NAME
    subset: str = "is_test"
    per_site: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns (K,) of the cohort with the shares."""
        return tuple(column for grid in self.grids for column in grid.columns)

    @property
    def _groups(self) -> tuple[str, ...]:
        pairs = zip(self.edges_years, self.edges_years[1:], strict=False)
        by_value = (f"{self.column} = {value:g}" for value in self.values)
        return (ALL, *(f"{low:g}-{high:g}" for low, high in pairs), *by_value)

    def layout(self, iterate: Iterate) -> Layout:  # noqa: ARG002 - one-shot
        groups = len(self._groups)
        size = (groups, len(self.columns))
        return Layout(
            (
                Field("n", (groups,), lower=0.0, upper=MAX_PATIENTS, whole=True),
                *left_out_fields(),
                Field("patients", size, lower=0.0, upper=MAX_PATIENTS, whole=True),
                Field("shares", size, lower=0.0, upper=MAX_PATIENTS),
            )
        )

    def local(self, cohort: Cohort, iterate: Iterate) -> Statistic:
        kept, left_out = self._evaluated(cohort)
        maps = tempered(kept.matrix(self.columns))
        members, rests = self._members(kept, maps)
        told = self._told_cells(maps, [*members.T, *rests])
        member = members.astype(np.float64)
        n = member.sum(axis=0)
        values: dict[str, FloatArray | float] = {
            "n": n,
            **left_out_values(left_out),
            "patients": np.outer(n, told),
            "shares": (member.T @ maps) * told,
        }
        cells = [Cell(int(many), "patients of one group") for many in n]
        cells += [Cell(int(rest.sum()), "patients in no group of a kind") for rest in rests]
        cells += cells_of_predictions(kept["predicted_years"])
        return Statistic.of(self.layout(iterate), values, cells)

    def binned(self, cohort: Cohort) -> BoolArray:
        """Who is evaluated."""
        inside = is_usable(cohort, AGES, subset=self.subset)
        inside &= np.abs(cohort["predicted_years"] - cohort["age_years"]) <= MAX_GAP_YEARS
        return inside & (cohort["healthy"] == 1) if self.healthy_only else inside

    def telling(self, cuts: frozenset[int]) -> SaliencySums:
        """With these cuts."""
        return replace(self, cuts=cuts)

    def columns_read(self, cohort: Cohort, iterate: Iterate) -> ColumnsRead:  # noqa: ARG002 - one-shot
        """The maps are the model's, as the predictions are, and are accounted for with these."""
        kept, _ = self._evaluated(cohort)
        return columns_read(kept, needed=(*AGES, *([self.column] if self.column else [])))

    def combine(self, total: Statistic, iterate: Iterate) -> Outcome:  # noqa: ARG002 - one-shot
        n = np.rint(total["n"])
        if n[0] < 1:
            return NotComputable("no patient with an age, a predicted age and a map")
        patients = np.rint(total["patients"])
        mean = np.where(patients > 0, total["shares"] / np.maximum(patients, 1), np.nan)
        ends = np.cumsum([len(grid.columns) for grid in self.grids])[:-1]
        groups = [
            {
                "group": name,
                "n": round(many),
                "shares": {
                    grid.name: [None if np.isnan(share) else float(share) for share in part]
                    for grid, part in zip(self.grids, np.split(row, ends), strict=True)
                },
            }
            for name, many, row in zip(self._groups, n, mean, strict=True)
            if many >= 1
        ]
        images = [{"name": g.name, "shape": list(g.shape), "cells": list(g.cells)} for g in self.grids]
        return Done({"n": round(n[0]), **left_out_result(total), "images": images, "groups": groups})

    def _evaluated(self, cohort: Cohort) -> tuple[Cohort, int]:
        return judged(cohort, subset=self.subset, healthy_only=self.healthy_only)

    def _members(self, kept: Cohort, maps: FloatArray) -> tuple[BoolArray, list[BoolArray]]:
        """Who (n, G) is in which group told, and who (n,) is in none by age, and in none by value."""
        bins = len(self.edges_years) - 1
        place = bin_of(kept["age_years"], self.edges_years)
        cuts = self.cuts
        if cuts is None:
            cuts = cuts_of(kept["age_years"], self.edges_years, minimum_count=self.minimum_count)
        by_age = (place[:, None] == np.arange(bins)) & bins_between(cuts, bins)
        by_age = by_age & self._pass(maps, by_age)
        everybody = np.ones((kept.n, 1), dtype=np.bool_)
        rests = [~by_age.any(axis=1)]
        by_value = np.empty((kept.n, 0), dtype=np.bool_)
        if self.column is not None:
            by_value = kept[self.column][:, None] == np.array(self.values)
            parts = np.column_stack([by_value, ~by_value.any(axis=1)])
            shown = suppress_small_cells(parts.sum(axis=0).astype(np.float64), self.minimum_count).shown
            near = is_near_a_run(parts, place, cuts, minimum_count=self.minimum_count)
            by_value = by_value & shown[:-1] & (not near) & self._pass(maps, by_value)
            rests.append(~by_value.any(axis=1))
        return np.column_stack([everybody, by_age, by_value]), rests

    def _pass(self, maps: FloatArray, groups: BoolArray) -> BoolArray:
        """Of which groups (n, g) nearly all cells pass, (g,)."""
        if self.influence is None:
            return np.ones(groups.shape[1], dtype=np.bool_)
        return np.array(
            [columns_passing(maps[who], self.influence).mean() >= _NEARLY_ALL for who in groups.T], dtype=np.bool_
        )

    def _told_cells(self, maps: FloatArray, groups: list[BoolArray]) -> FloatArray:
        """Which cells (K,) are told, of whichever group, as 0 and 1."""
        rule, occupied = self.influence, [who for who in groups if who.any()]
        told = np.ones(maps.shape[1], dtype=np.bool_)
        if rule is None:
            return told.astype(np.float64)
        for who in occupied:
            told &= columns_passing(maps[who], rule)
        largest = np.argsort(maps.sum(axis=0), kind="stable")
        for cell in largest:
            hidden = maps[:, ~told].sum(axis=1, keepdims=True)
            if told.all() or all(columns_passing(hidden[who], rule)[0] for who in occupied):
                break
            told[cell] = False
        return told.astype(np.float64)


def tempered(shares: FloatArray) -> FloatArray:
    """Maps (n, K) for a sum of them: roots of the shares, over their own sum.

    >>> tempered(np.array([[0.64, 0.36, 0.0, 0.0]])).round(4).tolist()
    [[0.5714, 0.4286, 0.0, 0.0]]
    """
    roots = np.sqrt(shares)
    maps: FloatArray = roots / roots.sum(axis=1, keepdims=True)
    return maps


def saliency_of(campaign: Campaign) -> SaliencySums | None:
    """The analysis as the file asks for it; None where it asks for none, or its model takes no image."""
    if NAME not in campaign.analyses.asked_for() or not campaign.image_shapes:
        return None
    options = campaign.analyses.options(NAME, Options)
    low, high, width = campaign.cohort.age_min_years, campaign.cohort.age_max_years, float(options.age_bin_years)
    first, last = np.floor(low / width), np.floor(low / width) + 1
    last = max(np.ceil(high / width), last)
    return SaliencySums(
        tuple(CoarseGrid.of(name, shape, longest=options.cells) for name, shape in campaign.image_shapes),
        tuple(float(edge) for edge in np.arange(first, last + 1) * width),
        column=options.column,
        values=options.values,
        healthy_only=campaign.cohort.train_on == "healthy",
        minimum_count=campaign.cell_minimum,
        influence=rule_of(campaign),
    )


def _steps(campaign: Campaign, steps: Mapping[str, Analysis]) -> Iterator[Step]:  # noqa: ARG001 - alone
    asked = saliency_of(campaign)
    if asked is not None:
        yield Step(asked, ("predicted_years",))


def _columns(campaign: Campaign) -> Iterator[str]:
    column = campaign.analyses.options(NAME, Options).column
    if column is not None:
        yield column


def _asked(campaign: Campaign) -> Iterator[str]:
    asked = saliency_of(campaign)
    if asked is None:
        return
    grids = ", ".join(f"{' × '.join(map(str, grid.cells))} of {grid.name}" for grid in asked.grids)
    by = "age" if asked.column is None else f"age and by {asked.column}"
    yield (
        "It asks where in the images the model looks: of each patient evaluated your site makes a map on a coarse grid "
        f"({grids}), which stays with you, and sends sums of these maps over all and by {by}."
    )


def _shown(results: Results) -> Display:
    if not results.steps_of(NAME):
        return Display()
    found, why = results.outcome(NAME, Saliency)

    def figure() -> str | None:
        from fedage.common.analyses.evaluation._saliency_figure import saliency_maps

        return saliency_maps(found)

    images = "images of phantoms" if results.phantoms else "images"
    caption = (
        f"Where in {images} the model looks, over {judged_words(results)}: of each cell the mean share in how far the "
        "predicted age moves when cells of an image are filled with their own mean, one at a time (roots of the "
        "shares, over their sum). 1 is an even share; a cross is a cell that no site tells. Of volumes the middle "
        "slices are shown. The grid is that of the preprocessed image. A map says what the prediction rests on, not "
        "what ages."
    )
    block = FigureBlock(figure, caption, "no site released it" if why is None else why)
    return Display(sections=(Section(NAME, "Where the model looks", (block,), place=24),))


ANALYSIS = Definition(
    name=NAME,
    result=Saliency,
    steps=_steps,
    words=lambda step: "the maps of where the model looks",  # noqa: ARG005 - there is one
    options=Options,
    needs_in_words="an estimator predicts ages from images",
    asked=_asked,
    columns=_columns,
    shown=_shown,
    place=36,
)
