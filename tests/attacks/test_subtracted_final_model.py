"""A coordinator holds the sums of the model on everybody against those of the folds' models.

Each released sum is decoded to who is in it. What the final model adds must be in the span of what the folds' models
told: then no combination with it, whatever the factors, is of anybody whom the others did not give away already.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.analyses.preparation.table_sums import inner_folds
from fedage.common.protocol.messages import ANALYSE, join_iterates
from tests.attacks.test_subtracted_folds import FILE, HEALTHY, Attacker, atoms, smallest_difference

FINAL = FILE.replace("folds = {folds}", "folds = {folds}\nfinal_model = true")


@dataclass
class WithFinal(Attacker):
    """Asks for some of the folds, by their numbers in requests."""

    asked: tuple[int, ...] = ()

    @property
    def folds(self) -> tuple[int, ...]:  # type: ignore[override]  # any numbers, not a range
        return self.asked


def rank(told: list[np.ndarray]) -> int:
    return int(np.linalg.matrix_rank(np.array(told)))


@pytest.mark.parametrize(
    ("healthy", "others", "folds", "minimum", "rest"),
    [
        pytest.param(24, 0, 5, 10, "", id="a small site, two of five folds"),
        pytest.param(39, 0, 5, 10, "", id="three of five"),
        pytest.param(60, 0, 3, 10, "", id="a large site, inner folds drawn anew in each fold"),
        pytest.param(61, 0, 5, 10, "", id="a large site in five folds"),
        pytest.param(24, 15, 5, 10, HEALTHY.format(train_on="all"), id="24 and 15"),
        pytest.param(40, 20, 3, 10, HEALTHY.format(train_on="healthy"), id="40 and 20 who never train"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_the_final_model_sums_follows_from_the_folds(
    tmp_path: Path, healthy: int, others: int, folds: int, minimum: int, rest: str, seed: int
) -> None:
    text = FINAL.format(seed=seed, folds=folds, minimum=minimum) + rest
    every = WithFinal(tmp_path / "every", text, healthy, others, seed=seed, asked=tuple(range(folds)))
    before = every.told()
    final = WithFinal(tmp_path / "final", text, healthy, others, seed=seed, asked=(folds + 1,)).told()
    assert final, "the site answers for the final model"
    assert rank([*before, *final]) == rank(before)
    assert {tuple(atom) for atom in atoms([*before, *final])} == {tuple(atom) for atom in atoms(before)}
    assert min(np.count_nonzero(one) for one in final) >= minimum
    assert smallest_difference(final) >= minimum


@pytest.mark.parametrize(("healthy", "folds"), [(60, 3), (61, 5), (55, 4)])
def test_inner_folds_drawn_anew_would_add_to_it(tmp_path: Path, healthy: int, folds: int) -> None:
    """What the rule is against: the final model's inner folds of a large site as those of any fold's model."""
    text = FINAL.format(seed=1, folds=folds, minimum=10)
    attacker = WithFinal(tmp_path, text, healthy, seed=1, asked=tuple(range(folds)))
    before = attacker.told()
    cohort = attacker.site.cohort(attacker.campaign).cohort
    final = parts_for_fold(cohort, attacker.campaign, folds + 1)
    assert final["is_train"].all()
    anew = inner_folds(cohort[INNER_PLACE], folds=5, minimum_count=10)
    of_rule = inner_folds(final[INNER_PLACE], folds=5, minimum_count=10)
    masks = [[(inner == k).astype(float) for k in np.unique(inner)] for inner in (anew, of_rule)]
    assert rank([*before, *masks[0]]) > rank(before)
    assert rank([*before, *masks[1]]) == rank(before)


def test_a_file_without_it_has_no_such_fold(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path, FILE.format(seed=1, folds=5, minimum=10), 60)
    for fold in (6, 7, 1000):
        reply, arrays = attacker.send(ANALYSE, join_iterates({"table-preparation": {}}), fold=fold)
        assert (reply.status, reply.rule, arrays) == ("refused", "fold", {})
