"""Numbers in a wrapping ring: there and back, sums that carry, masks that cancel, and what is uniform."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedage.common.networks.masked_update import mean_update, update_rows
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy import ring
from fedage.common.privacy.masked_statistic import statistic_rows, statistic_words, summed_statistic
from fedage.common.statistics.statistic import MAX_PATIENTS, Field, Layout

SIZES = np.array([1.0, 1e3, 3e11, 1e28, 1.8e43, 8.8e86])


def whole(rows: ring.Words) -> list[int]:
    """Rows as Python's whole numbers, in two's complement."""
    bits = 64 * rows.shape[1]
    found = [sum(int(word) << (64 * k) for k, word in enumerate(row)) for row in rows]
    return [value - (1 << bits) if value >> (bits - 1) else value for value in found]


@pytest.mark.parametrize("words", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_adding_and_subtracting_are_those_of_whole_numbers(words: int, seed: int) -> None:
    rng, bits = np.random.default_rng(seed), 64 * words
    one, other = (rng.integers(0, 2**64, size=(200, words), dtype=np.uint64) for _ in range(2))
    for edge in (0, 2**64 - 1):  # carries and borrows over several words
        one[:20, :-1] = edge
        other[10:30, :-1] = 2**64 - 1 - edge
    for change, sign in ((ring.add, 1), (ring.subtract, -1)):
        found = one.copy()
        change(found, other)
        expected = [
            (a + sign * b + (1 << (bits - 1))) % (1 << bits) for a, b in zip(whole(one), whole(other), strict=True)
        ]
        assert [value + (1 << (bits - 1)) for value in whole(found)] == expected


@pytest.mark.parametrize("bound", SIZES)
@pytest.mark.parametrize("sites", [2, 30, 10_000])
def test_a_statistic_comes_back_to_its_last_digits(bound: float, sites: int) -> None:
    rng = np.random.default_rng(1)
    words = statistic_words(Layout((Field("x", (500,), lower=-bound, upper=bound),)))
    places = ring.places_of(np.full(500, bound), sites=sites, words=words)
    for scale in (1.0, 1e-6, 1e-12):
        values = rng.uniform(-1, 1, 500) * bound * scale
        rows = ring.encode(values, places, bounds=bound, words=words)
        np.testing.assert_allclose(ring.decode(rows, places), values, rtol=3e-16, atol=2.0 ** -(int(places[0]) + 1))


def test_sums_of_counts_are_exact_and_others_as_near_as_numbers_are() -> None:
    layout = Layout(
        (
            Field("n", (3,), lower=0.0, upper=MAX_PATIENTS, whole=True),
            Field("x", (200,), lower=-1e12, upper=1e12),
            Field("w", (50,), lower=0.0, upper=2.7e43 * MAX_PATIENTS),
        )
    )
    rng = np.random.default_rng(2)
    vectors = [
        np.concatenate([rng.integers(0, 10**6, 3), rng.normal(0, 1e3, 200), rng.exponential(1e4, 50)]) for _ in range(7)
    ]
    total = np.zeros((layout.size, statistic_words(layout)), dtype=np.uint64)
    for vector in vectors:
        ring.add(total, statistic_rows(layout, vector, sites=7))
    found = summed_statistic(layout, total, sites=7)
    exact = [math.fsum(column) for column in np.transpose(vectors)]
    assert np.array_equal(found[:3], np.sum(vectors, axis=0)[:3])
    np.testing.assert_allclose(found, exact, rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1.1e12, -2e12])
def test_what_could_wrap_is_refused(odd: float) -> None:
    places = ring.places_of(np.full(3, 1e12), sites=3, words=2)
    with pytest.raises(ring.OutOfRange, match="outside the bounds"):
        ring.encode(np.array([0.0, odd, 1.0]), places, bounds=1e12, words=2)
    with pytest.raises(ring.OutOfRange, match="do not fit"):
        ring.places_of(np.array([1e80]), sites=3, words=2)


@pytest.mark.parametrize("words", [1, 4])
def test_masks_cancel_and_are_uniform(words: int) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 2**64, size=(70_000, words), dtype=np.uint64)
    seed, other = rng.bytes(32), rng.bytes(32)
    masked = rows.copy()
    ring.add_mask(masked, seed)
    assert np.mean(masked == rows) < 1e-3
    ring.add_mask(masked, other, sign=-1)
    ring.add_mask(masked, other)
    ring.add_mask(masked, seed, sign=-1)
    assert np.array_equal(masked, rows)
    zeros = np.zeros((70_000, words), dtype=np.uint64)
    ring.add_mask(zeros, seed)
    # Mean of uniform words within five standard errors, and each bit as often set as not.
    share = zeros.astype(np.float64) / 2.0**64
    assert abs(share.mean() - 0.5) < 5 * np.sqrt(1 / 12 / share.size)
    bits = np.unpackbits(zeros.view(np.uint8)).reshape(-1, 8).mean(axis=0)
    assert np.all(np.abs(bits - 0.5) < 5 * 0.5 / np.sqrt(zeros.size * 8))


@pytest.mark.parametrize("sites", [2, 7, 30])
def test_a_mean_of_masked_updates_is_the_mean_with_running_statistics_too(sites: int) -> None:
    rng = np.random.default_rng(4)
    model = {
        "w": rng.normal(size=(5, 7)).astype(np.float32),
        "m": rng.normal(0, 30, 4).astype(np.float32),
        "v": rng.uniform(0, 900, 4).astype(np.float32),
        "fixed": np.ones(3, dtype=np.float32),
    }
    roles = ArrayRoles(learnt=("w",), running=(("m", "v"),), fixed=("fixed",))
    limits = StepLimits(step_norm=2.0, path_norm=9.0)
    total, weighted, n = None, {name: np.zeros(array.shape) for name, array in model.items()}, 0
    for site in range(sites):
        change = {
            "w": rng.normal(0, 0.1, (5, 7)).astype(np.float32),
            "m": rng.normal(0, 5, 4).astype(np.float32),
            "v": rng.normal(0, 50, 4).astype(np.float32),
            "fixed": np.zeros(3, dtype=np.float32),
        }
        weight = 10 + 90 * site
        rows = update_rows(model, change, roles, limits=limits, weight=weight, loss=float(site), sites=sites)
        total = rows if total is None else total
        if rows is not total:
            ring.add(total, rows)
        n += weight
        for name in weighted:
            weighted[name] += weight * change[name].astype(np.float64)
    assert total is not None
    mean = mean_update(total, model, roles, limits=limits, sites=sites)
    assert mean.n == n
    for name in weighted:
        np.testing.assert_allclose(mean.change[name], weighted[name] / n, rtol=1e-6, atol=1e-8)
    with pytest.raises(ring.OutOfRange):
        update_rows(model, {**change, "w": np.full((5, 7), 3.0)}, roles, limits=limits, weight=1, loss=0.0, sites=2)
    with pytest.raises(ring.OutOfRange, match="sum to nothing"):
        mean_update(np.zeros_like(total), model, roles, limits=limits, sites=sites)
