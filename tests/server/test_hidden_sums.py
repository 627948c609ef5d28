"""Hidden sums: what they come to, who may leave when, what is never opened, and who is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.protocol.messages import TRAIN
from fedage.common.protocol.secure import MASKED, UPDATE
from fedage.common.statistics.cohort import Cohort
from fedage.server.record.journal import Journal
from fedage.server.record.results import Results
from fedage.server.sites.session import CampaignFailed
from tests.machinery import InProcessGrid, MemorySite
from tests.server.hidden import ONE, TWO, Answers, Sites, change, garble, payload_of, silent, survival_site, told_in
from tests.server.test_conduct_folds import NETWORK, TABLE, run, tables

PARTS = "\n[validation.fractions]\ntrain = 0.5\nvalidation = 0.25\ntest = 0.25\n"


def hidden(text: str) -> str:
    return text.replace(
        "minimum_count = 5\n", "minimum_count = 5\nsecure_aggregation = true\nminimum_sites = 2\n"
    ).replace("quorum = 2", "quorum = 2")


def test_a_hidden_sum_is_the_sum_and_each_key_serves_once(tmp_path: Path) -> None:
    sites = Sites(tmp_path, names="abc")
    for centre in (None, 0.25, -3.0):
        summed = sites.ask(ONE, centre=centre)
        assert summed.refused == {}
        assert summed.contributors[ONE] == ("a", "b", "c")
        np.testing.assert_allclose(
            sites.total(summed, ONE, centre=centre), sites.expected(ONE, "abc", centre=centre), rtol=1e-14, atol=1e-12
        )
        counts = sites.total(summed, ONE, centre=centre)[:4]
        assert np.array_equal(counts, sites.expected(ONE, "abc", centre=centre)[:4])
    assert sites.troubles() == "{}"


@pytest.mark.parametrize("names", ["abc", pytest.param("abcdef", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["channels", "keys", "mask", "masked"])
def test_a_site_that_leaves_costs_its_own_sums_at_most(tmp_path: Path, names: str, stage: str) -> None:
    sites = Sites(tmp_path, names=names, minimum_sites=2)
    if stage == "masked":
        leave_once_masked(sites, "b")
    else:
        sites.grid._meddle = silent("b", stage=stage, names=sites.grid.names)
    summed = sites.ask(ONE)
    there = names.replace("b", "")
    assert summed.contributors[ONE] == tuple(there)
    np.testing.assert_allclose(sites.total(summed, ONE), sites.expected(ONE, there), rtol=1e-14, atol=1e-12)
    assert summed.retries == (stage == "masked")


def leave_once_masked(sites: Sites, name: str) -> None:
    """The site goes offline when the coordinator has its masked sums."""

    def see(site: str, reply: Message) -> None:
        if site == name and MASKED + ONE in payload_of(reply):
            sites.grid.offline |= {node for node, other in sites.grid.names.items() if other == name}

    sites.grid.see = see


def test_a_site_that_does_not_let_it_be_opened_is_waited_for(tmp_path: Path) -> None:
    """Without its word nothing is opened, whatever the others tell; what they have told is of this set for good."""
    sites = Sites(tmp_path, names="abcde", minimum_sites=2)
    sites.grid._meddle = silent("b", stage="open", names=sites.grid.names)
    assert sites.ask(ONE).refused[ONE] == "b did not let it be opened"
    sites.grid._meddle = None
    assert "those of b would be seen" in sites.ask(ONE, sites="acde").refused[ONE]
    assert sites.ask(ONE).contributors[ONE] == tuple("abcde")


def test_too_few_to_open_or_too_few_in_a_sum_open_nothing(tmp_path: Path) -> None:
    sites = Sites(tmp_path / "one", names="abc", minimum_sites=3)
    sites.grid._meddle = silent("b", stage="mask", names=sites.grid.names)
    assert "fewer than privacy.minimum_sites = 3" in sites.ask(ONE).refused[ONE]
    # A coordinator that goes on all the same: every site refuses.
    sites = Sites(tmp_path / "other", names="abcd", minimum_sites=4)
    object.__setattr__(sites.campaign.privacy, "minimum_sites", 2)
    sites.grid._meddle = silent("b", stage="mask", names=sites.grid.names)
    summed = sites.ask(ONE)
    assert summed.totals == {}
    assert ONE in summed.refused
    assert "a sum of fewer than privacy.minimum_sites = 4 sites is neither" in "".join(sites.session.troubles["a"])


def test_two_sums_whose_sites_differ_by_one_are_not_both_opened(tmp_path: Path) -> None:
    """In one run, in another run, and with a site more or less."""
    sites = Sites(tmp_path, names="abcd")
    assert ONE in sites.ask(ONE, sites="abc").totals
    for other, whose in (("abcd", "d"), ("ab", "c")):
        for centre in (None, 1e-12, 0.5):
            summed = sites.ask(ONE, sites=other, centre=centre)
            assert summed.totals == {}
            assert f"by subtraction those of {whose} would be seen" in summed.refused[ONE]
    assert ONE in sites.ask(ONE, sites="abc").totals, "the same sum again tells nothing new"
    assert sites.ask(TWO, sites="abcd").totals == {}, "nor another analysis of the same patients"
    sites.run = "r2"
    sites.start()
    assert sites.ask(ONE, sites="abcd").totals == {}


def test_a_site_that_masks_with_garbage_is_named(tmp_path: Path) -> None:
    sites = Sites(tmp_path, names="abc")
    sites.grid.see = garble(sites.members[1], ONE, rng=np.random.default_rng(3))
    summed = sites.ask(ONE)
    assert summed.totals == {}
    assert summed.refused[ONE] == "masked otherwise than agreed by b"
    assert "not masked as agreed" in "".join(sites.session.troubles["b"])
    assert {"a", "c"} & set(sites.session.troubles) == set()


@pytest.mark.parametrize("to", ["a", "acd", "abcd"])
def test_a_site_whose_shares_cannot_be_read_is_left_out_and_named(tmp_path: Path, to: str) -> None:
    """The others have told nothing yet, so that the same sum is opened without it."""
    sites = Sites(tmp_path, names="abcd", minimum_sites=3)

    def see(site: str, reply: Message) -> None:
        told = told_in(reply)
        if site == "b" and "receipt" in told:
            change(reply, told={**told, "shares": {**told["shares"], **dict.fromkeys(to, "garbage")}})

    sites.grid.see = see
    summed = sites.ask(ONE)
    if to == "a":  # c and d could read theirs, and have told what they know of a sum over all four
        assert "b" in summed.refused[ONE]
        assert summed.totals == {}
    else:
        assert summed.contributors[ONE] == ("a", "c", "d")
        np.testing.assert_allclose(sites.total(summed, ONE), sites.expected(ONE, "acd"), rtol=1e-14, atol=1e-12)
    assert "its shares could not be read" in "".join(sites.session.troubles["b"])


@pytest.mark.parametrize("what", ["own share", "shares", "checks"])
def test_a_site_that_helps_to_open_with_garbage_is_named(tmp_path: Path, what: str) -> None:
    sites = Sites(tmp_path, names="abcde")

    def see(site: str, reply: Message) -> None:
        told = told_in(reply)
        if site == "d" and "missing" in told and what in ("own share", "shares"):
            chosen = {"d"} if what == "own share" else set(told["shares"])
            odd = {s: {ONE: told["shares"][s][ONE][:8] + "ab" * 48} for s in chosen}
            change(reply, told={**told, "shares": {**told["shares"], **odd}})
        if site == "d" and "checks" in told and what == "checks":
            change(reply, told={**told, "checks": {ONE: dict.fromkeys(told["checks"][ONE], 7)}})

    sites.grid.see = see
    summed = sites.ask(ONE)
    assert "d" in sites.session.troubles
    if what == "checks":
        assert summed.totals == {}
    else:
        np.testing.assert_allclose(sites.total(summed, ONE), sites.expected(ONE, "abcde"), rtol=1e-14, atol=1e-12)


def test_steps_that_a_site_withholds_are_opened_over_the_others_only(tmp_path: Path) -> None:
    members = [survival_site(name, tmp_path, count=count) for name, count in (("a", 80), ("b", 12), ("c", 90))]
    sites = Sites(tmp_path, members=members)
    summed = sites.ask(ONE, TWO)
    for name in (ONE, TWO):
        assert summed.contributors[name] == ("a", "c")
        np.testing.assert_allclose(sites.total(summed, name), sites.expected(name, "ac"), rtol=1e-14, atol=1e-12)


def test_a_resumed_run_opens_the_same_sum_from_its_journal(tmp_path: Path) -> None:
    """The journal has the sum of masked words, receipts, seeds and shares; no site is asked for anything again."""
    sites = Sites(tmp_path, names="abc", journal=Journal(tmp_path / "journal"))
    before = sites.ask(ONE)
    total = sites.total(before, ONE)
    sites.journal = Journal(tmp_path / "journal")
    sites.grid._meddle = lambda *_: None
    sites.start()
    again = sites.ask(ONE)
    assert again.contributors == before.contributors
    assert np.array_equal(sites.total(again, ONE), total)


def results_of(found: Results) -> dict[str, object]:
    return {step: each.result and each.result.model_dump() for step, each in found.analyses.items()}


def must_be_near(one: object, other: object, *, within: float) -> None:
    """The same structure, numbers alike to a relative bound, everything else the same."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            must_be_near(one[key], other[key], within=within)
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            must_be_near(a, b, within=within)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=within, abs=within)
    else:
        assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("text", [NETWORK + PARTS, TABLE + PARTS], ids=["network", "ridge"])
