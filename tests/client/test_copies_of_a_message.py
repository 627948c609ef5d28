"""A message that comes again while it is answered: the copy waits, and gets the same answer."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fedage.client.audit import Outcome
from fedage.client.consent.accounts.nonces import Claims, Nonces, RequestId
from fedage.client.inbox import handlers
from fedage.client.site.cancel import Cancellation, Cancelled, cancellable
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN, Reply, Request
from tests.client.hospital import Hospital, Template

DIGEST = hashlib.sha256(b"campaign").hexdigest()


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path)


@pytest.mark.parametrize("kind", [DESCRIBE, EVALUATE, ANALYSE])
def test_a_message_that_is_sent_again_while_it_is_answered_gets_the_same_answer(
    hospital: Hospital, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hospital.ask(EVALUATE).status == "ok"
    request = hospital.request(kind)
    answers: list[Reply] = []
    copy = threading.Thread(target=lambda: answers.append(hospital.send(request)[0]))
    terms = hospital.site.rules.terms

    def while_it_is_answered(asked: Request) -> Any:
        if copy.ident is None:
            copy.start()
            while not [line for line in hospital.lines() if line.entry.nonce == request.nonce][1:]:
                time.sleep(0.01)  # until the copy has come in
        return terms(asked)

    monkeypatch.setattr(hospital.site.rules, "terms", while_it_is_answered)
    first = hospital.send(request)[0]
    copy.join()
    assert (first.status, answers) == ("ok", [first])
    outcomes = [line.entry.outcome for line in hospital.lines() if line.entry.nonce == request.nonce]
    assert outcomes[-2:] == [Outcome.OK, Outcome.AGAIN]


def test_a_copy_is_done_anew_if_the_first_one_fails(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    request, answers = hospital.request(TRAIN, round=1), []
    copy = threading.Thread(target=lambda: answers.append(hospital.send(request)[0].status))

    def fails(*_: Any, **__: Any) -> None:
        monkeypatch.undo()
        copy.start()
        raise RuntimeError

    monkeypatch.setattr(handlers, "train_locally", fails)
    with pytest.raises(RuntimeError):
        hospital.send(request)
    copy.join()
    assert answers == ["ok"]


def test_a_copy_that_nobody_waits_for_is_ended(tmp_path: Path) -> None:
    claims = Claims(Nonces(tmp_path))
    request, nobody_waits = RequestId(digest=DIGEST, run="r", nonce="n", content=DIGEST), Cancellation(lifetime_s=0.0)
    with claims.claimed(request) as answered:
        assert not answered
        with cancellable(nobody_waits), pytest.raises(Cancelled), claims.claimed(request):
            raise AssertionError("both were answered at once")
    with claims.claimed(request) as answered:
        assert not answered
