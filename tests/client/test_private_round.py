"""A round with privacy for each patient at a real home: noised, paid for once, and repeated bit for bit."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.audit.entries import micro
from fedage.client.consent.ledger import Ledger
from fedage.client.inbox import private_round
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import mechanism_of, noise_of_validation
from fedage.common.privacy.accountant import Budget, Mechanism, epsilon
from fedage.common.protocol.messages import TRAIN, Reply, join_iterates, join_model, model_of
from tests.client.hospital import CAMPAIGN, POLICY, VALIDATION, Hospital, Template, refused

PRIVATE = CAMPAIGN + 'mode = "sample"\nnoise_multiplier = 1.5\ndelta = 1e-5\nclip_norm = 1.0\nvalidation_share = 0\n'
BUDGET = POLICY + "[data_sets.all]\nepsilon = {}\ndelta = 1e-5\n"
Arrays = dict[str, np.ndarray]


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return private(template, tmp_path, epsilon=100.0)


def private(template: Template, folder: Path, *, epsilon: float, text: str = PRIVATE) -> Hospital:
    found = template.copy(folder, approved=False)
    found.campaign = parse_campaign(text)
    found.policy(BUDGET.format(epsilon))
    found.site.rules.approve(found.campaign)
    return found


def train(hospital: Hospital, *, weights: Arrays | None = None, **changes: Any) -> tuple[Reply, Arrays]:
    model = hospital.weights() if weights is None else weights
    payload = {**join_model(model), **join_iterates({VALIDATION: {}})}
    reply, arrays = hospital.send(hospital.request(TRAIN, **{"round": 1, **changes}), payload)
    return reply, model_of(arrays)


def moved(hospital: Hospital, by: float) -> Arrays:
    weights = dict(hospital.weights())
    name = next(iter(weights))
    weights[name] = weights[name] + np.float32(by)
    return weights


def mechanism(hospital: Hospital, reply: Reply) -> Mechanism:
    return mechanism_of(hospital.campaign, phases_known(hospital.campaign), patients=reply.info["n"])


def charges(hospital: Hospital) -> int:
    with sqlite3.connect(hospital.home / "ledger.db") as connection:
        return int(connection.execute("SELECT count(*) FROM charges").fetchone()[0])


def test_a_round_is_noised_charged_and_tells_nothing_beside(hospital: Hospital) -> None:
    reply, change = train(hospital)
    assert reply.status == "ok", reply.reason
    made, told = mechanism(hospital, reply), reply.info["privacy"]
    assert (made.steps, made.noise_multiplier) == (-(-reply.info["n"] // 16), 1.5)
    assert told["epsilon"] == pytest.approx(epsilon([made], delta=1e-5))
    assert hospital.last().entry.epsilon_micro == micro(told["epsilon"])
    assert reply.info["loss"] is None
    assert reply.info["withheld"][VALIDATION]["rule"] == "privacy"
    assert all(np.abs(array).max() > 0 for array in change.values())
    spent = Ledger(hospital.home).preview("all", mechanisms=[], budget=Budget(epsilon=100.0, delta=1e-5))
    assert spent.spent_epsilon == pytest.approx(told["epsilon"])
    hospital.must_be_intact(reply)


def test_a_resumed_run_gets_the_same_bits_and_pays_once(hospital: Hospital) -> None:
    first, change = train(hospital)
    hospital.site.rules.close()
    hospital.start()
    again, same = train(hospital, run="r2")
    assert again.info["privacy"] == first.info["privacy"]
    for name in change:
        np.testing.assert_array_equal(change[name], same[name])
    assert charges(hospital) == 1
    assert hospital.last().entry.epsilon_micro == 0


def test_another_model_and_another_round_get_other_noise(template: Template, tmp_path: Path) -> None:
    hospital = private(template, tmp_path, epsilon=100.0, text=PRIVATE.replace("rounds = 2", "rounds = 9"))
    _, first = train(hospital)
    seen = [first]
    for run, by in (("r1", 1e-4), ("r2", 2e-4)):
        if run != "r1":
            train(hospital, run=run)
        reply, change = train(hospital, weights=moved(hospital, by), run=run, round=2)
        assert reply.status == "ok", reply.reason
        seen.append(change)
    assert charges(hospital) == 3
    # The first step of Adam is the sign of the noised gradient: of two draws, half of the signs differ.
    signs = [np.sign(np.concatenate([array.ravel() for array in change.values()])) for change in seen]
    for k in range(3):
        for j in range(k):
            assert 0.3 < np.mean(signs[k] != signs[j]) < 0.7


def test_a_round_beyond_the_budget_is_refused_before_it_begins(template: Template, tmp_path: Path) -> None:
    cheap = private(template, tmp_path, epsilon=0.5)
    assert refused(train(cheap)[0], cheap) == "budget"
    assert charges(cheap) == 0


def test_a_campaign_may_not_spend_more_than_its_file_says(hospital: Hospital) -> None:
    assert train(hospital)[0].status == "ok"
    assert train(hospital, weights=moved(hospital, 1e-4), round=2)[0].status == "ok"
    assert train(hospital, run="r2")[0].status == "ok"  # the same once more
    reply, _ = train(hospital, weights=moved(hospital, 2e-4), run="r2", round=2)
    assert refused(reply, hospital) == "campaign-epsilon"
    assert charges(hospital) == 2


def test_what_was_paid_for_and_failed_stays_paid(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(private_round, "train_privately", fails)
    with pytest.raises(MemoryError):
        train(hospital)
    assert charges(hospital) == 1
    monkeypatch.undo()
    assert train(hospital)[0].status == "ok"
    assert charges(hospital) == 1


def test_another_answer_to_the_same_request_is_paid_for_too(hospital: Hospital) -> None:
    train(hospital)
    with sqlite3.connect(hospital.home / "ledger.db") as connection:
        # As if an image had been another one then.
        connection.execute("UPDATE answers SET sha256 = ?", (hashlib.sha256(b"other").hexdigest(),))
    reply, _ = train(hospital, run="r2")
    assert reply.status == "ok"
    assert charges(hospital) == 2
    assert reply.info["privacy"]["epsilon"] == pytest.approx(epsilon([mechanism(hospital, reply)] * 2, delta=1e-5))


@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
def test_a_target_is_spent_over_all_rounds_and_no_more(target: float) -> None:
    campaign = parse_campaign(PRIVATE.replace("noise_multiplier = 1.5", f"epsilon = {target}"))
    for patients in (15, 100, 1000):
        made = mechanism_of(campaign, phases_known(campaign), patients=patients)
        spent = epsilon([made] * 2, delta=1e-5)
        assert 0.98 * target < spent <= target
        more = dataclasses.replace(made, noise_multiplier=made.noise_multiplier * 0.98)
        assert epsilon([more] * 2, delta=1e-5) > spent


def test_the_error_of_a_round_is_noised_charged_and_the_same_again(template: Template, tmp_path: Path) -> None:
    hospital = private(template, tmp_path, epsilon=100.0, text=PRIVATE.replace("validation_share = 0\n", ""))
    seen = []
    for run in ("r1", "r2"):
        first, _ = train(hospital, run=run)
        assert "needs it" in first.info["withheld"][VALIDATION]["detail"]
        payload = {**join_model(moved(hospital, 1e-4)), **join_iterates({VALIDATION: {}})}
        reply, arrays = hospital.send(hospital.request(TRAIN, round=2, run=run), payload)
        assert reply.info["withheld"] == {}
        seen.append((reply.info["privacy"], arrays[VALIDATION].tolist()))
    assert seen[0] == seen[1]
    assert charges(hospital) == 3
    made, patients = (
        mechanism(hospital, reply),
        len(hospital.site.rules.snapshots.of(hospital.campaign.digest).patients),
    )
    noise = noise_of_validation(hospital.campaign, phases_known(hospital.campaign), patients=patients)
    assert noise is not None
    assert seen[0][1][-1] == noise.of_round.noise_multiplier**2
    assert seen[0][0]["epsilon"] == pytest.approx(epsilon([made, made, noise.of_round], delta=1e-5))
