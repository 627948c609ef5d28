"""The audit log says which payload left, and logs from before it did are read as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedage.client.audit import AuditLog, Direction, Entry, EntryRefused, Kind, Outcome, show, verify
from fedage.common.protocol.messages import EVALUATE, TRAIN, pack, packed_digest
from fedage.common.protocol.reply_signature import is_signed_by
from tests.client.hospital import Template

NEW = {"direction": Direction.OUT, "kind": Kind.TRAIN, "payload_sha256": "ab" * 32}


def test_every_answer_is_signed_and_its_payload_recorded_also_when_it_goes_out_again(
    template: Template, tmp_path: Path
) -> None:
    hospital = template.copy(tmp_path)
    hospital.ask()
    request = hospital.request(EVALUATE)
    answers = [hospital.send(request) for _ in range(2)]
    (reply, arrays), (again, arrays_again) = answers
    assert again == reply
    sent = packed_digest(pack(arrays).data)
    assert packed_digest(pack(arrays_again).data) == sent
    key = hospital.site.rules.audit.public_key
    assert is_signed_by(key, reply, nonce=request.nonce, payload_sha256=sent)
    out = [line.entry for line in hospital.lines() if line.entry.direction is Direction.OUT]
    assert [(line.outcome, line.payload_sha256) for line in out] == [
        (Outcome.OK, None),
        (Outcome.OK, sent),
        (Outcome.AGAIN, sent),
    ]
    refusal = hospital.ask(TRAIN, round=1, digest="ef" * 32)
    assert refusal.status == "refused"
    assert hospital.last().entry.payload_sha256 is None
    hospital.must_be_intact(reply, again, refusal)


def test_lines_of_older_logs_are_read_and_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path)
    to_json = Entry.to_json

    def older(entry: Entry) -> dict[str, Any]:
        return {name: value for name, value in to_json(entry).items() if name != "payload_sha256"}

    with monkeypatch.context() as patched:
        patched.setattr(Entry, "to_json", older)
        log.append(Entry(direction=Direction.IN, kind=Kind.TRAIN))
    log.append(Entry(**NEW))
    assert [line.entry.payload_sha256 for line in show(log.path)] == [None, "ab" * 32]
    assert verify(log.path, heads=[log.signed_head()]).intact


@pytest.mark.parametrize("wrong", ["ab" * 31, "12345678", 5, "AB" * 32])
def test_only_a_digest_may_stand_there(wrong: object) -> None:
    with pytest.raises(EntryRefused, match="payload_sha256"):
        Entry(**{**NEW, "payload_sha256": wrong})
