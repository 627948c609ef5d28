"""A flood of messages that nobody signed: refused each, counted all, and the log neither grows without end nor lies."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.client.audit import AuditLog, Direction, Entry, Kind, Outcome, show, verify
from fedage.client.audit.folding import FOLDED, MOST_LINES, WINDOW_S, Folding
from fedage.client.audit.log import LOG_FILE
from fedage.client.cli.audit import _line_text
from fedage.client.inbox import sites
from fedage.common.protocol.messages import ANALYSE, DESCRIBE
from tests.client.hospital import Hospital, Template


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_few_have_their_own_lines_and_one_line_counts_the_others(tmp_path: Path) -> None:
    log, clock = AuditLog(tmp_path), Clock()
    folding = Folding(log.append, clock=clock)
    own = [not folding.takes(10) for _ in range(MOST_LINES + 7)]
    assert own == [True] * MOST_LINES + [False] * 7
    folding.write_if_due()
    assert show(tmp_path / LOG_FILE) == ()  # the minute is not over
    clock.now += WINDOW_S
    assert not folding.takes(10)
    (line,) = show(tmp_path / LOG_FILE)
    assert line.entry == Entry(
        direction=Direction.IN,
        kind=Kind.UNREADABLE,
        outcome=Outcome.REFUSED,
        rule=FOLDED,
        folded=7,
        size_bytes=70,
    )
    assert "7 more messages" in _line_text(line.sequence, line.time_utc, line.entry)
    folding.write()  # one message in this window, with lines of its own
    assert len(show(tmp_path / LOG_FILE)) == 1


def test_lines_of_older_logs_fold_nothing() -> None:
    values = Entry(direction=Direction.IN, kind=Kind.TRAIN).to_json()
    del values["folded"]
    assert Entry.from_json(values).folded == 0


def test_a_hostile_relay_does_not_fill_the_log(template: Template, tmp_path: Path) -> None:
    hospital: Hospital = template.copy(tmp_path)
    clock = Clock()
    hospital.site.rules.folding = Folding(hospital.site.rules.audit.append, clock=clock)
    stranger, flood = Ed25519PrivateKey.generate(), 3 * MOST_LINES
    forged = hospital.message(hospital.request(ANALYSE), key=stranger)
    swapped = hospital.message(hospital.request(ANALYSE), as_kind=DESCRIBE)
    before = len(hospital.lines())
    replies = [hospital.deliver(message)[0] for _ in range(flood // 2) for message in (forged, swapped)]
    assert {reply.rule for reply in replies} == {"signature", "malformed-request"}
    assert len(hospital.lines()) == before + 2 * MOST_LINES
    good = hospital.ask()  # the coordinator's own has its lines, and its answer
    assert good.status == "ok"
    assert hospital.last().entry.nonce is not None
    clock.now += WINDOW_S
    assert hospital.ask().status == "ok"
    folded = [line.entry for line in hospital.lines() if line.entry.folded]
    assert [entry.folded for entry in folded] == [flood - MOST_LINES]
    assert verify(hospital.home / LOG_FILE, heads=[reply.head for reply in (*replies, good) if reply.head]).intact
    assert hospital.deliver(forged)[0].rule == "signature"
    for _ in range(MOST_LINES):
        hospital.deliver(forged)
    sites.close_sites()  # an agent that stops tells what it has counted
    assert hospital.last().entry.folded == 1