def test_a_campaign_with_hidden_sums_comes_to_what_it_does_with_bare_ones(tmp_path: Path, text: str) -> None:
    bare = run(tmp_path / "bare", text, tables(tmp_path / "one", holes=False))
    masked = run(tmp_path / "hidden", hidden(text), tables(tmp_path / "other", holes=False))
    assert masked.run.status == "finished"
    one, other = (load_file(tmp_path / name / "run" / "model.safetensors") for name in ("bare", "hidden"))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9)
    must_be_near(results_of(masked), results_of(bare), within=1e-6)
    for a, b in zip(bare.rounds, masked.rounds, strict=True):
        assert (a.sites, a.validation_mae_years) == (b.sites, pytest.approx(b.validation_mae_years))
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert b.validation_mae_years_by_site == {}
    assert all(not each.by_site for each in masked.analyses.values())
    assert any(each.by_site for each in bare.analyses.values())


@pytest.mark.slow
def test_rounds_do_not_go_on_without_a_site_that_leaves(tmp_path: Path) -> None:
    """The next round's model hardly differs: over one site fewer it would tell that site's update."""
    grid: list[InProcessGrid] = []
    seen = 0

    def meddle(message: Message, node: int) -> Message | None:
        nonlocal seen
        seen += grid[0].names[node] == "c" and message.metadata.message_type == TRAIN
        return None if grid[0].names[node] == "c" and seen >= 2 else message

    grid.append(InProcessGrid(tables(tmp_path, holes=False), meddle=meddle))
    with pytest.raises(CampaignFailed, match="opened without c, it would tell the sums of c alone") as failed:
        run(tmp_path, hidden(NETWORK + PARTS), [], grid=grid[0])
    assert "round 2" in str(failed.value)
    assert "c: train (round 2): no answer" in str(failed.value)


