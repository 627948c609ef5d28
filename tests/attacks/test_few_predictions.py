"""Models that predict 0 or 130 years on either side of a value: sums in which few predictions differ do not leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.inbox import handlers
from fedage.common.analyses.evaluation.metrics import REFERENCE_AGE_YEARS
from fedage.common.analyses.plan import registered
from tests.attacks.table_attacker import ROUNDS, VALIDATION, Attacker

OUT = "correction.2.weight"
Arrays = Mapping[str, NDArray[Any]]
LOW_YEARS, AGE_SD = 0.5, 8.0


def values_of(attacker: Attacker) -> NDArray[np.float64]:
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    return x[:, 0]


def hard_attack(attacker: Attacker, first: Arrays) -> tuple[int, int]:
    """How many patients come out, and in how many rounds sums were withheld.

    Without the bounds on a model: 0 or 130 years on either side of a value of one feature that comes down by rounds.

    Where the count rises by one, the sum of ages tells the age of whoever lies between the two values.
    """
    x, run, known = values_of(attacker), attacker.new_run(), []
    analysis = registered(attacker.campaign)[VALIDATION]
    layout, withheld = analysis.layout(analysis.first()), 0
    before: tuple[float, float] | None = (0.0, 0.0)
    places = x.mean() + x.std() * np.linspace(2.2, -2.2, ROUNDS)
    for number, place in enumerate(places, start=1):
        model = {name: np.array(array) for name, array in first.items()}
        model[OUT][:], model["intercept"][0], model["means"][0] = 0.0, 65.0, place
        model["coefficients"][:], model["coefficients"][0] = 0.0, 1e7
        reply, _, sums = attacker.send(model, run=run, round_number=number)
        assert reply.status == "ok"
        if sums is None:
            withheld, before = withheld + 1, None
            continue
        n, age = float(layout.block(sums, "n")), float(layout.block(sums, "age"))
        beyond = (float(layout.block(sums, "predicted")) + n * REFERENCE_AGE_YEARS) / 130.0
        # Σ(Ω − r)(ŷ − r) = 130 Σ_beyond(Ω − r) − r Σ(Ω − r)
        ages = (float(layout.block(sums, "age_predicted")) + REFERENCE_AGE_YEARS * age) / 130.0
        if number > 1 and before is not None and round(beyond - before[0]) == 1:
            known.append(((places[number - 2] + place) / 2, ages - before[1] + REFERENCE_AGE_YEARS))
        before = beyond, ages
    return patients_known(attacker, known), withheld


def patients_known(attacker: Attacker, known: list[tuple[float, float]]) -> int:
    """How many validation patients are among those told."""
    site, rows = attacker.site.found, attacker.part("is_validation")
    feature, age = values_of(attacker)[rows], site.cohort["age_years"][rows]
    unit = values_of(attacker).std()
    told = [(np.abs(feature - f) < 0.05 * unit) & (np.abs(age - a) < 0.5) for f, a in known]
    return int(np.any(told, axis=0).sum()) if told else 0


def test_sums_over_few_who_differ_are_withheld_though_any_model_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rule, alone: where fewer than the minimum count differ in what a model says of them, nothing leaves.

    Without either rule this attack told feature and age of 12 of 23 patients.
    """
    monkeypatch.setattr(handlers, "admit_model", lambda *_args, **_named: None)
    monkeypatch.setattr(handlers, "of_a_round", lambda told, *_args, **_named: told)
    attacker = Attacker(tmp_path)
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    first = attacker.first(attacker.crafted_sums(x.mean(axis=0), x.std(axis=0), age_mean=LOW_YEARS, age_sd=AGE_SD))
    found, withheld = hard_attack(attacker, first)
    print(f"without the bounds: {found} of {len(attacker.part('is_validation'))} patients, {withheld} rounds withheld")
    assert withheld >= 10
    assert found <= 3
