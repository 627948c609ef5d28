"""Thickness phantoms: the same bytes of a seed, a truth that can be held against, and no way round the regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.bench.thickness import (
    CONTROL,
    FIRST,
    GAP_SD_YEARS,
    SITES,
    anatomy,
    course,
    draw_site,
    irreducible,
    write_table,
)


def test_a_seed_and_a_site_fix_every_number(tmp_path: Path) -> None:
    cortex = anatomy()
    for name in ("a", "b"):
        write_table(tmp_path / name, cortex, draw_site(cortex, SITES[0], seed=3, patients=20), site="north")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    table = pd.read_csv(tmp_path / "a")
    assert [*table.columns[:5], *table.columns[5:]][5:] == list(cortex.names)
    other = draw_site(cortex, SITES[1], seed=3, patients=20)
    assert not np.allclose(other.x_mm, draw_site(cortex, SITES[0], seed=3, patients=20).x_mm)


def test_the_best_reader_is_left_with_the_irreducible_error() -> None:
    """A reader who knows everything but b, by brute force over patients, against the grid."""
    cortex, site = anatomy(), SITES[0]
    rng = np.random.default_rng(1)
    age = rng.uniform(site.age_min_years, site.age_max_years, 40_000)
    y = course(age + GAP_SD_YEARS * rng.standard_normal(age.size)) + cortex.reading_sd_years * rng.standard_normal(
        age.size
    )
    order = np.argsort(y)
    medians = np.empty(age.size)
    for part in np.array_split(order, 200):
        medians[part] = np.median(age[part])
    assert np.abs(age - medians).mean() == pytest.approx(irreducible(cortex, [site])[site.name], rel=0.02)


@pytest.mark.parametrize("regions", [16, 68, 148])
def test_regions_read_age_better_than_their_mean_does(regions: int) -> None:
    cortex = anatomy(regions=regions)
    table = draw_site(cortex, SITES[0], seed=1, patients=600)
    mean = table.x_mm.mean(axis=1)
    assert np.corrcoef(mean, table.age_years)[0, 1] ** 2 < 1 / 2
    z = table.x_mm - table.x_mm.mean(axis=0)
    fitted = z @ np.linalg.lstsq(z, table.age_years - table.age_years.mean(), rcond=None)[0]
    assert np.corrcoef(fitted, table.age_years)[0, 1] > abs(np.corrcoef(mean, table.age_years)[0, 1]) + 0.1


def test_a_diagnosis_thins_its_own_regions() -> None:
    cortex = anatomy()
    table = draw_site(cortex, SITES[0], seed=1, patients=4000, ill_fraction=0.5)
    thinner = table.x_mm[table.diagnosis == CONTROL].mean(axis=0) - table.x_mm[table.diagnosis == FIRST].mean(axis=0)
    relative = thinner / -cortex.slope_mm_per_year
    own = cortex.patterns[0].astype(int)
    assert np.median(relative[own]) > 5
    assert np.median(np.delete(relative, own)) < 3
