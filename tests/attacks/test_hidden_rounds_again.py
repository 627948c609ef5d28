"""One round opened again over sites that differ by one: the difference of the two sums is that one's update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedage.client.consent.accounts.sum_keys import SumKeyStore

ASKED = "what was asked of the model"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SumKeyStore]:
    made = SumKeyStore(tmp_path)
    made.begin("run", "epoch", private=b"p")
    made.keep_keys("run", "epoch", told="{}", private=[b"k"] * 8)
    yield made
    made.close()


def opened(store: SumKeyStore, number: int, *digests: str, sites: str) -> dict[str, str]:
    store.mask("run", "epoch", number, masked={"number": number})
    told = {"update": (list(digests), list(sites))}
    return store.open_once("run", "epoch", number, opening=f"{number}", statistics=told)


@pytest.mark.parametrize("again", ["abc", "abcde", "bcd", "abcdefg", "aefg"])
def test_another_last_digit_of_the_update_makes_no_other_sum(store: SumKeyStore, again: str) -> None:
    """As where the site's GPU adds up in another order each time."""
    assert opened(store, 0, "first digits", ASKED, sites="abcd") == {}
    assert "opened before over other sites" in opened(store, 1, "second digits", ASKED, sites=again)["update"]


def test_another_question_makes_no_other_sum_of_the_same_update(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", ASKED, sites="abcd") == {}
    assert "update" in opened(store, 1, "digits", "asked under another name", sites="abc")


def test_the_same_sites_and_other_rounds_are_opened(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", ASKED, sites="abcd") == {}
    assert opened(store, 1, "other digits", ASKED, sites="abcd") == {}
    assert opened(store, 2, "of round 2", "asked in round 2", sites="abc") == {}


def test_what_was_refused_is_not_on_account(store: SumKeyStore) -> None:
    assert opened(store, 0, "digits", ASKED, sites="abcd") == {}
    assert opened(store, 1, "refused", ASKED, sites="abc") != {}
    assert opened(store, 2, "refused", "asked of another model", sites="abcd") == {}
