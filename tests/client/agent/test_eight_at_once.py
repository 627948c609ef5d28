"""Eight messages at once at a real home: nonces, cohort, samples, ledger and log come out as if in turns."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from flwr.app import Message

from fedage.client.agent.service import Agent
from fedage.client.audit import Direction, Kind
from fedage.client.cohort.samples import exams
from fedage.client.inbox import handlers
from fedage.client.site.cancel import Cancellation
from fedage.common.privacy.accountant import Budget, Mechanism
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN, Reply, RequestRefused
from fedage.server.sites.flower_records import read_reply
from tests.client.hospital import PATIENTS, POLICY, Hospital, Template

T = TypeVar("T")
THREADS = 8


@pytest.fixture
def images_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image that is read for a sample, in order."""
    seen: list[Path] = []
    load = exams.load_image

    def note(path: Path) -> object:
        seen.append(path)
        return load(path)

    monkeypatch.setattr(exams, "load_image", note)
    return seen


def at_once(ask: Callable[[int], T]) -> list[T]:
    together = threading.Barrier(THREADS)

    def one(number: int) -> T:
        together.wait(timeout=30)
        return ask(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def answered(hospital: Hospital, messages: list[Message]) -> list[Reply]:
    """What the agent answers to messages that come at once; none may fail."""
    agent = Agent(handlers.app, site_home=hospital.home)
    replies = at_once(lambda k: agent.answer(messages[k], Cancellation()))
    assert [reply.error.reason for reply in replies if reply.has_error()] == []
    return [read_reply(reply)[0] for reply in replies]


def kinds_left(hospital: Hospital, kind: Kind) -> int:
    return sum(line.entry.direction is Direction.SITE and line.entry.kind is kind for line in hospital.lines())


@pytest.mark.parametrize("kind", [DESCRIBE, EVALUATE])
def test_one_message_eight_times_is_computed_once(template: Template, tmp_path: Path, kind: str) -> None:
    hospital = template.copy(tmp_path)
    request, payload = hospital.request(kind), hospital.payload(kind)
    messages = [hospital.message(request, payload) for _ in range(THREADS)]
    agent = Agent(handlers.app, site_home=hospital.home)
    replies = at_once(lambda k: agent.answer(messages[k], Cancellation()))
    # Where computations take turns, a later copy supersedes the earlier ones: some may be told so instead.
    said = [read_reply(reply)[0] for reply in replies if not reply.has_error()]
    assert {reply.error.reason for reply in replies if reply.has_error()} <= {"Superseded"}
    fine = [reply for reply in said if reply.status == "ok"]
    assert len({reply.audit for reply in fine}) == 1, "one answer, sent again byte for byte"
    assert {reply.rule for reply in said if reply.status != "ok"} <= {"replay"}
    computed = [line.entry for line in hospital.lines() if line.entry.direction is Direction.OUT]
    assert sum(entry.outcome == "ok" for entry in computed) == 1
    hospital.must_be_intact(*fine)


def test_eight_contents_under_one_nonce_have_one_answer(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    nonce = hospital.request().nonce
    messages = [
        hospital.message(hospital.request(ANALYSE, nonce=nonce, version=f"v{k}"), hospital.payload(ANALYSE))
        for k in range(THREADS)
    ]
    said = answered(hospital, messages)
    assert sum(reply.status == "ok" for reply in said) == 1
    assert {reply.rule for reply in said if reply.status != "ok"} == {"replay"}
    hospital.must_be_intact(*said)


def test_all_kinds_at_once_read_each_image_once(template: Template, tmp_path: Path, images_read: list[Path]) -> None:
    hospital = template.copy(tmp_path)
    shutil.rmtree(hospital.home / "cache")
    images_read.clear()
    asked = [DESCRIBE, ANALYSE, TRAIN, EVALUATE] * 2
    messages = [
        hospital.message(hospital.request(kind, run=f"r{k}", round=1 if kind == TRAIN else 0))
        for k, kind in enumerate(asked)
    ]
    said = answered(hospital, messages)
    assert [reply.status for reply in said] == ["ok"] * THREADS, [(reply.rule, reply.reason) for reply in said]
    assert len(images_read) == len(set(images_read)) <= PATIENTS
    (made,) = (path for path in (hospital.home / "cache").iterdir() if path.is_dir())
    assert sorted(path.name for path in made.iterdir()) == ["array-0.npy", "rows.json"]
    hospital.must_be_intact(*said)


def test_an_offer_that_approves_itself_freezes_one_cohort(
    template: Template, tmp_path: Path, images_read: list[Path]
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(POLICY + '[approval]\nmode = "automatic"\n')
    shutil.rmtree(hospital.home / "cache")
    images_read.clear()
    messages = [hospital.message(hospital.request(run=f"r{k}")) for k in range(THREADS)]
    said = answered(hospital, messages)
    assert [reply.status for reply in said] == ["ok"] * THREADS, [(reply.rule, reply.reason) for reply in said]
    assert len({reply.info["patients"] for reply in said}) == 1
    assert len(images_read) == len(set(images_read)) <= PATIENTS
    assert kinds_left(hospital, Kind.APPROVE) == 1
    hospital.must_be_intact(*said)


def test_a_person_who_declines_while_an_offer_approves_itself_is_heard(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(POLICY + '[approval]\nmode = "automatic"\n')
    shutil.rmtree(hospital.home / "cache")
    load, said_no = exams.load_image, threading.Event()

    def decline_meanwhile(path: Path) -> object:
        if not said_no.is_set():
            said_no.set()
            hospital.site.rules.decline(hospital.campaign.digest)
        return load(path)

    monkeypatch.setattr(exams, "load_image", decline_meanwhile)
    said = answered(hospital, [hospital.message(hospital.request(run=f"r{k}")) for k in range(THREADS)])
    assert {reply.rule for reply in said} == {"declined"}
    assert kinds_left(hospital, Kind.APPROVE) == 0
    assert not hospital.site.rules.approvals.is_approved(hospital.campaign.digest)
    hospital.must_be_intact(*said)


def test_a_budget_for_three_trainings_pays_for_three(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    rules, noisy = hospital.site.rules, Mechanism(sampling_rate=0.1, noise_multiplier=1.0, steps=10)
    first = rules.terms(hospital.request(TRAIN, round=1))
    free = first.allowed.data_set.model_copy(update={"epsilon": 1e6, "delta": 1e-5})
    spent = [hospital_charge(hospital, noisy, free, number) for number in range(3)]
    assert min(spent) > 0
    other = template.copy(tmp_path / "other")
    tight = free.model_copy(update={"epsilon": sum(spent) + spent[-1] / 2})

    def charge(k: int) -> str:
        try:
            hospital_charge(other, noisy, tight, k)
        except RequestRefused as refused:
            return refused.rule
        return "paid"

    assert sorted(at_once(charge)) == ["budget"] * (THREADS - 3) + ["paid"] * 3


def hospital_charge(hospital: Hospital, mechanism: Mechanism, data_set: object, number: int) -> float:
    rules, request = hospital.site.rules, hospital.request(TRAIN, round=1, nonce=f"{number:032x}")
    terms = rules.terms(request)
    allowed = replace(terms.allowed, data_set=data_set)
    total = Budget(epsilon=1e9, delta=1e-5)
    return rules.charge(
        replace(terms, allowed=allowed), request, mechanism, content=request.nonce, total=total
    ).charged_epsilon


def test_nothing_leaves_after_an_approval_was_taken_back(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    hospital.ask()
    agent, rules = Agent(handlers.app, site_home=hospital.home), hospital.site.rules
    messages = [hospital.message(hospital.request(run=f"r{k}")) for k in range(THREADS)]

    def ask(k: int) -> Reply | None:
        if k == 3:
            rules.revoke(hospital.campaign.digest)
            return None
        return read_reply(agent.answer(messages[k], Cancellation()))[0]

    said = [reply for reply in at_once(ask) if reply is not None]
    assert {reply.rule for reply in said if reply.status != "ok"} <= {"declined", "not-approved"}
    assert hospital.ask(run="later").rule == "declined"
    hospital.must_be_intact(*said)
