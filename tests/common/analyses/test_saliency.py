"""Mean maps of where a model looks: against loops, over any cut into sites, and what a file may ask for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.evaluation._saliency_figure import saliency_maps
from fedage.common.analyses.evaluation.saliency import SaliencySums, saliency_of
from fedage.common.analyses.evaluation.saliency_result import Saliency
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.common.statistics.cohort import Cohort
from fedage.common.toml.problems import CampaignErrors

GRIDS = (CoarseGrid("left", (8, 4), (2, 1)), CoarseGrid("right", (8, 4), (2, 1)))
EDGES = (40.0, 60.0, 80.0)
FILE = """
[campaign]
name = "where"
purpose = "See where a model looks"
seed = 3
[estimator]
name = "{name}"
[estimator.options]
{options}
[privacy]
minimum_count = 10
{training}
{table}
"""


def file(name: str, *, options: str = "", table: str = "[analyses.saliency]\ncells = 4"):
    training = "" if "[table]" in table else "[training]\nrounds = 1\nbatch_size = 8"
    return parse_campaign(FILE.format(name=name, options=options, table=table, training=training))


def cohort(n: int, *, seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    maps, age = rng.dirichlet(np.ones(4), n), rng.uniform(40, 80, n)
    columns = dict(zip(SaliencySums(GRIDS, EDGES).columns, maps.T, strict=True))
    return Cohort(
        {
            "age_years": age,
            "predicted_years": age + rng.normal(0, 3, n),
            "is_test": np.ones(n),
            "healthy": np.ones(n),
            "density": np.repeat([1.0, 2.0, 3.0], -(-n // 3))[:n],
            **columns,
        }
    )


def found(analysis, sites) -> Saliency:
    outcome = run_locally(analysis, sites)
    assert isinstance(outcome, Done), outcome
    return Saliency.model_validate(outcome.result)


def test_means_against_loops_and_over_two_sites():
    whole = cohort(90, seed=1)
    asked = SaliencySums(GRIDS, EDGES, column="density", values=(1.0, 2.0))
    result = found(asked, {"a": whole.where(np.arange(90) < 40), "b": whole.where(np.arange(90) >= 40)})
    maps = np.sqrt(whole.matrix(asked.columns))
    maps /= maps.sum(axis=1, keepdims=True)
    who = {
        "all": np.ones(90, bool),
        "40-60": whole["age_years"] < 60,
        "60-80": whole["age_years"] >= 60,
        "density = 1": whole["density"] == 1,
        "density = 2": whole["density"] == 2,
    }
    assert [one.group for one in result.groups] == list(who)
    for one in result.groups:
        assert one.n == who[one.group].sum()
        mean = maps[who[one.group]].mean(axis=0)
        np.testing.assert_allclose([*one.shares["left"], *one.shares["right"]], mean, rtol=1e-12)
    assert sum(sum(part) for part in result.groups[0].shares.values()) == pytest.approx(1, abs=1e-12)


def test_nobody_is_no_map():
    empty = cohort(9, seed=1).where(np.zeros(9, bool))
    assert isinstance(run_locally(SaliencySums(GRIDS, EDGES), {"a": empty}), NotComputable)


@pytest.mark.parametrize(
    ("shape", "longest", "cells"),
    [
        ((64, 64), 8, (8, 8)),
        ((64, 32), 8, (8, 4)),
        ((40, 48, 40), 6, (5, 6, 5)),
        ((100, 7), 16, (16, 1)),
        ((3, 2), 16, (3, 2)),
    ],
)
def test_a_grid_holds_every_pixel_once(shape, longest, cells):
    grid = CoarseGrid.of("x", shape, longest=longest)
    assert grid.cells == cells
    times = np.zeros(shape, int)
    for where in grid.slices():
        assert times[where].size
        times[where] += 1
    assert np.all(times == 1)
    assert len(set(grid.columns)) == len(list(grid.slices())) == np.prod(cells)


@pytest.mark.parametrize(
    ("name", "options", "grids"),
    [
        ("chest-ca", "image_size = 64", {"image": (4, 4)}),
        (
            "breast-4view",
            "image_height = 64\nimage_width = 32",
            dict.fromkeys(("L-CC", "R-CC", "L-MLO", "R-MLO"), (4, 2)),
        ),
        ("brain-sfcn", "", {"t1w": (3, 4, 3)}),
        ("brain-contrastive", "", {"t1w": (3, 4, 3)}),
    ],
)
def test_each_estimator_on_images_has_a_grid(name, options, grids):
    asked = saliency_of(file(name, options=options))
    assert asked is not None
    assert {grid.name: grid.cells for grid in asked.grids} == grids
    assert "saliency" in registered(file(name, options=options))
    assert "saliency" not in registered(file(name, options=options, table=""))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[analyses.saliency]\ncolumn = "density"', "belong together"),
        ("[analyses.saliency]\nvalues = [1]", "belong together"),
        ('[analyses.saliency]\ncolumn = "density"\nvalues = [1, 1]', "different"),
        ("[analyses.saliency]\ncells = 64", "cells"),
        ("[analyses.saliency]\nage_bin_years = 1", "age_bin_years"),
    ],
)
def test_a_file_is_told_what_is_wrong(table, said):
    with pytest.raises(CampaignErrors, match=said):
        file("chest-ca", options="image_size = 64", table=table)


def test_a_table_has_no_image():
    with pytest.raises(CampaignErrors, match="from images"):
        file("table-ridge", options='features = ["*"]', table='[table]\nage = "age"\n[analyses.saliency]\n')


def test_two_and_three_dimensions_are_drawn_and_a_cell_that_nobody_tells_is_crossed_out():
    for cells in ((2, 2), (2, 3, 2)):
        shares = [1 / np.prod(cells)] * int(np.prod(cells))
        groups = [
            {"group": "all", "n": 20, "shares": {"x": shares}},
            {"group": "40-60", "n": 12, "shares": {"x": [None, *shares[1:]]}},
        ]
        result = {"n": 20, "images": [{"name": "x", "shape": cells, "cells": cells}], "groups": groups}
        svg = saliency_maps(Saliency.model_validate(json.loads(json.dumps(result))))
        assert svg is not None
        assert "40-60 years" in svg
        assert ("coronal" in svg) == (len(cells) == 3)
    assert saliency_maps(None) is None
