"""Sums over several sets of sites that each differ by enough, added and subtracted until one site is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.server.hidden import ONE, Sites


@pytest.mark.parametrize(
    ("names", "sets", "signs"),
    [
        ("abcde", ("abc", "ade", "bcde"), (1, 1, -1)),
        ("abcdefg", ("abcd", "aefg", "bcdefg"), (1, 1, -1)),
        ("abcdefg", ("abc", "ade", "afg", "bcdefg"), (1, 1, 1, -1)),
        ("abcdef", ("abcdef", "bcd", "aef"), (1, -1, 0)),
    ],
)
def test_no_combination_of_sets_is_one_sites(
    names: str, sets: tuple[str, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    sites = Sites(tmp_path, names=names, minimum_sites=3)
    summed = [sites.ask(ONE, sites=each) for each in sets]
    opened = [each for each, one in zip(sets, summed, strict=True) if ONE in one.totals]
    assert opened, "the first set is answered"
    seen: set[str] = set()
    for each in opened:
        assert not seen & set(each), "a site's sums are in one opening only"
        seen |= set(each)
    if len(opened) == len(sets):
        left = sum(sign * sites.total(one, ONE) for sign, one in zip(signs, summed, strict=True))
        np.testing.assert_allclose(left / 2, sites.expected(ONE, "a"))
        pytest.fail("one site's sums are left over")


def test_the_same_set_is_opened_again_and_sets_apart_too(tmp_path: Path) -> None:
    sites = Sites(tmp_path, names="abcdef", minimum_sites=3)
    assert ONE in sites.ask(ONE, sites="abc").totals
    assert ONE in sites.ask(ONE, sites="abc").totals
    assert ONE in sites.ask(ONE, sites="def").totals
    assert sites.ask(ONE, sites="abcde", centre=0.5).totals == {}
