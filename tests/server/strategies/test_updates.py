import numpy as np
import pytest

from fedage.server.campaign.strategies import Update, UpdateRefused, check_update

WEIGHTS = {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([0.5], dtype=np.float32)}


@pytest.mark.parametrize(
    ("change", "n", "what"),
    [
        ({"w": np.zeros(2)}, 3, "arrays"),
        ({"w": np.zeros(3), "b": np.zeros(1)}, 3, "shape"),
        ({"w": np.array([0.0, np.nan]), "b": np.zeros(1)}, 3, "finite"),
        ({"w": np.zeros(2), "b": np.zeros(1)}, 0, "at least one patient"),
        ({"w": np.zeros(2), "b": np.zeros(1)}, 11, "more patients"),
    ],
)
def test_updates_that_do_not_fit_are_refused(change: dict[str, np.ndarray], n: int, what: str) -> None:
    with pytest.raises(UpdateRefused, match=what):
        check_update(Update(site="a", change=change, n=n), WEIGHTS, patients=10)
