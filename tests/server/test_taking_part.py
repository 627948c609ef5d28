"""Who takes part in a campaign as what: policies, refusals, and heads of audit logs that do not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.client.audit import verify
from fedage.client.audit.log import sign_head
from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.heads import Head, SignedHead, key_to_hex
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.follow import event_text
from fedage.server.record.events import read_events
from fedage.server.record.heads import Heads
from fedage.server.record.results import Results, SiteRecord, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import MemorySite, memory_site
from tests.server.audited import AuditedGrid

CAMPAIGN = """
[campaign]
name = "taking-part"
purpose = "Try who takes part on pictures of nobody"
seed = 7
sites = ["a", "b", "c"]
wait_s = 1
approval_wait_s = 1

[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8

[cohort]
age_min_years = 40
age_max_years = 85

[training]
rounds = 2
batch_size = 16
quorum = 2
round_deadline_s = 1

[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25

[privacy]
minimum_count = 5
"""
NOT_TRAINING = ["describe", "evaluate", "analyse"]
HOURS = ("hours", "outside this site's hours (time zone Europe/Madrid); send it again later")


@pytest.fixture
def three(tmp_path: Path) -> list[MemorySite]:
    return [memory_site(name, tmp_path / "sites", count=60, seed=number) for number, name in enumerate("abc")]


def run(folder: Path, grid: AuditedGrid, *, name: str = "run") -> Results:
    place = Place(folder=folder / name, run=name, environment="deployment", guard=True)
    conduct(
        PollingGrid(grid, poll_s=0.01),
        parse_campaign(CAMPAIGN),
        place,
        key=None,
        admitted=grid.names,
        heads=Heads(folder / "heads"),
    )
    return read_results(folder / name / "results.json")


def site(results: Results, name: str) -> SiteRecord:
    return next(found for found in results.sites if found.name == name)


def failure(folder: Path, grid: AuditedGrid, *, name: str = "run") -> str:
    with pytest.raises(CampaignFailed) as caught:
        run(folder, grid, name=name)
    assert read_results(folder / name / "results.json").run.reason == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def followed(folder: Path, name: str = "run") -> str:
    return "\n".join(map(event_text, read_events(folder / name / "events.jsonl")))


def test_every_head_is_kept_and_told_and_no_nonce_comes_twice(three: list[MemorySite], tmp_path: Path) -> None:
    grid = AuditedGrid(three, tmp_path / "logs")
    results = run(tmp_path, grid)
    heads = Heads(tmp_path / "heads")
    for name, log in grid.logs.items():
        last = log.signed_head()
        told = site(results, name).audit_head
        assert told is not None
        assert (told.sequence, told.hash) == (last.sequence, last.hash)
        assert [head.sequence for head in heads.all(name)] == list(range(1, last.sequence + 1))
        assert verify(tmp_path / "logs" / name / "audit.db", heads=heads.all(name)).intact
        nonces = [nonce for _, nonce in grid.asked[name]]
        assert len(set(nonces)) == len(nonces) == last.sequence
        assert site(results, name).role == "training and evaluation"
    run(tmp_path, grid, name="again")
    assert heads.known("a") == grid.logs["a"].signed_head().sequence


def test_a_site_that_only_evaluates_is_never_sent_a_model_to_train(three: list[MemorySite], tmp_path: Path) -> None:
    grid = AuditedGrid(three, tmp_path / "logs", kinds={"c": NOT_TRAINING})
    results = run(tmp_path, grid)
    assert results.run.status == "finished"
    assert {kind for kind, _ in grid.asked["c"]} == {DESCRIBE, EVALUATE, ANALYSE}
    assert all(done.sites == ("a", "b") for done in results.rounds)
    found = site(results, "c")
    assert (found.status, found.role, found.troubles) == ("took part", "evaluation only", ())
    assert set(evaluation_results.evaluation(results).test.raw.by_site) == {"a", "b", "c"}
    assert "c" in correction_of(results).lines
    assert "c: 60 patients, computing on cpu, evaluation only" in followed(tmp_path)


def test_the_model_is_that_of_the_sites_that_train_alone(three: list[MemorySite], tmp_path: Path) -> None:
    run(tmp_path, AuditedGrid(three, tmp_path / "logs", kinds={"c": NOT_TRAINING}), name="with")
    grid = AuditedGrid(three, tmp_path / "logs")
    grid.offline.add(3)
    run(tmp_path, grid, name="without")
    with_c, without_c = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without"))
    assert with_c == without_c


def test_training_sites_below_the_quorum_fail_with_one_line_that_says_why(
    three: list[MemorySite], tmp_path: Path
) -> None:
    three[1].approves = False
    grid = AuditedGrid(three, tmp_path / "logs", kinds={"c": NOT_TRAINING})
    reason = failure(tmp_path, grid)
    assert reason.startswith("offer: 1 site can train, the quorum is 2 (b: not-approved: ")
    assert reason.endswith("; c: evaluation only, by its policy)")
    assert {kind for asked in grid.asked.values() for kind, _ in asked} == {DESCRIBE}


def test_a_quorum_lost_later_names_only_those_who_were_missing_then(three: list[MemorySite], tmp_path: Path) -> None:
    grid = AuditedGrid(three, tmp_path / "logs", kinds={"c": NOT_TRAINING}, refuse={("b", TRAIN): HOURS})
    assert failure(tmp_path, grid) == (
        "round 1: 1 site answered, the quorum is 2 (b: train (round 1): refused (hours): outside this site's hours "
        "(time zone Europe/Madrid); send it again later; c: evaluation only, by its policy)"
    )


def test_the_campaign_goes_on_with_those_that_approved(three: list[MemorySite], tmp_path: Path) -> None:
    grid = AuditedGrid(three, tmp_path / "logs", refuse={("b", DESCRIBE): ("not-approved", "b declined this campaign")})
    results = run(tmp_path, grid)
    assert results.run.status == "finished"
    assert all(done.sites == ("a", "c") for done in results.rounds)
    found = site(results, "b")
    assert (found.status, found.reason, found.role) == ("refused", "not-approved: b declined this campaign", "")
    assert "b does not take part: refused (not-approved): b declined this campaign" in followed(tmp_path)


@pytest.mark.parametrize(
    ("rule", "sentence", "times_asked"),
    [
        (*HOURS, 2),
        ("budget", "ε 1.2 of 1 would be spent on the data set", 1),
    ],
)
def test_refusals_are_told_once_with_their_rule_and_sentence(
    three: list[MemorySite], tmp_path: Path, rule: str, sentence: str, times_asked: int
) -> None:
    grid = AuditedGrid(three, tmp_path / "logs", refuse={("b", TRAIN): (rule, sentence)})
    results = run(tmp_path, grid)
    found = site(results, "b")
    rounds = "rounds 1 to 2" if times_asked == 2 else "round 1"
    assert found.troubles == (f"train ({rounds}): refused ({rule}): {sentence}",)
    assert (found.status, found.dropped_out_in_round) == ("dropped out", 1)
    assert [kind for kind, _ in grid.asked["b"]].count(TRAIN) == times_asked
    assert EVALUATE in {kind for kind, _ in grid.asked["b"]}
    assert f"b: train (round 1): refused ({rule}): {sentence}" in followed(tmp_path)
    troubles = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "site-trouble"]
    assert {event["rule"] for event in troubles} == {rule}
    assert found.audit_head is not None  # refusals are in the log too
    assert found.audit_head.sequence == grid.logs["b"].signed_head().sequence


class Replaying:
    """Site b keeps sending the head that came with its first answer."""

    def __init__(self) -> None:
        self.first = ""

    def __call__(self, name: str, _kind: str, fields: dict[str, Any]) -> None:
        if name == "b":
            self.first = fields["audit"] = self.first or fields["audit"]


def by_another_key(name: str, kind: str, fields: dict[str, Any]) -> None:
    if name == "b" and kind != DESCRIBE:
        head = SignedHead.from_json(fields["audit"])
        fields["audit"] = sign_head(head, key=Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)).to_json()


def junk(name: str, kind: str, fields: dict[str, Any]) -> None:
    if name == "b" and kind != DESCRIBE:
        fields["audit"] = '{"sequence": [1], "hash": 7}'


def missing(name: str, kind: str, fields: dict[str, Any]) -> None:
    if name == "b" and kind != DESCRIBE:
        fields["audit"] = ""


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (Replaying(), "audit-head-old"),
        (by_another_key, "audit-head-forged"),
        (junk, "malformed reply"),
        (missing, "audit-head-missing"),
    ],
)
def test_an_answer_whose_head_does_not_hold_does_not_count(
    three: list[MemorySite], tmp_path: Path, tamper: Any, named: str
) -> None:
    results = run(tmp_path, AuditedGrid(three, tmp_path / "logs", tamper=tamper))
    assert results.run.status == "finished"
    assert all(done.sites == ("a", "c") for done in results.rounds)
    assert all(named in trouble for trouble in site(results, "b").troubles)
    assert set(evaluation_results.evaluation(results).test.raw.by_site) == {"a", "c"}
    told = site(results, "b").audit_head
    assert told is not None
    assert told.sequence == 1
    assert named in followed(tmp_path)


def test_a_log_with_two_histories_is_named_across_runs(three: list[MemorySite], tmp_path: Path) -> None:
    run(tmp_path, AuditedGrid(three, tmp_path / "logs"), name="first")

    def forked(name: str, _kind: str, fields: dict[str, Any]) -> None:
        if name == "b":
            head = Head(sequence=2, hash="ab" * 32, time_utc="2026-01-01T00:00:00.000000Z")
            fields["audit"] = sign_head(head, key=grid.logs["b"]._key).to_json()

    grid = AuditedGrid(three, tmp_path / "logs", tamper=forked)
    results = run(tmp_path, grid, name="second")
    assert site(results, "b").status == "refused"
    assert site(results, "b").reason.startswith("audit-log-forked: line 2 ")
    assert {site(results, name).status for name in "ac"} == {"took part"}


def test_a_site_with_another_key_than_pinned_is_left_out_with_the_mend(three: list[MemorySite], tmp_path: Path) -> None:
    run(tmp_path, AuditedGrid(three, tmp_path / "logs"), name="first")
    grid = AuditedGrid(three, tmp_path / "logs")
    grid.logs["b"] = AuditedGrid(three, tmp_path / "reinstalled").logs["b"]
    found = site(run(tmp_path, grid, name="second"), "b")
    assert found.status == "refused"
    assert found.reason.startswith("audit-key-changed: ")
    assert "fedage coordinator heads b --begin-anew" in found.reason
    Heads(tmp_path / "heads").begin_anew("b")
    assert site(run(tmp_path, grid, name="third"), "b").status == "took part"


def test_a_site_that_tells_no_audit_key_is_left_out(three: list[MemorySite], tmp_path: Path) -> None:
    def tamper(name: str, kind: str, fields: dict[str, Any]) -> None:
        if name == "b" and kind == DESCRIBE:
            info = json.loads(fields["info"])
            del info["audit_key"]
            fields["info"] = json.dumps(info)

    found = site(run(tmp_path, AuditedGrid(three, tmp_path / "logs", tamper=tamper)), "b")
    assert (found.status, found.reason.split(":")[0]) == ("refused", "audit-key-missing")


ODD_ENTRIES = {
    "device": "x" * 81,
    "rejected_files": {"not-dicom": 3, "no-age": -1, "y" * 81: 2},
    "excluded": [1],
    "seconds": "long",
    "unknown": {"deep": [[]]},
}


def test_one_odd_entry_does_not_drop_a_site(three: list[MemorySite], tmp_path: Path) -> None:
    def tamper(name: str, kind: str, fields: dict[str, Any]) -> None:
        if name == "b" and fields["status"] == "ok":
            info = json.loads(fields["info"]) | (ODD_ENTRIES if kind == DESCRIBE else {})
            fields["info"] = json.dumps({**info, "loss": float("nan")} if kind == TRAIN else info)

    results = run(tmp_path, AuditedGrid(three, tmp_path / "logs", tamper=tamper))
    found = site(results, "b")
    assert (found.status, found.device, found.rejected_files, found.excluded) == (
        "took part",
        "",
        {"not-dicom": 3},
        {},
    )
    assert all(done.sites == ("a", "b", "c") for done in results.rounds)
    assert all(done.train_loss is not None for done in results.rounds)
    of_offer, of_training = found.troubles
    assert sorted(of_offer.removeprefix("describe: told something malformed of ").split("; ")[0].split(", ")) == [
        "device",
        "excluded",
        "rejected_files",
        "seconds",
    ]
    assert of_training == "train (rounds 1 to 2): told something malformed of loss; left out"


@pytest.mark.parametrize(
    ("odd", "part"),
    [
        ({"patients": 24.5}, "patients"),
        ({"kinds": ["train", "everything"]}, "kinds"),
        ({"audit_key": key_to_hex(Ed25519PrivateKey.generate().public_key()).upper()}, "audit_key"),
        ({"features": [1]}, "features"),
    ],
)
def test_what_an_answer_cannot_do_without_leaves_the_site_out(
    three: list[MemorySite], tmp_path: Path, odd: dict[str, Any], part: str
) -> None:
    def tamper(name: str, kind: str, fields: dict[str, Any]) -> None:
        if name == "b" and kind == DESCRIBE:
            fields["info"] = json.dumps({**json.loads(fields["info"]), **odd})

    grid = AuditedGrid(three, tmp_path / "logs", kinds={"c": NOT_TRAINING}, tamper=tamper)
    reason = failure(tmp_path, grid)
    assert reason == (
        f"offer: 1 site can train, the quorum is 2 (b: a malformed answer was set aside: {part} is not of its form; "
        "c: evaluation only, by its policy)"
    )
