"""What a hospital's own rules do to messages, through the real handlers and a real home."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedage.client.audit import Direction, Kind
from fedage.client.consent.approvals import ApprovalError, Approvals
from fedage.client.inbox.exchange import respond
from fedage.client.inbox.gate import Answer, Work
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.heads import key_from_hex
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN, RequestRefused
from tests.client.hospital import CAMPAIGN, PATIENTS, POLICY, TEST, VALIDATION, Template, refused

FRIDAY_NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def test_a_campaign_goes_through_and_every_message_is_in_the_log(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    described = hospital.ask()
    assert described.status == "ok", described
    assert described.info["patients"] == PATIENTS
    assert described.info["kinds"] == ["describe", "train", "evaluate", "analyse"]
    replies = [described, *(hospital.ask(kind, round=1) for kind in (TRAIN, EVALUATE, ANALYSE))]
    assert [reply.status for reply in replies] == ["ok"] * 4
    key = key_from_hex(described.info["audit_key"])
    heads = [reply.head for reply in replies]
    assert all(head is not None and head.is_signed_by(key) for head in heads)
    hospital.must_be_intact(*replies)
    log = [line.entry for line in hospital.lines()]
    assert [(e.direction, e.kind) for e in log[:3]] == [
        (Direction.SITE, Kind.APPROVE),
        (Direction.IN, Kind.DESCRIBE),
        (Direction.SITE, Kind.POLICY),
    ]
    assert [line.sequence for line in hospital.lines() if line.entry.direction is Direction.OUT] == [
        head.sequence for head in heads if head
    ]
    messages = [e for e in log if e.direction is not Direction.SITE]
    assert {e.who for e in messages} == {hospital.site.rules.coordinator}
    assert {e.campaign for e in messages} == {"front-door"}
    assert all(e.size_bytes > 100 for e in messages)
    out = {e.kind: e for e in messages if e.direction is Direction.OUT}
    parts = described.info["parts"]
    assert out[Kind.DESCRIBE].patients == PATIENTS
    assert out[Kind.DESCRIBE].smallest_cell == min(parts.values())
    assert out[Kind.TRAIN].patients == parts["train"] + parts["validation"]
    assert out[Kind.TRAIN].steps == (VALIDATION,)
    assert out[Kind.EVALUATE].patients == parts["validation"] + parts["test"]
    for entry in out.values():
        assert entry.smallest_cell is not None
        assert entry.smallest_cell >= 3


@pytest.mark.parametrize(
    ("policy", "kind", "rule"),
    [
        (f'[requests]\ncoordinators = ["{"ab" * 32}"]', DESCRIBE, "coordinator"),
        ('[requests]\nkinds = ["describe", "evaluate", "analyse"]', TRAIN, "message-kind"),
        ('[requests]\nestimators = ["brain-cnn"]', EVALUATE, "estimator"),
        ('[disclosure]\nsecure_aggregation = "required"', DESCRIBE, "secure-aggregation"),
        ('[data_sets.mr]\nmodality = ["MR"]', DESCRIBE, "data-set"),
        ("[data_sets.all]\nepsilon = 1.0\ndelta = 1e-5", TRAIN, "privacy-mode"),
        ('[hours]\ntime_zone = "Europe/Berlin"\nfriday = ["18:00-06:00"]', TRAIN, "hours"),
        ("[disclosure]\nminimum_count = 0", DESCRIBE, "policy-unreadable"),
        ("[disclosure]\nminimum_count = 30", TRAIN, "minimum-count"),
        ("[disclosure]\nminimum_count = 41", DESCRIBE, "minimum-count"),
    ],
)
def test_each_rule_of_the_policy_refuses_and_both_sides_are_told(
    template: Template, tmp_path: Path, policy: str, kind: str, rule: str
) -> None:
    hospital = template.copy(tmp_path, now=lambda: FRIDAY_NOON)
    hospital.policy(policy)
    assert refused(hospital.ask(kind, round=1), hospital) == rule
    hospital.policy(POLICY)
    assert hospital.ask().status == "ok"  # a refusal stops nothing


def test_a_validation_only_site_says_so_and_takes_part_in_the_rest(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    hospital.policy('[requests]\nkinds = ["describe", "evaluate", "analyse"]\n' + POLICY)
    assert hospital.ask().info["kinds"] == ["describe", "evaluate", "analyse"]
    assert refused(hospital.ask(TRAIN, round=1), hospital) == "message-kind"
    assert hospital.ask(EVALUATE).status == "ok"


def test_nothing_is_answered_before_a_person_approves_and_nothing_after_revoking(
    template: Template, tmp_path: Path
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    rules = hospital.site.rules
    assert refused(hospital.ask(TRAIN), hospital) == "not-approved"
    assert refused(hospital.ask(), hospital) == "not-approved"
    assert rules.approvals.listed() == [(hospital.campaign.digest, "offered")]
    rules.decline(hospital.campaign.digest)
    reply = hospital.ask()
    assert refused(reply, hospital) == "declined"
    assert "declined" in reply.reason
    rules.approve(hospital.campaign)
    assert hospital.ask(TRAIN, round=1).status == "ok"
    rules.revoke(hospital.campaign.digest)
    assert refused(hospital.ask(TRAIN, round=2), hospital) == "declined"
    rules.approve(hospital.campaign)
    assert hospital.ask(TRAIN, round=2).status == "ok"
    decisions = [line.entry.kind for line in hospital.lines() if line.entry.direction is Direction.SITE]
    assert [kind for kind in decisions if kind is not Kind.POLICY] == [
        Kind.DECLINE,
        Kind.APPROVE,
        Kind.REVOKE,
        Kind.APPROVE,
    ]
    with pytest.raises(ApprovalError, match="no approved campaign"):
        rules.revoke("ab" * 32)


def test_what_is_computed_while_the_approval_is_revoked_does_not_leave(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)

    def slow(work: Work) -> Answer:
        hospital.site.rules.revoke(work.request.digest)
        return Answer(info={"secret": 1})

    reply = respond(hospital.site, hospital.message(hospital.request()), kind=DESCRIBE, handler=slow)
    assert "secret" not in str(dict(reply.content["reply"]))
    assert hospital.last().entry.rule == "not-approved"
    hospital.must_be_intact()


def test_an_automatic_site_approves_what_its_policy_allows_but_never_what_was_revoked(
    template: Template, tmp_path: Path
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy('[approval]\nmode = "automatic"\n[requests]\nestimators = ["brain-cnn"]\n' + POLICY)
    assert refused(hospital.ask(), hospital) == "estimator"
    hospital.policy('[approval]\nmode = "automatic"\n' + POLICY)
    assert refused(hospital.ask(TRAIN), hospital) == "not-approved"  # only an offer is approved
    assert hospital.ask().status == "ok"
    assert hospital.ask(TRAIN, round=1).status == "ok"
    frozen = hospital.site.rules.snapshots.of(hospital.campaign.digest)
    assert frozen is not None
    assert len(frozen.patients) == PATIENTS
    hospital.site.rules.revoke(hospital.campaign.digest)
    assert refused(hospital.ask(), hospital) == "declined"


def test_an_offer_with_mistakes_is_kept_and_refused(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    text = CAMPAIGN.replace("rounds = 2", "rounds = -2")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert refused(hospital.ask(digest=digest, campaign=text), hospital) == "not-approved"
    assert hospital.site.rules.approvals.listed() == [(digest, "offered")]


def test_the_sites_own_minimum_counts_in_every_cell(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    parts = hospital.ask().info["parts"]
    hospital.policy(f"[disclosure]\nminimum_count = {parts['test'] + 1}\n")
    reply, sums = hospital.send(hospital.request(EVALUATE))
    assert reply.info["withheld"][TEST]["rule"] == "minimum-count"
    assert not [name for name in sums if name.startswith(TEST)]
    held = hospital.last().entry.withheld
    assert ("evaluation:test", "minimum-count") in {(one.step, one.rule) for one in held}
    hospital.policy(f"[disclosure]\nminimum_count = {parts['test']}\n")
    assert TEST not in hospital.ask(ANALYSE).info["withheld"]


def test_a_campaign_cannot_switch_the_guard_of_a_hospital_off(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.campaign = parse_campaign(CAMPAIGN + "[simulation]\nguard = false\n")
    hospital.site.rules.approve(hospital.campaign)
    hospital.policy("[disclosure]\nminimum_count = 30\n")
    assert refused(hospital.ask(TRAIN), hospital) == "minimum-count"


def test_the_administrator_chooses_among_data_sets_and_their_filters_hold(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    maker = "Phantom Imaging"
    hospital.policy(
        f'[data_sets.old]\nage_min_years = 65\n[data_sets.maker]\nmanufacturer = ["{maker}"]\n'
        '[data_sets.other]\nmanufacturer = ["Somebody Else"]\n' + POLICY
    )
    rules = hospital.site.rules
    with pytest.raises(ApprovalError, match="--data-set old or maker or other"):
        rules.approve(hospital.campaign)
    old = rules.approve(hospital.campaign, data_set="old")
    assert 0 < len(old.snapshot.patients) < PATIENTS
    assert hospital.ask().info["patients"] == len(old.snapshot.patients)
    # Another home: where a part of the larger cohort happens to be close to one of the smaller, that is used again.
    policy = (hospital.home / "policy.toml").read_text()
    hospital = template.copy(tmp_path / "another", approved=False)
    hospital.policy(policy)
    rules = hospital.site.rules
    assert len(rules.approve(hospital.campaign, data_set="maker").snapshot.patients) == PATIENTS
    assert hospital.ask().info["patients"] == PATIENTS
    rules.approve(hospital.campaign, data_set="other")
    assert refused(hospital.ask(), hospital) == "minimum-count"
    hospital.policy("[data_sets.renamed]\n" + POLICY)
    assert refused(hospital.ask(), hospital) == "data-set"


def test_a_cohort_of_three_is_refused(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    found = hospital.site.rules._cohorts.read(hospital.campaign, hospital.site.rules.policy.current().data_sets["all"])
    ages = sorted(found.cohort["age_years"])
    hospital.policy(f"[data_sets.all]\nage_min_years = {(ages[-4] + ages[-3]) / 2}\n")
    approved = hospital.site.rules.approve(hospital.campaign)
    assert len(approved.snapshot.patients) == 3
    reply = hospital.ask()
    assert refused(reply, hospital) == "minimum-count"
    assert "3" not in reply.reason


def test_patients_who_come_after_approval_stay_out_and_one_who_goes_refuses(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    assert hospital.ask().info["patients"] == PATIENTS
    data = tmp_path / "data"
    shutil.copytree(template.folder / "data", data)
    pictures = sorted(data.rglob("*.dcm"))
    (tmp_path / "late").mkdir()
    shutil.move(str(pictures[0].parents[1]), str(tmp_path / "late" / "study"))

    with_fewer = template.copy(tmp_path / "second", approved=False)
    template.index(with_fewer.home, data)
    with_fewer.site.rules.approve(with_fewer.campaign)
    assert with_fewer.ask().info["patients"] == PATIENTS - 1
    assert with_fewer.ask(EVALUATE).status == "ok"

    shutil.move(str(tmp_path / "late" / "study"), str(data / "images" / "study"))
    template.index(with_fewer.home, data)
    with_fewer.start()
    described = with_fewer.ask()
    assert described.info["patients"] == PATIENTS - 1
    assert with_fewer.ask(ANALYSE).status == "ok"  # still for the patients that the predictions were made for
    again = parse_campaign(CAMPAIGN.replace("front-door", "another-question"))
    approved = with_fewer.site.rules.approve(again)
    assert approved.cohort_of == with_fewer.campaign.digest
    assert len(approved.snapshot.patients) == PATIENTS - 1

    shutil.rmtree(data / "images" / "study")
    shutil.rmtree(sorted(data.rglob("*.dcm"))[0].parents[1])
    template.index(with_fewer.home, data)
    with_fewer.start()
    assert refused(with_fewer.ask(), with_fewer) == "snapshot-changed"
    with pytest.raises(Exception, match="differs from that of campaign"):
        with_fewer.site.rules.approve(with_fewer.campaign)


def test_messages_side_by_side_each_have_their_answer_and_their_lines(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    assert hospital.ask(EVALUATE).status == "ok"
    requests = [
        hospital.request(TRAIN, round=1, run="r2"),
        *(hospital.request(ANALYSE) for _ in range(6)),
        hospital.request(),
    ]
    messages = [hospital.message(request) for request in requests]
    replies, errors = [], []

    def work(message: object) -> None:
        try:
            replies.append(hospital.deliver(message)[0])  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(message,)) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [reply.status for reply in replies] == ["ok"] * len(messages)
    hospital.must_be_intact(*replies)
    assert len({reply.head.sequence for reply in replies if reply.head}) == len(messages)


def test_two_copies_of_one_message_at_once_are_answered_once(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    request, inside, go_on = hospital.request(), threading.Event(), threading.Event()
    replies, copies = [], []

    def slow(_work: Work) -> Answer:
        inside.set()
        assert go_on.wait(20)
        return Answer(info={"first": 1})

    def first() -> None:
        replies.append(respond(hospital.site, hospital.message(request), kind=DESCRIBE, handler=slow))

    thread = threading.Thread(target=first)
    copy = threading.Thread(target=lambda: copies.append(hospital.send(request)[0]))
    thread.start()
    assert inside.wait(20)
    copy.start()
    copy.join(0.2)
    assert copies == []  # it waits for the first
    go_on.set()
    thread.join()
    copy.join()
    hospital.must_be_intact()
    assert dict(replies[0].content["reply"])["status"] == "ok"
    assert copies[0].info == hospital.send(request)[0].info == {"first": 1}


def test_no_rule_is_a_reason_to_stop(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    with pytest.raises(RequestRefused, match="no-table"):
        hospital.site.rules.approve(
            parse_campaign(
                '[campaign]\nname = "on-tables"\npurpose = "Not for images at all"\nseed = 1\n'
                '[table]\nage = "age"\n[survival]\n[[survival.models]]\nname = "age"\ncovariates = ["age_years"]\n'
            )
        )
    assert hospital.ask().status == "ok"


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        ("c2.toml", "'c2.toml' is neither a file that is there nor the beginning of a digest"),
        ("../offer/north.toml", "is neither a file that is there"),
        ("ABCD", "which has the digits 0 to 9 and a to f"),
        ("abcd", "no approved campaign has a digest that begins with 'abcd'"),
    ],
)
def test_what_is_no_digest_is_not_called_the_beginning_of_one(tmp_path: Path, begins: str, says: str) -> None:
    with pytest.raises(ApprovalError, match=re.escape(says)):
        Approvals(tmp_path).find(begins, among=("approved",))