@pytest.mark.slow
def test_a_round_with_a_garbled_update_ends_the_run_and_names_the_site(tmp_path: Path) -> None:
    members = tables(tmp_path, holes=False)
    grid = Answers(members)
    grid.see = garble(members[1], UPDATE, rng=np.random.default_rng(3))
    with pytest.raises(CampaignFailed, match="masked otherwise than agreed by b"):
        run(tmp_path, hidden(NETWORK + PARTS), [], grid=grid)


def test_sites_agree_on_one_column_without_those_that_lack_it_and_on_another_with_them(tmp_path: Path) -> None:
    """A yes to one column is no other yes, though both are the same numbers."""
    members = [survival_site(name, tmp_path, count=80) for name in "abcd"]
    columns = members[3].found.cohort.columns
    without = Cohort({name: column for name, column in columns.items() if name != "is_male"})
    members[3] = MemorySite("d", SiteCohort(cohort=without, samples=None), tmp_path)
    sites = Sites(tmp_path, members=members, minimum_sites=3)
    first = sites.ask_at({ONE: {}})
    second = sites.ask_at({TWO: {}})
    assert first.contributors[ONE] == tuple("abcd")
    assert second.contributors[TWO] == tuple("abc")
    assert ONE in first.totals
    assert TWO in second.totals
