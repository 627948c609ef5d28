"""One round opened again over sites that differ by one: the difference of the two sums is that one's update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedage.client.consent.accounts.sum_keys import Judged, SumKeyStore
from fedage.common.privacy.site_sets import SiteSet

TRAINING = "updates of an estimator on a data set"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SumKeyStore]:
    made = SumKeyStore(tmp_path)
    made.begin("run", "epoch", private=b"p")
    made.keep_keys("run", "epoch", told="{}", private=[b"k"] * 8)
    yield made
    made.close()


def opened(store: SumKeyStore, number: int, *families: str, sites: str) -> dict[str, frozenset[str]]:
    return opened_over(store, number, families, SiteSet(sites=frozenset(sites), minimum=3))


def opened_over(
    store: SumKeyStore, number: int, families: Sequence[str], now: SiteSet, *, noised: bool = False
) -> dict[str, frozenset[str]]:
    store.mask("run", "epoch", number, masked={"number": number})
    told = {"update": [Judged(family, now, is_noted=not noised) for family in families]}
    return store.open_once("run", "epoch", number, opening=f"{number}", families=told)


@pytest.mark.parametrize(
    ("again", "alone"), [("abc", "d"), ("abcde", "e"), ("bcd", "a"), ("abcdef", "ef"), ("aefg", "a"), ("bcde", "ae")]
)
def test_another_update_makes_no_other_sum(store: SumKeyStore, again: str, alone: str) -> None:
    """Of the next round, or where the site's GPU adds up in another order each time."""
    assert opened(store, 0, "first digits", TRAINING, sites="abcd") == {}
    assert opened(store, 1, "second digits", TRAINING, sites=again)["update"] == set(alone)


def test_another_question_makes_no_other_sum_of_the_same_update(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", TRAINING, sites="abcd") == {}
    assert "update" in opened(store, 1, "digits", "asked under another name", sites="abc")


def test_the_same_sites_and_other_families_are_opened(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", TRAINING, sites="abcd") == {}
    assert opened(store, 1, "other digits", TRAINING, sites="abcd") == {}
    assert opened(store, 2, "of another estimator", "updates of another estimator", sites="abc") == {}
    assert opened(store, 3, "with three sites more", TRAINING, sites="abcdefg") == {}


def test_what_was_refused_is_not_on_account(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", TRAINING, sites="abcd") == {}
    assert opened(store, 1, "refused", TRAINING, sites="abc") != {}
    assert opened(store, 2, "refused", "asked of another model", sites="abcd") == {}


def test_what_an_earlier_release_has_opened_counts(store: SumKeyStore) -> None:
    with store._file.transaction() as connection:
        connection.execute('INSERT INTO openings VALUES (\'digits\', \'["a", "b", "c", "d"]\')')
    assert opened(store, 0, "digits", TRAINING, sites="abc")["update"] == {"d"}
    assert opened(store, 1, "digits", TRAINING, sites="abcd") == {}


def test_rounds_with_noise_between_do_not_free_the_bare_ones(store: SumKeyStore) -> None:
    """Of updates with noise everybody may be left out; of the bare ones before and after nobody."""
    whole, few = frozenset("abc"), frozenset("ab")
    bare = [SiteSet(sites=sites, minimum=2) for sites in (whole, few)]
    noised = [SiteSet(sites=sites, agreed=sites, minimum=2) for sites in (whole, few)]
    assert opened_over(store, 0, [TRAINING], bare[0]) == {}
    assert opened_over(store, 1, [TRAINING], noised[0], noised=True) == {}
    assert opened_over(store, 2, [TRAINING], bare[1]) == {"update": {"c"}}
    assert opened_over(store, 3, [TRAINING], noised[1], noised=True) == {"update": {"c"}}
