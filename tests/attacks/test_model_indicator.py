"""Each round's model as an indicator of who lies beyond a value: what the validation sums then give away.

With a model that says one age below a value of a feature and rises above it, Σŷ and Σŷ·Ω over the validation patients
are about those beyond. One patient beyond: the ratio is that patient's age, and the rise the feature. The value then
moves down to the next one. The yield is the number of patients whose feature (within 0.05 SD) and age (within half a
year) come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client import handlers
from fedage.client.training import predict_years
from fedage.common.analyses.evaluation import REFERENCE_AGE_YEARS
from fedage.common.analyses.plan import registered
from fedage.common.continuity import learnt_norm
from fedage.common.estimators.configure import step_limits
from fedage.common.estimators.first_model import roles
from tests.attacks.table_attacker import FEATURES, ROUNDS, VALIDATION, Attacker

W, B, OUT = "correction.0.weight", "correction.0.bias", "correction.2.weight"
Arrays = Mapping[str, NDArray[Any]]
LOW_YEARS, AGE_SD = 0.5, 8.0
"""So low that what the network takes off just below the value hardly shows."""


class Indicator:
    """Reads patients off the sums of models whose prediction rises from a low age beyond a value of feature 0."""

    def __init__(self, attacker: Attacker) -> None:
        self.attacker = attacker
        self.known: list[tuple[float, float]] = []  # feature 0 and age
        self._supposed: list[tuple[float, float]] = []
        analysis = registered(attacker.campaign)[VALIDATION]
        self._layout = analysis.layout(analysis.first())

    def predicted(self, model: Arrays, feature: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.zeros((feature.size, FEATURES), dtype=np.float32)
        x[:, 0] = feature
        weights = {name: np.asarray(array, dtype=np.float32) for name, array in model.items()}
        return predict_years(self.attacker.estimator(), weights, x, device="cpu", threads=1)

    def read(self, model: Arrays, sums: NDArray[np.float64], *, grid: NDArray[np.float64]) -> None:
        """Take in one round's sums; a patient counts as known once two rounds agree on them."""

        def block(name: str) -> float:
            return float(self._layout.block(sums, name))

        n, low = block("n"), float(self.predicted(model, np.array([-1e6]))[0])
        # Σ(ŷ − low) and Σ(Ω − r)(ŷ − low); what the sums are taken around is known.
        rise = block("predicted") - n * (low - REFERENCE_AGE_YEARS)
        product = block("age_predicted") - (low - REFERENCE_AGE_YEARS) * block("age")
        for feature, age in self.known:
            up = float(self.predicted(model, np.array([feature]))[0]) - low
            rise, product = rise - up, product - up * (age - REFERENCE_AGE_YEARS)
        if rise < 3.0:
            self._supposed = []
            return
        age = product / rise + REFERENCE_AGE_YEARS
        ups = self.predicted(model, grid) - low
        feature = float(np.interp(rise, ups, grid))
        here = (feature, age)
        if any(abs(age - a) < 0.5 and abs(feature - f) < 0.05 for f, a in self._supposed):
            self.known.append(here)
            self._supposed = []
        else:
            self._supposed = [here]


def values_of(attacker: Attacker) -> NDArray[np.float64]:
    x = attacker.site.found.samples
    assert x is not None
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


def inside_models(attacker: Attacker, first: Arrays, *, steep: float, arrays: Any) -> Iterator[Arrays]:
    """Within the bounds: first towards a rise at the value of the first model's mean, then down as far as it goes."""
    limits = step_limits(attacker.campaign)
    assert limits is not None
    now, path = {name: np.array(array) for name, array in first.items()}, 0.0
    goal = {name: np.array(array) for name, array in first.items()}
    goal[W][0], goal[B][0], goal[OUT][0, 0] = np.eye(FEATURES)[0] * steep, 0.0, steep
    for _ in range(ROUNDS):
        yield now
        change = {name: goal[name].astype(np.float64) - now[name] for name in now}
        length = learnt_norm(change, arrays)
        if length < 1e-6:
            goal[B][0] += 0.25 * steep  # a quarter of a unit down
            change = {name: goal[name].astype(np.float64) - now[name] for name in now}
            length = learnt_norm(change, arrays)
        step = min(0.999 * limits.step_norm, length, limits.path_norm - path)
        path += step
        now = {name: (now[name] + change[name] * (step / length)).astype(np.float32) for name in now}
        if step <= 1e-6:
            return


def run_attack(attacker: Attacker, models: Iterator[Arrays], *, sums: Any, least: int = 0) -> int:
    indicator, run = Indicator(attacker), attacker.new_run()
    x = values_of(attacker)
    grid = np.linspace(x.mean() - x.std(), x.mean() + 4 * x.std(), 4000)
    for number, model in enumerate(models, start=1):
        reply, _, told = attacker.send(model, run=run, round_number=number, sums=sums if number == 1 else None)
        assert reply.status == "ok", reply.reason
        if told is not None and number > least:
            indicator.read(model, told, grid=grid)
    return patients_known(attacker, indicator.known)


def test_sums_over_few_who_differ_are_withheld_though_any_model_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rule, alone: where fewer than the minimum count differ in what a model says of them, nothing leaves.

    Without either rule this attack told feature and age of 12 of 23 patients.
    """
    monkeypatch.setattr(handlers, "admit_model", lambda *_args, **_named: None)
    attacker = Attacker(tmp_path)
    x = attacker.site.found.samples
    assert x is not None
    first = attacker.first(attacker.crafted_sums(x.mean(axis=0), x.std(axis=0), age_mean=LOW_YEARS, age_sd=AGE_SD))
    found, withheld = hard_attack(attacker, first)
    print(f"without the bounds: {found} of {len(attacker.part('is_validation'))} patients, {withheld} rounds withheld")
    assert withheld >= 10
    assert found <= 3


def test_inside_the_bound_a_run_gives_few_patients(tmp_path: Path) -> None:
    best = 0
    for seed in range(3):
        attacker = Attacker(tmp_path / str(seed), seed=seed)
        x = attacker.site.found.samples
        assert x is not None
        arrays = roles(attacker.campaign, attacker.names)
        for around, stretch in ((2.0, 4.0), (1.0, 8.0)):
            means, sds = x.mean(axis=0), x.std(axis=0)
            means[0], sds[0] = means[0] + around * sds[0], sds[0] / stretch
            sums = attacker.crafted_sums(means, sds, age_mean=LOW_YEARS, age_sd=AGE_SD)
            first = attacker.first(sums)
            for steep in (1.0, 1.5):
                models = inside_models(attacker, first, steep=steep, arrays=arrays)
                found = run_attack(attacker, models, sums=sums, least=3)
                print(seed, around, stretch, steep, found)
                best = max(best, found)
    print(f"inside the bound: feature and age of at most {best} patients in a run")
    assert best <= 3
