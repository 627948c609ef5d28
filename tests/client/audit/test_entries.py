"""No field of a line takes a value that could name a patient; reading and exporting the lines."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedage.client.audit import (
    AuditLog,
    AuditUnavailable,
    Direction,
    Entry,
    EntryRefused,
    Filters,
    Kind,
    Outcome,
    WithheldStep,
    export_csv,
    known_digest,
    known_nonce,
    known_steps,
    micro,
    show,
)

PLAIN: dict[str, Any] = {"direction": Direction.OUT, "kind": Kind.TRAIN}
HASH = "ab" * 32


@pytest.mark.parametrize(
    "changes",
    [
        {"direction": "out"},
        {"kind": "train"},
        {"outcome": "ok"},
        {"who": "Dr. Jane Roe"},
        {"who": HASH[:-1]},
        {"who": HASH + "\n"},
        {"campaign": "Jane Roe"},
        {"campaign": "jane^roe"},
        {"digest": "1.2.840.113619.2.1"},
        {"nonce": HASH},
        {"round": 1.0},
        {"round": True},
        {"round": -1},
        {"size_bytes": 2**53 + 1},
        {"patients": "12"},
        {"smallest_cell": -1},
        {"epsilon_micro": 0.5},
        {"rule": "minimum-count"},
        {"outcome": Outcome.REFUSED},
        {"outcome": Outcome.REFUSED, "rule": "patient 12345678"},
        {"outcome": Outcome.REFUSED, "rule": "id-12345678"},
        {"outcome": Outcome.REFUSED, "rule": "a" * 41},
        {"outcome": Outcome.REFUSED, "rule": "minimum-count\n"},
        {"steps": ("Jane Roe",)},
        {"steps": (12,)},
        {"steps": ("cox:gap:more",)},
        {"withheld": (WithheldStep(step="cox:gap", rule="M 1950-01-01"),)},
        {"withheld": (WithheldStep(step="../etc", rule="minimum-count"),)},
    ],
)
def test_what_no_line_may_hold_is_refused_without_being_quoted(changes: dict[str, Any]) -> None:
    with pytest.raises(EntryRefused) as refused:
        Entry(**{**PLAIN, **changes})
    for text in ("Jane", "12345678", "1950", "840"):
        assert text not in str(refused.value)


def test_only_registered_steps_are_written_whatever_a_message_asked() -> None:
    registered = {"cox-by-site:gap": object(), "evaluation": object()}
    assert known_steps(["jane-roe", "evaluation", "cox-by-site:gap"], registered=registered) == (
        "cox-by-site:gap",
        "evaluation",
    )


def test_what_an_unverified_request_says_is_kept_only_if_it_is_what_it_should_be() -> None:
    assert known_digest(HASH) == HASH
    assert known_nonce(HASH[:32]) == HASH[:32]
    assert [known_digest(value) for value in (HASH.upper(), HASH + "\n", "", None, 5)] == [None] * 5
    assert known_nonce("jane roe") is None
    assert Kind.of("query.analyse") is Kind.ANALYSE
    assert Kind.of("approve") is Kind.UNREADABLE  # an administrator's decision is no message
    assert Kind.of("jane") is Kind.UNREADABLE


def test_epsilon_is_never_understated() -> None:
    assert micro(0.0) == 0
    assert micro(1e-9) == 1
    assert micro(1.25) == 1_250_000
    for value in (float("nan"), float("inf"), -0.1):
        with pytest.raises(EntryRefused):
            micro(value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    noon = datetime(2025, 1, 31, 12, tzinfo=UTC)
    times = (noon + timedelta(minutes=n) for n in range(100))
    log = AuditLog(tmp_path, now=lambda: next(times))
    log.append(Entry(direction=Direction.IN, kind=Kind.DESCRIBE, digest=HASH, campaign="one"))
    log.append(
        Entry(
            direction=Direction.OUT,
            kind=Kind.ANALYSE,
            who="cd" * 32,
            digest=HASH,
            campaign="one",
            patients=90,
            smallest_cell=11,
            epsilon_micro=micro(0.5),
            steps=("cox-by-site:gap", "evaluation"),
            withheld=(WithheldStep(step="kaplan-meier", rule="minimum-count"),),
        )
    )
    log.append(Entry(**{**PLAIN, "outcome": Outcome.REFUSED, "rule": "budget", "campaign": "two"}))
    return log.path


@pytest.mark.parametrize(
    ("filters", "sequences"),
    [
        (Filters(), [1, 2, 3]),
        (Filters(last=2), [2, 3]),
        (Filters(last=0), []),
        (Filters(campaign="one", last=1), [2]),
        (Filters(direction=Direction.IN), [1]),
        (Filters(kind=Kind.ANALYSE), [2]),
        (Filters(outcome=Outcome.REFUSED), [3]),
        (Filters(rule="budget"), [3]),
        (Filters(digest="abab"), [1, 2]),
        (Filters(digest="b"), []),
        (Filters(who="cdc"), [2]),
        (Filters(since=datetime(2025, 1, 31, 12, 1, tzinfo=UTC)), [2, 3]),
        (Filters(until=datetime(2025, 1, 31, 12, 1, tzinfo=UTC)), [1]),
        (Filters(since=datetime(2025, 1, 31, 14, 1, tzinfo=UTC).astimezone()), []),
    ],
)
def test_lines_are_chosen(path: Path, filters: Filters, sequences: list[int]) -> None:
    assert [line.sequence for line in show(path, filters)] == sequences


def test_csv_holds_every_line_and_field(path: Path) -> None:
    text = io.StringIO(newline="")
    export_csv(show(path), to=text)
    rows = list(csv.DictReader(io.StringIO(text.getvalue(), newline="")))
    assert [row["sequence"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["patients"] == ""
    assert rows[1]["epsilon"] == "0.500000"
    assert rows[1]["steps"] == "cox-by-site:gap evaluation"
    assert rows[1]["withheld"] == "kaplan-meier=minimum-count"
    assert (rows[2]["outcome"], rows[2]["rule"]) == ("refused", "budget")


def test_a_line_survives_the_way_to_disk_and_back(path: Path) -> None:
    for line in show(path):
        assert Entry.from_json(line.entry.to_json()) == line.entry


def test_no_log_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match="no audit log"):
        show(tmp_path / "audit.db")
    assert not (tmp_path / "audit.db").exists()
