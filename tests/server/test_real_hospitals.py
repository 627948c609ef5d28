"""Campaigns over real hospitals' homes: policy, approvals, nonces, audit logs and signatures are real."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict

from fedage.client.audit import Damage, Kind, Outcome, read_heads, verify
from fedage.client.audit.log import LOG_FILE
from fedage.client.inbox import handlers
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.record.results import Results, SiteRecord, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.client.hospital import CAMPAIGN, POLICY, Hospital, Template
from tests.machinery import InProcessGrid

NOT_TRAINING = '[requests]\nkinds = ["describe", "evaluate", "analyse"]\n'
AT_NIGHT = '[hours]\ntime_zone = "UTC"\nmonday = ["20:00-06:00"]\n'
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def hospital(template: Template, folder: Path, name: str, *, policy: str = "", approved: bool = True) -> Hospital:
    made = template.copy(folder / name, approved=False)
    settings = made.home / "site.toml"
    settings.write_text(settings.read_text().replace('"harbour"', f'"{name}"'))
    made.policy(policy + POLICY)
    made.options = {"now": lambda: NOON}
    made.start()
    if approved:
        made.site.rules.approve(made.campaign)
    return made


class Retrying(InProcessGrid):
    """Delivers every message twice, as Flower does when a node died after it answered; the second answer counts."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        outgoing = list(messages)
        ids = super().push_messages(outgoing)
        for identity, message in zip(ids, outgoing, strict=True):
            node = message.metadata.dst_node_id
            again = handlers.app(message, Context(1, node, {"site": self.names[node]}, RecordDict(), {}))
            first = self._replies[identity]
            for records in ("config_records", "array_records"):
                assert getattr(again.content, records) == getattr(first.content, records)
            self._replies[identity] = again
        return ids


def run(folder: Path, grid: InProcessGrid, members: list[Hospital], *, name: str = "run") -> Results:
    place = Place(folder=folder / name, run=name, environment="deployment", guard=True, sites_there=len(members))
    conduct(
        PollingGrid(grid, poll_s=0.01),
        parse_campaign(CAMPAIGN),
        place,
        key=members[0].key,
        admitted=grid.names,
        heads=Heads(folder / "heads"),
    )
    return read_results(folder / name / "results.json")


def site(results: Results, name: str) -> SiteRecord:
    return next(found for found in results.sites if found.name == name)


def test_a_validation_site_beside_two_that_train_and_a_cut_log_found_by_the_coordinators_heads(
    template: Template, tmp_path: Path
) -> None:
    members = [
        hospital(template, tmp_path, "a"),
        hospital(template, tmp_path, "b"),
        hospital(template, tmp_path, "c", policy=NOT_TRAINING),
        hospital(template, tmp_path, "d", approved=False),
    ]
    results = run(tmp_path, InProcessGrid([member.site for member in members]), members)
    assert results.run.status == "finished"
    assert [done.sites for done in results.rounds] == [("a", "b"), ("a", "b")]
    assert set(evaluation_results.evaluation(results).test.raw.by_site) == {"a", "b", "c"}
    assert (site(results, "c").role, site(results, "c").troubles) == ("evaluation only", ())
    assert (site(results, "d").status, site(results, "d").reason.split(":")[0]) == ("refused", "not-approved")

    kept = Heads(tmp_path / "heads")
    for member in members[:3]:
        log = member.home / LOG_FILE
        assert verify(log, heads=kept.all(member.site.name)).intact
    assert [Kind.TRAIN in {line.entry.kind for line in member.lines()} for member in members] == [
        True,
        True,
        False,
        False,
    ]
    log = members[1].home / LOG_FILE
    with sqlite3.connect(log) as connection:
        connection.execute("DELETE FROM audit WHERE sequence > 5")
    (members[1].home / "audit.head").unlink()
    assert verify(log).intact  # nobody at the site can tell
    found = verify(log, heads=read_heads(kept.file("b"))).findings
    assert {one.damage for one in found} == {Damage.TRUNCATED}


def test_messages_that_come_twice_change_nothing(template: Template, tmp_path: Path) -> None:
    results = []
    for folder, grid in ((tmp_path / "once", InProcessGrid), (tmp_path / "twice", Retrying)):
        members = [hospital(template, folder, name) for name in "ab"]
        results.append(run(folder, grid([member.site for member in members]), members))
        answers = [line.entry.outcome for member in members for line in member.lines()]
        assert (Outcome.AGAIN in answers) == (grid is Retrying)
    once, twice = results
    assert evaluation_results.evaluation(once) == evaluation_results.evaluation(twice)
    rounds_once, rounds_twice = ([done.model_copy(update={"seconds": 0}) for done in one.rounds] for one in results)
    assert rounds_once == rounds_twice


def test_a_site_outside_its_hours_says_so_and_the_quorum_line_tells_it(template: Template, tmp_path: Path) -> None:
    members = [hospital(template, tmp_path, "a"), hospital(template, tmp_path, "b", policy=AT_NIGHT)]
    with pytest.raises(CampaignFailed, match=r"round 1: 1 site answered, the quorum is 2 \(b: train \(round 1\): ref"):
        run(tmp_path, InProcessGrid([member.site for member in members]), members)
    results = read_results(tmp_path / "run" / "results.json")
    (trouble,) = site(results, "b").troubles
    assert trouble.startswith("train (round 1): refused (hours): ")
    assert "send it again later" in trouble


def test_a_coordinator_with_another_key_is_refused_by_every_site(template: Template, tmp_path: Path) -> None:
    members = [hospital(template, tmp_path, name) for name in "ab"]
    stranger = [replace(member, key=Ed25519PrivateKey.generate()) for member in members]
    with pytest.raises(CampaignFailed, match=r"a: signature: .*; b: signature: "):
        run(tmp_path, InProcessGrid([member.site for member in members]), stranger)
