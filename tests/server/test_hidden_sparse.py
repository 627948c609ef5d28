"""More sites than each shares masks with (SecAgg+ on a sparse graph): the sum is right whoever leaves, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.protocol.secure import NEIGHBOURS, neighbours, threshold_of
from fedage.server.sites import setting_up
from tests.server.hidden import ONE, Sites, silent, survival_site
from tests.server.test_hidden_sums import leave_once_masked

NAMES = [f"s{number:02d}" for number in range(NEIGHBOURS + 4)]


def test_neighbours_are_so_of_each_other_and_many_enough() -> None:
    for seed in ("a", "b", "c"):
        near = {site: neighbours(site, NAMES, seed=seed) for site in NAMES}
        assert all(len(each) == NEIGHBOURS for each in near.values())
        assert all(site in near[other] for site, each in near.items() for other in each)
        assert threshold_of(NEIGHBOURS + 1) > (NEIGHBOURS + 1) / 2
    assert neighbours("s00", NAMES, seed="a") != neighbours("s00", NAMES, seed="b")


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sites:
    """With keys for two sums only, as those for nine take minutes here."""
    monkeypatch.setattr(setting_up, "KEYS_AT_ONCE", 2)
    members = [survival_site(name, tmp_path / "sites", seed=k % 3) for k, name in enumerate(NAMES)]
    return Sites(tmp_path, members=members, minimum_sites=3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["nobody", "channels", "keys", "mask", "masked"])
def test_the_sum_of_many_sites_is_that_of_those_who_stay(stage: str, sites: Sites) -> None:
    left = {"s05"}
    if stage == "masked":
        leave_once_masked(sites, "s05")
    elif stage == "mask":  # ten at once, of whom each has others for neighbours
        left = {f"s{number:02d}" for number in range(5, 15)}
        away = [silent(name, stage="mask", names=sites.grid.names) for name in sorted(left)]
        sites.grid._meddle = lambda message, node: None if any(m(message, node) is None for m in away) else message
    elif stage != "nobody":
        sites.grid._meddle = silent("s05", stage=stage, names=sites.grid.names)
    else:
        left = set()
    summed = sites.ask(ONE)
    there = [name for name in NAMES if name not in left]
    assert summed.contributors[ONE] == tuple(there)
    np.testing.assert_allclose(sites.total(summed, ONE), sites.expected(ONE, there), rtol=1e-13, atol=1e-12)


@pytest.mark.slow
def test_too_many_of_ones_neighbours_leave(sites: Sites) -> None:
    """Then the masks that they share cannot be taken off, and nothing is opened."""
    left = set(NAMES[5:25])
    away = [silent(name, stage="mask", names=sites.grid.names) for name in sorted(left)]
    sites.grid._meddle = lambda message, node: None if any(m(message, node) is None for m in away) else message
    summed = sites.ask(ONE)
    assert summed.totals == {}
    assert summed.refused[ONE]
