"""A site whose administrator decides while the coordinator waits is asked again, and others are not kept waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message

from fedage.client.audit import Direction, Kind
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import DESCRIBE
from fedage.server.cli.follow import event_text
from fedage.server.record.events import EventLog, read_events
from fedage.server.record.heads import Heads
from fedage.server.sites import session as session_module
from fedage.server.sites.incoming import CampaignFailed
from fedage.server.sites.session import Session
from fedage.server.superlink.grid import PollingGrid
from tests.client.hospital import CAMPAIGN, Hospital, Template
from tests.machinery import InProcessGrid
from tests.server.test_real_hospitals import hospital

NAMED = CAMPAIGN.replace("seed = 5", 'seed = 5\nsites = ["a", "b"]\nwait_s = {wait_s}\napproval_wait_s = {wait_s}')
UNNAMED = CAMPAIGN.replace("seed = 5", "seed = 5\nwait_s = {wait_s}\napproval_wait_s = {wait_s}").replace(
    "rounds = 2", "rounds = 2\nquorum = 1"
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REOFFER_S", 0.4)
    monkeypatch.setattr(session_module, "_LATECOMERS_S", 1.5)


@pytest.fixture
def pair(template: Template, tmp_path: Path) -> list[Hospital]:
    return [hospital(template, tmp_path, name, approved=False) for name in "ab"]


class Offers:
    """Calls what a site's administrator does between two of its offers."""

    def __init__(self, node: int, *, before: int, do: Callable[[], object]) -> None:
        self.node, self.before, self.do = node, before, do
        self.times: list[float] = []

    def __call__(self, message: Message, node: int) -> Message:
        if node == self.node and message.metadata.message_type == DESCRIBE:
            self.times.append(time.monotonic())
            if len(self.times) == self.before:
                self.do()
        return message


def describe(
    folder: Path, members: list[Hospital], text: str, meddle: Offers | None = None
) -> tuple[Session, set[str]]:
    grid = InProcessGrid([member.site for member in members], meddle=meddle)
    events = EventLog(folder / "events.jsonl")
    session = Session(
        PollingGrid(grid, poll_s=0.01),
        parse_campaign(text),
        "r1",
        members[0].key,
        events,
        grid.names,
        Heads(folder / "heads"),
    )
    try:
        return session, set(session.describe())
    finally:
        events.close()


def followed(folder: Path) -> list[str]:
    return [line[10:] for line in map(event_text, read_events(folder / "events.jsonl")) if line]


def test_a_site_that_approves_while_the_coordinator_waits_takes_part(pair: list[Hospital], tmp_path: Path) -> None:
    campaign = parse_campaign(text := NAMED.format(wait_s=60))
    a, b = pair
    a.site.rules.approve(campaign)
    offers = Offers(2, before=3, do=lambda: b.site.rules.approve(campaign))
    began = time.monotonic()
    session, found = describe(tmp_path, pair, text, offers)
    assert found == {"a", "b"}
    assert (session.refused, session.troubles, session.attendance.undecided) == ({}, {}, {})
    assert len(offers.times) == 3
    assert time.monotonic() - began < 20
    online, waiting = followed(tmp_path)
    assert online == "2 of 2 sites online"
    assert waiting.startswith("waiting for b to approve, until 20")
    assert waiting.endswith(f" UTC at most: fedage site approve {campaign.digest[:16]}")
    # Each offer is one line in and one out, and the site that had answered was not asked again.
    for member, count in ((a, 1), (b, 3)):
        lines = [line.entry.direction for line in member.lines() if line.entry.kind is Kind.DESCRIBE]
        assert lines == [Direction.IN, Direction.OUT] * count
    b.must_be_intact()


def test_offers_to_the_undecided_end_with_the_wait_and_name_the_rule(pair: list[Hospital], tmp_path: Path) -> None:
    pair[0].site.rules.approve(parse_campaign(text := NAMED.format(wait_s=1.5)))
    offers = Offers(2, before=99, do=lambda: None)
    began = time.monotonic()
    with pytest.raises(CampaignFailed, match=r"1 site can train, the quorum is 2 \(b: not-approved: this site has not"):
        describe(tmp_path, pair, text, offers)
    assert 1.5 <= time.monotonic() - began < 10
    assert 2 <= len(offers.times) <= 5
    lines = followed(tmp_path)
    assert len(lines) == 3
    assert lines[2].startswith("b does not take part: refused (not-approved): ")


def test_a_site_that_approves_in_the_last_moment_is_not_too_late(
    pair: list[Hospital], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_REOFFER_S", 50.0)
    campaign = parse_campaign(text := NAMED.format(wait_s=1))
    pair[0].site.rules.approve(campaign)
    offers = Offers(2, before=2, do=lambda: pair[1].site.rules.approve(campaign))
    assert describe(tmp_path, pair, text, offers)[1] == {"a", "b"}
    assert len(offers.times) == 2


def test_nobody_waits_for_a_site_that_says_no(pair: list[Hospital], tmp_path: Path) -> None:
    campaign = parse_campaign(text := NAMED.format(wait_s=60).replace("rounds = 2", "rounds = 2\nquorum = 1"))
    pair[0].site.rules.approve(campaign)
    offers = Offers(2, before=2, do=lambda: pair[1].site.rules.decline(campaign.digest))
    began = time.monotonic()
    session, found = describe(tmp_path, pair, text, offers)
    assert found == {"a"}
    assert session.refused == {"b": "declined: this site's administrator declined this campaign"}
    assert len(offers.times) == 2
    assert time.monotonic() - began < 20


def test_a_quorum_of_unnamed_sites_waits_for_the_undecided_no_longer_than_for_latecomers(
    pair: list[Hospital], tmp_path: Path
) -> None:
    pair[0].site.rules.approve(parse_campaign(text := UNNAMED.format(wait_s=60)))
    began = time.monotonic()
    session, found = describe(tmp_path, pair, text)
    assert found == {"a"}
    assert set(session.refused) == {"b"}
    assert time.monotonic() - began < 8


def test_offers_become_rarer(pair: list[Hospital], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_REOFFER_S", 0.1)
    monkeypatch.setattr(session_module, "_REOFFER_SHARE", 1.0)
    pair[0].site.rules.approve(parse_campaign(text := NAMED.format(wait_s=4)))
    offers = Offers(2, before=99, do=lambda: None)
    with pytest.raises(CampaignFailed):
        describe(tmp_path, pair, text, offers)
    assert len(offers.times) <= 7  # the pauses double: 0.3, 0.6, … s; every 0.3 s would be 13


def test_the_offer_does_not_wait_for_who_is_offline(
    pair: list[Hospital], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its administrator needs the time to read it."""
    monkeypatch.setattr(session_module, "_GATHER_S", 0.5)
    campaign = parse_campaign(text := NAMED.format(wait_s=60).replace('["a", "b"]', '["a", "b", "c"]'))
    third = Offers(2, before=2, do=lambda: None)
    pair[0].site.rules.approve(campaign)

    def ends_the_wait() -> None:
        raise KeyboardInterrupt

    third.do = ends_the_wait
    with pytest.raises(KeyboardInterrupt):
        describe(tmp_path, pair, text, third)
    assert followed(tmp_path)[0] == "2 of 3 sites online"
    assert followed(tmp_path)[1].startswith("waiting for b to approve")
    assert pair[1].site.rules.approvals.listed() == [(campaign.digest, "offered")]
