"""Which sets of sites may be opened beside each other; held against all that can be added and subtracted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedage.common.privacy.site_sets import SiteSet, sites_alone


def a_set(sites: str, *, agreed: str = "", minimum: int = 3) -> SiteSet:
    return SiteSet(sites=frozenset(sites), agreed=frozenset(agreed), minimum=minimum)


@pytest.mark.parametrize(
    ("before", "now", "alone"),
    [
        (a_set("abc"), a_set("abc"), ""),
        (a_set("abc"), a_set("def"), ""),
        (a_set("abcd"), a_set("abc"), "d"),
        (a_set("abc"), a_set("abcd"), "d"),
        (a_set("abcdef"), a_set("abcd"), "ef"),
        (a_set("abcdefg"), a_set("abcd"), ""),
        (a_set("abcd"), a_set("abcdefg"), ""),
        # Half of them could be opened twice, and the two halves leave one over.
        (a_set("abcdefg"), a_set("abc"), "defg"),
        (a_set("abcd", agreed="d"), a_set("abc"), ""),
        (a_set("abc"), a_set("abcd", agreed="d"), ""),
        (a_set("abcd"), a_set("abc", agreed="abc"), "d"),
        (a_set("abcd", agreed="d"), a_set("abce"), "e"),
        # Without those who have agreed the others would be too few.
        (a_set("abcd", agreed="cd"), a_set("abc"), "d"),
        # Those who have agreed do not make up the number: each of them may be found by itself.
        (a_set("abcdefg", agreed="fg"), a_set("abcd"), "e"),
        (a_set("abcdefg", minimum=4), a_set("abcd", minimum=3), "efg"),
    ],
)
def test_what_would_be_found_by_subtraction(before: SiteSet, now: SiteSet, alone: str) -> None:
    assert sites_alone(now, [before]) == set(alone)


@pytest.mark.parametrize(("agreeing", "seed"), [("", 0), ("", 1), ("ab", 2), ("a", 3), ("abc", 4), ("abc", 5)])
def test_no_combination_of_what_is_opened_tells_of_few(agreeing: str, seed: int) -> None:
    """Sets are asked for at random, each site keeps account of its own; whatever is opened is then solved for."""
    sites, minimum, rng = "abcdefghijklmnop", 3, np.random.default_rng(seed)
    accounts: dict[str, list[SiteSet]] = {site: [] for site in sites}
    opened: list[SiteSet] = []
    for _ in range(1500):
        base = opened[rng.integers(len(opened))].sites if opened else frozenset(sites[:8])
        others = frozenset(rng.choice(list(sites), size=rng.integers(1, 9), replace=False).tolist())
        chosen = "".join((base - others, base | others, base ^ others, others, others - base)[rng.integers(5)])
        now = a_set(chosen, agreed="".join(set(chosen) & set(agreeing)), minimum=minimum)
        if len(chosen) < minimum or any(sites_alone(now, accounts[site]) for site in chosen):
            continue
        opened.append(now)
        for site in chosen:
            accounts[site].append(now)
    assert len({one.sites for one in opened}) >= 3
    rows = np.array([[site in one.sites for site in sites] for one in opened], dtype=float)
    found = frozenset[str]().union(*(one.free for one in opened))
    free = np.array([[site == one for site in sites] for one in sorted(found)], dtype=float).reshape(-1, len(sites))
    for few in range(1, minimum):
        for group in itertools.combinations(set(sites) - set(agreeing), few):
            for signs in itertools.product((1.0, -1.0), repeat=few - 1):
                wanted = np.zeros(len(sites))
                wanted[[sites.index(site) for site in group]] = (1.0, *signs)
                known = np.vstack([rows, free])
                rest = wanted - known.T @ np.linalg.lstsq(known.T, wanted, rcond=None)[0]
                assert np.linalg.norm(rest) > 1e-6, f"{group} {signs} follow from {len(opened)} sums"
