"""Noise from a secret: of its law, repeated by its key alone, and rounded."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, norm, uniform

from fedage.common.privacy.noise import GRID, SecretRandom, key_for, noised

KEY = key_for(b"\1" * 32, "a use")


def test_uniform_and_normal_numbers_are_of_their_laws() -> None:
    random = SecretRandom(KEY)
    assert kstest(random.uniform(20_000), uniform.cdf).pvalue > 1e-3
    numbers = random.normal(40_001)
    assert kstest(numbers, norm.cdf).pvalue > 1e-3
    pairs = numbers[:40_000].reshape(2, -1)
    assert abs(np.corrcoef(pairs)[0, 1]) < 0.03
    assert abs(np.corrcoef(pairs**2)[0, 1]) < 0.03
    assert numbers.std() == pytest.approx(1, abs=0.02)


def test_a_stream_follows_from_its_key_and_nothing_else() -> None:
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    again = SecretRandom(KEY).normal(7)
    np.testing.assert_array_equal(SecretRandom(KEY).normal(7), again)
    assert SecretRandom(KEY).seed(1) != SecretRandom(KEY).seed(2)
    assert repr(SecretRandom(KEY)) == "SecretRandom(…)"
    with pytest.raises(ValueError, match="32 bytes"):
        SecretRandom(b"short")


@pytest.mark.parametrize(
    "parts", [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ("a\0b",), ("a", "b", "c")], ids=repr
)
def test_keys_of_different_uses_differ(parts: tuple[str, ...]) -> None:
    others = [("a", "bc"), ("", "ab"), ("abc",)]
    keys = {key_for(b"\2" * 32, *one) for one in (parts, *others)} | {key_for(b"\3" * 32, *parts)}
    assert len(keys) == 5


@pytest.mark.parametrize(("sd", "total"), [(1.0, 3.7), (1e-6, 1e3), (250.0, -1e-9)])
def test_a_noised_sum_lies_on_the_grid_and_has_the_sd(sd: float, total: float) -> None:
    made = noised(np.full(5000, total), sd=sd, random=SecretRandom(KEY))
    steps = made / (sd * GRID)
    np.testing.assert_allclose(steps, np.rint(steps), rtol=1e-15)
    assert (made - total).std() == pytest.approx(sd, rel=0.05)
    assert (made - total).mean() == pytest.approx(0, abs=4 * sd / 5000**0.5)
