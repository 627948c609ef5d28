"""A coordinator that asks nearly the same again over one hospital fewer, to find that one's sums by subtraction.

Against hospitals with real homes, keys and policies; it forgets what it knows to be refused, and asks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.client.consent.accounts.sum_keys import SumKeyStore
from fedage.client.inbox.deployed import DeployedSite
from fedage.common.privacy.masked_statistic import summed_statistic
from fedage.common.protocol.secure import TellOpen, own_seed
from fedage.server.sites import opening, secure_sums
from fedage.server.sites.opening import Opening
from tests.attacks.test_hidden_sums_attacked import NAMES, STEP, Hospitals, Made, hospitals
from tests.server.hidden import ONE, TWO, Sites, iterate_of

__all__ = ["hospitals"]


def policy(site: DeployedSite, *lines: str) -> None:
    (site.rules.home / "policy.toml").write_text("\n".join(["[disclosure]", *lines]))


def over(made: Hospitals, names: tuple[str, ...]) -> secure_sums.Summed:
    return made.ask_at({STEP: {}}, sites=names)


@pytest.mark.parametrize(("less", "hair"), [("abc", 0.0), ("abcde", 1e-12), ("bcd", 1e-3), ("abd", 2.0)])
def test_a_hair_makes_no_other_question(less: str, hair: float, tmp_path: Path) -> None:
    sites = Sites(tmp_path, names="abcde", minimum_sites=2)
    first = sites.ask(ONE, sites="abcd", centre=0.5)
    assert first.contributors[ONE] == tuple("abcd")
    again = sites.ask(ONE, sites=less, centre=0.5 + hair)
    assert again.totals == {}
    assert "by subtraction those of" in again.refused[ONE]
    # Two analyses have sums in common, such as who is at risk.
    assert sites.ask(TWO, sites=less, centre=0.5).totals == {}
    # Over the same sites both are answered, whatever was tried in between.
    assert ONE in sites.ask(ONE, sites="abcd", centre=0.5 + hair).totals
    assert TWO in sites.ask(TWO, sites="abcd", centre=0.5).totals


def test_the_account_is_kept_over_runs_and_files(hospitals: Made) -> None:
    made = hospitals()
    assert STEP in over(made, NAMES).totals
    made.run, made.text = "r2", made.text.replace("penalty = 4.0", "penalty = 4.000001")
    Sites.__post_init__(made)
    for names in (("north", "south"), ("south", "west")):
        summed = over(made, names)
        assert summed.totals == {}
        assert "approve it with --accept-other-sites" in summed.refused[STEP]
    assert STEP in over(made, NAMES).totals


@pytest.mark.parametrize("members", ["abdef", "abdefg"])
def test_the_others_alone_open_no_sum_that_a_site_did_not_agree_to(
    members: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than half of a sum's sites have never been asked before, and tell all they have."""
    sites = Sites(tmp_path, names="abcdefg", minimum_sites=2)
    assert ONE in sites.ask(ONE, sites="abc").totals
    heard: list[tuple[dict[str, TellOpen], Opening]] = []
    real = secure_sums.opened_totals

    def opened(known: Opening, sums: dict[str, np.ndarray]) -> object:
        heard.append((dict(known.told), known))
        bare = {block: np.array(rows) for block, rows in sums.items()}
        # As if nobody had refused, and without what a and b alone know.
        for told in known.told.values():
            told.refused.clear()
        seeds = {site: opening._seed(known, opening._Found(), site, ONE) for site in known.receipts}
        assert all(seeds.values()), "the shares of the others suffice"
        for site, seed in seeds.items():
            own = known.told[site].own.get(ONE, "")
            secure_sums.ring.add_mask(bare[ONE], own_seed(seed or b"", own), sign=-1)
        layout = sites.steps[ONE].layout(iterate_of(0.5))
        got = summed_statistic(layout, bare[ONE], sites=len(members))
        assert not np.allclose(got, sites.expected(ONE, members, centre=0.5), rtol=1e-3)
        return real(known, sums)

    monkeypatch.setattr(secure_sums, "opened_totals", opened)
    assert sites.ask(ONE, sites=members, centre=0.5).totals == {}
    told = heard[0][0]
    assert {site for site in told if told[site].own} == set(members) - set("ab")


def test_a_hospital_that_agrees_may_be_left_out_and_no_other(hospitals: Made) -> None:
    made = hospitals()
    policy(made.members[2], "may_be_left_out = true")
    assert STEP in over(made, NAMES).totals
    assert "by subtraction those of" in over(made, ("south", "west")).refused[STEP]
    assert STEP in over(made, ("north", "south")).totals
    policy(made.members[2], "may_be_left_out = false")
    assert STEP not in over(made, NAMES).totals, "with it again, and it has not agreed"


def test_administrators_may_accept_other_sites_for_a_campaign(hospitals: Made) -> None:
    made = hospitals()
    assert STEP in over(made, NAMES).totals
    for site in made.members[:2]:
        assert over(made, NAMES[:2]).totals == {}, "each of them has to"
        store = SumKeyStore(site.rules.home)
        store.accept(made.campaign.digest, other_sites=True)
        store.close()
    assert STEP in over(made, NAMES[:2]).totals
    store = SumKeyStore(made.members[0].rules.home)
    store.accept(made.campaign.digest, other_sites=False)
    store.close()
    assert STEP in over(made, NAMES[:2]).totals, "the account has begun anew"
    assert STEP not in over(made, NAMES).totals
