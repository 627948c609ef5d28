"""Losses of outcomes: the published forms by numbers worked out apart, what is masked, and years that can be told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedage.common.losses import outcomes
from fedage.common.statistics.follow_up_years import by_year, usable_years

NAN = math.nan
RAW = torch.tensor([[0.5, -0.2, 0.0, 0.3, 0.1, -3.0]])
EVENT_IN_THIRD = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
FOUR_KNOWN = torch.tensor([[0.0, 0.0, 0.0, 0.0, NAN]])


def test_the_additive_hazard_is_miras() -> None:
    logits = outcomes.hazard_logits(RAW)
    expected = torch.tensor([[0.0758582, 0.0758582, 0.0758582, 0.0997505, 0.1090968]])
    torch.testing.assert_close(torch.sigmoid(logits), expected, rtol=0, atol=5e-8)
    published = [
        (EVENT_IN_THIRD, 0.9122231),
        (FOUR_KNOWN, 0.0854381),
        (torch.cat([EVENT_IN_THIRD, FOUR_KNOWN]), 0.4397745),
    ]
    for labels, loss in published:
        found = outcomes.hazard_loss(logits.expand(len(labels), -1), labels, after_event=False)
        assert found.item() == pytest.approx(loss, abs=5e-7)


def test_years_after_an_event_count_unless_published_masks_are_asked_for() -> None:
    logits = outcomes.hazard_logits(RAW)
    p = torch.sigmoid(logits)[0].double()
    each = [-math.log(1 - p[0]), -math.log(1 - p[1]), *(-math.log(x) for x in p[2:])]
    found = outcomes.hazard_loss(logits, EVENT_IN_THIRD, after_event=True)
    assert found.item() == pytest.approx(sum(each) / 5, rel=1e-6)


@pytest.mark.parametrize(("labels", "loss"), [(EVENT_IN_THIRD, 2.252806), (FOUR_KNOWN, 0.9116078)])
def test_softmax_of_years_is_the_public_codes(labels: torch.Tensor, loss: float) -> None:
    assert outcomes.softmax_risk_loss(torch.zeros(1, 6), labels).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("logits", [torch.linspace(-3, 2, 6), torch.tensor([60.0, 0, 0, 0, 0, 0]), torch.zeros(6)])
def test_softmax_of_years_against_a_loop(logits: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    labels = by_year(rng.exponential(4, 30), (rng.random(30) < 0.5).astype(float), years=5)
    p = torch.softmax(logits.double(), dim=0).tolist()
    total, known = 0.0, 0
    for row in labels:
        bins = [row[0], *np.diff(row), 1 - row[-1]]
        for label, probability in zip(bins, p, strict=True):
            if np.isfinite(label):
                known += 1
                chance = probability if label == 1 else 1 - probability
                total -= math.log(max(chance, 1e-300))
    batch = logits.float().expand(30, -1)
    found = outcomes.softmax_risk_loss(batch, torch.from_numpy(labels).float())
    assert torch.isfinite(found)
    if logits.max() < 50:  # beyond, 1 - p is not known to float32
        assert found.item() == pytest.approx(5 * total / known, rel=1e-4)


@pytest.mark.parametrize("form", ["softmax", "hazard"])
def test_what_is_not_known_moves_nothing(form: str) -> None:
    labels = torch.tensor([[0.0, 0.0, NAN, NAN, NAN], [NAN] * 5, [0.0, 1.0, 1.0, 1.0, 1.0]])
    raw = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = (
        outcomes.softmax_risk_loss(raw, labels)
        if form == "softmax"
        else outcomes.hazard_loss(outcomes.hazard_logits(raw), labels, after_event=True)
    )
    loss.backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[1] == 0).all()
    assert (raw.grad[2] != 0).any()
    nobody = torch.full((3, 5), NAN)
    assert outcomes.softmax_risk_loss(raw, nobody).item() == 0


def test_risks_of_both_forms_rise_with_the_years() -> None:
    raw = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    for risks in (outcomes.softmax_risks(raw), torch.sigmoid(outcomes.hazard_logits(raw))):
        assert (risks.diff(dim=1) >= 0).all()
        assert ((risks >= 0) & (risks <= 1)).all()


@pytest.mark.parametrize(
    ("loss", "make"),
    [
        (outcomes.diagnosis_loss, lambda: torch.randn(5, 2, generator=torch.Generator().manual_seed(0))),
        (outcomes.score_loss, lambda: torch.randn(5, generator=torch.Generator().manual_seed(0))),
    ],
)
def test_a_diagnosis_or_score_that_is_not_known_adds_nothing_and_moves_no_other(loss, make) -> None:
    given, known = make(), torch.tensor([1.0, NAN, 0.0, 1.0, NAN])
    parts = [float(loss(given[k : k + 1], known[k : k + 1])) for k in range(5)]
    assert parts[1] == parts[4] == 0
    assert float(loss(given, known)) == pytest.approx(sum(parts) / 5, rel=1e-5)


# --- years ---


def cells(time: np.ndarray, event: np.ndarray, told: np.ndarray) -> list[int]:
    """Every count that labels of these years tell, one by one."""
    found, last = [], 0
    for year in np.flatnonzero(told) + 1:
        found.append(
            sum(1 for t, e in zip(time, event, strict=True) if (e and last < t <= year) or (e and t == last == 0))
        )
        found.append(sum(1 for t, e in zip(time, event, strict=True) if not e and last <= t < year))
        last = int(year)
    if last:
        found.append(sum(1 for t, e in zip(time, event, strict=True) if t > last or (t == last and not e)))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_no_year_that_is_told_singles_out_a_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 200))
    time = rng.exponential(rng.uniform(1, 8), n).round(int(rng.integers(0, 3)))
    event = (rng.random(n) < rng.uniform(0.1, 0.9)).astype(float)
    told = usable_years(time, event, years=5, minimum_count=10)
    assert all(count == 0 or count >= 10 for count in cells(time, event, told))


def test_enough_of_everything_tells_every_year_and_few_events_tell_later_ones_together() -> None:
    time = np.repeat([0.5, 1.5, 2.5, 3.5, 4.5, 9.0], 20)
    event = np.repeat([1.0, 1, 1, 1, 1, 0], 20)
    assert usable_years(time, event, years=5, minimum_count=10).all()
    event[20:35] = 0  # 5 events and 15 censored in the second year: together with the third
    np.testing.assert_array_equal(usable_years(time, event, years=5, minimum_count=10), [True, False, True, True, True])
    assert not usable_years(time[:100], event[:100], years=5, minimum_count=10)[4]  # nobody is left


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_a_few_of_unknown_follow_up_leave_nothing_to_tell(bad: float) -> None:
    time, event = np.repeat([0.5, 9.0], 40), np.repeat([1.0, 0.0], 40)
    time[:3] = bad
    assert not usable_years(time, event, years=5, minimum_count=10).any()
    time[:12] = bad
    assert usable_years(time, event, years=5, minimum_count=10).any()
    labels = by_year(time, event, years=5)
    assert np.isnan(labels[:12]).all()
