"""Results by site beside hidden sums: told by sites that may, unless too few others would be left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.client.inbox.secure_stages import _may_tell
from fedage.common.presentation.participation import hidden_note
from fedage.common.protocol.secure import Receipt, set_of
from tests.server.test_conduct_folds import TABLE, run, tables
from tests.server.test_hidden_sums import PARTS, hidden, must_be_near, results_of


def receipt(site: str, *, tells: bool, contributes: bool = True) -> Receipt:
    return Receipt(
        site=site,
        digest="0" * 64,
        run="r1",
        epoch="0" * 32,
        number=0,
        keys="0" * 64,
        question="0" * 64,
        contributes={"metrics": contributes},
        checks={"metrics": 0},
        seeds={"metrics": "0" * 64},
        tells=tells,
    )


@pytest.mark.parametrize(
    ("telling", "silent", "may"),
    [("a", "bcd", True), ("ab", "cd", False), ("abc", "d", False), ("abcd", "", True), ("abc", "", True)],
)
def test_a_site_tells_its_own_unless_those_of_few_others_follow(telling: str, silent: str, may: bool) -> None:
    receipts = [*(receipt(s, tells=True) for s in telling), *(receipt(s, tells=False) for s in silent)]
    receipts.append(receipt("z", tells=False, contributes=False))  # of whose zeros nothing follows
    sites = set_of("metrics", receipts, noised=False, minimum=3)
    assert _may_tell(sites, "metrics", receipts) == may


@pytest.mark.slow
def test_what_sites_tell_is_what_they_tell_without_secure_aggregation(tmp_path: Path) -> None:
    """Simulated sites tell where the file asks for it."""
    bare = run(tmp_path / "bare", TABLE + PARTS, tables(tmp_path / "one", holes=False))
    asking = hidden(TABLE + PARTS).replace("minimum_sites = 2\n", "minimum_sites = 2\nresults_by_site = true\n")
    told = run(tmp_path / "told", asking, tables(tmp_path / "other", holes=False))
    must_be_near(results_of(told), results_of(bare), within=1e-6)
    by_site = {step: each.by_site for step, each in told.analyses.items() if each.by_site}
    assert by_site
    for step, each in by_site.items():
        theirs = bare.analyses[step].by_site
        assert each.keys() == theirs.keys()
        for site in each:
            must_be_near(each[site].model_dump(), theirs[site].model_dump(), within=1e-6)
    assert hidden_note(told).startswith("By site: a, b and c told theirs")
    assert any("but by sites whose policy has tells_own_results" in note for note in told.notes)
