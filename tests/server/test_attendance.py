"""Troubles in words: each told once, with its rule; who may be asked what; who is missing from a quorum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, KINDS, TRAIN
from fedage.server.record.events import EventLog, read_events
from fedage.server.sites.attendance import Attendance


@pytest.fixture
def attendance(tmp_path: Path) -> Iterator[Attendance]:
    events = EventLog(tmp_path / "events.jsonl")
    yield Attendance(events)
    events.close()


def test_a_trouble_in_one_round_after_another_is_told_once(tmp_path: Path, attendance: Attendance) -> None:
    for number in (3, 4, 5):
        attendance.note("a", TRAIN, "closed until 19:00", round_number=number, rule="hours")
        attendance.note("b", TRAIN, "offline", round_number=number)
    attendance.note("a", TRAIN, "closed until 19:00", round_number=9, rule="hours")
    attendance.note("a", TRAIN, "offline", round_number=10)
    for _ in range(12):
        attendance.note("a", ANALYSE, "closed until 19:00", rule="hours")
    attendance.note("a", EVALUATE, "closed until 19:00", rule="hours")
    assert attendance.troubles == {
        "a": [
            "train (rounds 3 to 5): refused (hours): closed until 19:00",
            "train (round 9): refused (hours): closed until 19:00",
            "train (round 10): offline",
            "analyse (12 times): refused (hours): closed until 19:00",
            "evaluate: refused (hours): closed until 19:00",
        ],
        "b": ["train (rounds 3 to 5): offline"],
    }
    assert len(read_events(tmp_path / "events.jsonl")) == 3 + 3 + 1 + 1 + 12 + 1


def test_a_new_fold_begins_a_new_line(attendance: Attendance) -> None:
    for number in (1, 2, 1, 2):
        attendance.note("a", TRAIN, "offline", round_number=number)
    assert attendance.troubles["a"] == ["train (rounds 1 to 2): offline"] * 2


@pytest.mark.parametrize(
    ("kinds", "role"),
    [
        (list(KINDS.values()), "training and evaluation"),
        (["describe", "evaluate", "analyse"], "evaluation only"),
        (["describe", "analyse"], "analyses only"),
        (["describe", "train"], "training only"),
        ([], "answers offers only"),
        (["describe", "train", "analyse"], "answers describe, train, analyse only"),
    ],
)
def test_a_role_is_what_the_policy_answers(attendance: Attendance, kinds: list[str], role: str) -> None:
    attendance.kinds["a"] = frozenset(kinds)
    assert attendance.role("a") == role
    assert [word for kind, word in KINDS.items() if attendance.may("a", kind)] == [
        w for w in KINDS.values() if w in kinds
    ]
    assert attendance.role("unknown") == ""


def test_a_site_in_simulation_answers_everything(attendance: Attendance) -> None:
    attendance.kinds["a"] = None
    assert attendance.role("a") == "training and evaluation"
    assert all(attendance.may("a", kind) for kind in KINDS)


def test_only_what_does_not_come_back_ends_the_asking_and_only_of_its_kind(attendance: Attendance) -> None:
    for rule in ("hours", "policy-unreadable", "replay", "not-approved"):
        attendance.note("a", TRAIN, "x", round_number=1, rule=rule)
    assert attendance.may("a", TRAIN)
    attendance.note("a", TRAIN, "ε 1.2 of 1 would be spent", round_number=1, rule="budget")
    assert not attendance.may("a", TRAIN)
    assert attendance.may("a", EVALUATE)
    assert attendance.answers("a", TRAIN)


def test_who_is_missing_is_named_with_the_reason_and_who_answered_is_not(attendance: Attendance) -> None:
    attendance.kinds.update({"a": None, "b": None, "c": frozenset({"describe", "evaluate"}), "d": None})
    attendance.note("a", TRAIN, "offline", round_number=1)
    attendance.note("b", TRAIN, "ε is spent", round_number=2, rule="budget")
    attendance.leave_out("e", "e declined this campaign", rule="not-approved")
    assert attendance.why_missing(["a"], expected=["a", "z"], kind=TRAIN) == (
        "b: train (round 2): refused (budget): ε is spent; c: evaluation only, by its policy; d: did not answer; "
        "e: not-approved: e declined this campaign; z: did not answer"
    )
    assert Attendance(attendance.events).why_missing([], expected=[], kind=DESCRIBE) == "no other site known"
