"""The ledger of ε against Opacus, a closed form, and its own promises: composed, charged once, refused before."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sqlite3
import time
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import pytest

from fedage.client.consent.ledger import (
    Balance,
    BudgetExceeded,
    CampaignTotalExceeded,
    Ledger,
    LedgerUnavailable,
)
from fedage.common.privacy.accountant import Budget, ChargeRefused, Mechanism, epsilon

ROUND = Mechanism(sampling_rate=0.05, noise_multiplier=1.1, steps=40)
WIDE = Budget(epsilon=1000.0, delta=1e-5)
A, B = "a" * 64, "b" * 64


def charge(
    ledger: Ledger,
    data_set: str = "mammograms",
    *,
    digest: str = A,
    round_number: int = 1,
    content: str = "00",
    fold: int = 0,
    mechanism: Mechanism = ROUND,
    budget: Budget = WIDE,
    total: Budget | None = None,
) -> Balance:
    return ledger.charge(
        data_set,
        digest=digest,
        round=round_number,
        fold=fold,
        content=content,
        mechanism=mechanism,
        budget=budget,
        total=total,
    )


def test_composition_never_lowers_epsilon_and_order_does_not_matter() -> None:
    chance = random.Random(2)
    kinds = [Mechanism(sampling_rate=q, noise_multiplier=s, steps=5) for q in (0.01, 0.2) for s in (0.8, 2.0)]
    for _ in range(6):
        several = [chance.choice(kinds) for _ in range(chance.randint(2, 5))]
        values = [epsilon(several[:n], delta=1e-5) for n in range(len(several) + 1)]
        assert values[0] == 0.0
        assert all(after > before for before, after in itertools.pairwise(values))
        alone = [epsilon([one], delta=1e-5) for one in several]
        assert max(alone) <= values[-1] <= sum(alone)
        assert epsilon(several[::-1], delta=1e-5) == pytest.approx(values[-1], rel=1e-12)
        less_noise = [Mechanism(sampling_rate=m.sampling_rate, noise_multiplier=0.7, steps=m.steps) for m in several]
        assert epsilon(less_noise, delta=1e-5) > values[-1]


def test_rounds_and_campaigns_on_one_data_set_compose_and_others_do_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    charge(ledger, round_number=1)
    charge(ledger, round_number=2, content="01")
    third = charge(ledger, digest=B, content="02")
    other = charge(ledger, "chest", digest=B, round_number=2, content="03")
    assert third.spent_epsilon == pytest.approx(epsilon([ROUND] * 3, delta=1e-5), rel=1e-12)
    assert other.spent_epsilon == pytest.approx(epsilon([ROUND], delta=1e-5), rel=1e-12)
    assert other.charged_epsilon == other.spent_epsilon
    by_campaign = ledger.by_campaign("mammograms", delta=1e-5)
    assert [(spent.digest, spent.charges) for spent in by_campaign] == [(A, 2), (B, 1)]
    assert by_campaign[0].epsilon == pytest.approx(epsilon([ROUND] * 2, delta=1e-5), rel=1e-12)
    assert ledger.data_sets() == ("chest", "mammograms")


def test_the_same_training_is_charged_once_and_another_one_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = charge(ledger)
    again = charge(ledger)
    assert again.spent_epsilon == first.spent_epsilon
    assert again.charged_epsilon == 0.0
    assert charge(ledger, content="01").charged_epsilon > 0
    assert charge(ledger, fold=1).charged_epsilon > 0
    with pytest.raises(ChargeRefused, match="charged before"):
        charge(ledger, mechanism=Mechanism(sampling_rate=0.05, noise_multiplier=9.0, steps=40))
    with pytest.raises(ChargeRefused, match="charged before"):
        charge(ledger, "chest")


def test_a_request_charged_before_is_answered_though_the_budget_is_used_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    exact = Budget(epsilon=epsilon([ROUND], delta=1e-5), delta=1e-5)
    charge(ledger, budget=exact)
    assert charge(ledger, budget=exact).left_epsilon == 0.0


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1.0001, True), (0.9999, False)])
def test_the_budget_is_kept_to_its_edge(tmp_path: Path, factor: float, fits: bool) -> None:
    ledger = Ledger(tmp_path)
    budget = Budget(epsilon=epsilon([ROUND] * 3, delta=1e-5) * factor, delta=1e-5)
    charge(ledger, content="01", budget=budget)
    charge(ledger, content="02", budget=budget)
    if fits:
        charge(ledger, content="03", budget=budget)
    else:
        before = ledger.preview("mammograms", mechanisms=(), budget=budget)
        with pytest.raises(BudgetExceeded, match="its budget is") as refused:
            charge(ledger, content="03", budget=budget)
        assert refused.value.rule == "budget"
        assert not any(character.isdigit() for character in refused.value.detail)
        assert ledger.preview("mammograms", mechanisms=(), budget=budget) == before


def test_a_campaign_spends_no_more_than_its_file_says_whatever_the_budget(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    total = Budget(epsilon=epsilon([ROUND] * 2, delta=1e-6), delta=1e-6)
    assert charge(ledger, content="01", total=total).campaign_epsilon == epsilon([ROUND], delta=1e-6)
    assert charge(ledger, content="02", total=total).campaign_epsilon == pytest.approx(total.epsilon)
    with pytest.raises(CampaignTotalExceeded, match="a campaign file of its own") as refused:
        charge(ledger, content="03", total=total)
    assert refused.value.rule == "campaign-epsilon"
    assert not any(character.isdigit() for character in refused.value.detail)
    assert charge(ledger, content="02", total=total).campaign_epsilon == pytest.approx(total.epsilon)
    assert charge(ledger, content="03", digest=B, total=total).campaign_epsilon == epsilon([ROUND], delta=1e-6)
    assert ledger.preview("mammograms", mechanisms=(), budget=WIDE).spent_epsilon == epsilon([ROUND] * 3, delta=1e-5)


def test_a_second_answer_to_one_training_is_told_from_the_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.is_same_answer(content="01", sha256="a")
    ledger.close()
    ledger = Ledger(tmp_path)
    assert ledger.is_same_answer(content="01", sha256="a")
    assert not ledger.is_same_answer(content="01", sha256="b")
    assert ledger.is_same_answer(content="02", sha256="b")


def test_a_preview_is_what_the_charge_will_be(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    charge(ledger, content="01")
    preview = ledger.preview("mammograms", mechanisms=[ROUND], budget=WIDE)
    assert preview == ledger.preview("mammograms", mechanisms=[ROUND], budget=WIDE)
    assert charge(ledger, content="02") == preview


def test_any_interleaving_ends_where_the_sum_of_what_was_granted_does(tmp_path: Path) -> None:
    chance = random.Random(3)
    ledger = Ledger(tmp_path)
    budget = Budget(epsilon=2.0, delta=1e-5)
    kinds = [Mechanism(sampling_rate=q, noise_multiplier=s, steps=t) for q, s, t in [(0.02, 1, 20), (0.1, 2, 9)]]
    granted: dict[tuple[str, str, str], Mechanism] = {}
    refused = 0
    for _ in range(150):
        key = (chance.choice(("x", "y")), chance.choice((A, B)), str(chance.randint(0, 60)))
        mechanism = kinds[int(key[2]) % 2]
        content = f"{key[0]}-{key[2]}"
        if chance.random() < 0.1:
            ledger.close()
            ledger = Ledger(tmp_path)
        try:
            charge(ledger, key[0], digest=key[1], content=content, mechanism=mechanism, budget=budget)
        except BudgetExceeded:
            assert key not in granted
            refused += 1
        else:
            granted[key] = mechanism
    assert refused > 5
    for data_set in ("x", "y"):
        mine = [mechanism for key, mechanism in granted.items() if key[0] == data_set]
        spent = ledger.preview(data_set, mechanisms=(), budget=budget).spent_epsilon
        assert spent == pytest.approx(epsilon(mine, delta=1e-5), rel=1e-9)
        assert 1.0 < spent <= 2.0


def _charge_ten(home: Path, content: str, budget: Budget, granted: Queue[int]) -> None:
    ledger, count = Ledger(home, lock_wait_s=60), 0
    for number in range(10):
        try:
            charge(ledger, round_number=number, content=content, budget=budget)
            count += 1
        except BudgetExceeded:
            pass
    granted.put(count)


def test_two_processes_do_not_overdraw(tmp_path: Path) -> None:
    budget = Budget(epsilon=epsilon([ROUND] * 7, delta=1e-5), delta=1e-5)
    fork = multiprocessing.get_context("fork")
    granted: Queue[int] = fork.Queue()
    both = [fork.Process(target=_charge_ten, args=(tmp_path, name, budget, granted)) for name in ("one", "two")]
    for process in both:
        process.start()
    assert granted.get(timeout=60) + granted.get(timeout=60) == 7
    for process in both:
        process.join()


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 1.0, 1),
        (1.1, 1.0, 1),
        (float("nan"), 1.0, 1),
        (0.1, 0.0, 1),
        (0.1, -1.0, 1),
        (0.1, float("inf"), 1),
        (0.1, 1.0, 0),
        (0.1, 1.0, 1.5),
        (5e-324, 1.0, 1),
    ],
)
def test_a_mechanism_that_makes_no_sense_is_refused(values: tuple[float, float, int]) -> None:
    with pytest.raises(ChargeRefused):
        Mechanism(sampling_rate=values[0], noise_multiplier=values[1], steps=values[2])


@pytest.mark.parametrize("values", [(0.0, 1e-5), (float("nan"), 1e-5), (float("inf"), 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_a_budget_that_makes_no_sense_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ChargeRefused):
        Budget(epsilon=values[0], delta=values[1])


def test_the_corners_of_what_is_allowed_are_accounted_for_in_time() -> None:
    begin = time.perf_counter()
    for q, sigma in itertools.product((1e-9, 0.5, 1.0), (0.05, 1000.0)):
        value = epsilon([Mechanism(sampling_rate=q, noise_multiplier=sigma, steps=1)], delta=1e-6)
        assert value >= 0
        assert not np.isnan(value)
    assert time.perf_counter() - begin < 30


@pytest.mark.parametrize("name", ["", "Patient 7", "a/b", "../x"])
def test_a_data_set_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ChargeRefused, match="data_set"):
        charge(Ledger(tmp_path), name)


def test_a_locked_ledger_is_unavailable_and_nothing_is_charged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, lock_wait_s=0.1)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        charge(ledger)
    other.close()
    assert charge(ledger).charged_epsilon > 0
