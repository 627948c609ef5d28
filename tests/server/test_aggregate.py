import numpy as np
import pytest

from fedage.server.aggregate import Update, UpdateRefused, check_update, federated_average

WEIGHTS = {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([0.5], dtype=np.float32)}


def update(value: float, n: int) -> Update:
    return Update({name: np.full_like(array, value) for name, array in WEIGHTS.items()}, n)


def test_updates_are_weighted_by_patients() -> None:
    # (1·10 + 4·30) / 40 = 3.25 on every weight; the norm is 3.25·√3.
    following, norm = federated_average(WEIGHTS, {"a": update(1.0, 10), "b": update(4.0, 30)})
    np.testing.assert_allclose(following["w"], [4.25, 5.25])
    np.testing.assert_allclose(following["b"], [3.75])
    assert norm == pytest.approx(3.25 * 3**0.5)
    assert following["w"].dtype == np.float32


def test_one_site_equals_its_own_model() -> None:
    following, _ = federated_average(WEIGHTS, {"a": update(0.25, 7)})
    np.testing.assert_array_equal(following["w"], WEIGHTS["w"] + np.float32(0.25))


def test_order_of_arrival_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    updates = {
        site: Update(
            {n: rng.normal(size=a.shape).astype(np.float32) for n, a in WEIGHTS.items()}, int(rng.integers(1, 99))
        )
        for site in "gcafbed"
    }
    first, _ = federated_average(WEIGHTS, updates)
    second, _ = federated_average(WEIGHTS, dict(reversed(updates.items())))
    for name in WEIGHTS:
        assert first[name].tobytes() == second[name].tobytes()


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (Update({"w": np.zeros(2)}, 3), "arrays"),
        (Update({"w": np.zeros(3), "b": np.zeros(1)}, 3), "shape"),
        (Update({"w": np.array([0.0, np.nan]), "b": np.zeros(1)}, 3), "finite"),
        (Update({"w": np.zeros(2), "b": np.zeros(1)}, 0), "at least one patient"),
        (Update({"w": np.zeros(2), "b": np.zeros(1)}, 11), "more patients"),
    ],
)
def test_updates_that_do_not_fit_are_refused(bad: Update, what: str) -> None:
    with pytest.raises(UpdateRefused, match=what):
        check_update(bad, WEIGHTS, patients=10)
