"""Each round's model as an indicator of who lies beyond a value: what the validation sums then give away.

A model that is linear for most patients and bends for a few: what Σŷ and Σŷ·Ω lack against the line is those few
patients' bend, and ages times bend. One patient beyond the bend: the ratio is that patient's age, the size the feature.
The bend then moves on to the next one. Nearly all predictions move in each round, so that no rule for few who differ
holds it up. Three bends: a hidden unit (GELU), the bounds of ages that predictions are cut to, and |e| at zero, which
tells ages alone. The yield is the number of patients whose feature (within 0.05 SD) and age (within half a year) come
out, of |e| whose age does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedage.client.inbox import handlers
from fedage.common.analyses.evaluation.metrics import REFERENCE_AGE_YEARS
from fedage.common.analyses.plan import registered
from fedage.common.estimators.configure import step_limits
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import learnt_norm
from tests.attacks.table_attacker import FEATURES, ROUNDS, VALIDATION, Attacker
from tests.of_estimators import predict_years, roles

W, B, OUT, SHIFT = "correction.0.weight", "correction.0.bias", "correction.2.weight", "correction.2.bias"
Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]
AGE_SD = 8.0
BEND_YEARS = 12.0
"""How much steeper the line is behind the bend, in years per SD: so little that no prediction is cut."""
LEAST_YEARS = 0.005
"""Of a bend: less is put down to rounding."""


def values_of(attacker: Attacker) -> Floats:
    """Feature 0 of all patients here, in SDs from its mean."""
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    return np.asarray((x[:, 0] - x[:, 0].mean()) / x[:, 0].std())


def patients_known(attacker: Attacker, known: list[tuple[float, float]]) -> int:
    """How many validation patients' feature and age are among those told."""
    rows = attacker.part("is_validation")
    feature, age = values_of(attacker)[rows], attacker.site.found.cohort["age_years"][rows]
    told = [(np.abs(feature - f) < 0.05) & (np.abs(age - a) < 0.5) for f, a in known]
    return int(np.any(told, axis=0).sum()) if told else 0


def ages_known(attacker: Attacker, ages: list[float]) -> int:
    """How many validation patients' age is among those told."""
    there = attacker.site.found.cohort["age_years"][attacker.part("is_validation")]
    return int(sum(any(abs(age - told) < 0.5 for told in ages) for age in there))


@dataclass
class Sums:
    """What one round's validation tells."""

    n: float
    age: float
    predicted: float
    predicted_squared: float
    age_predicted: float
    absolute_error: float

    @classmethod
    def of(cls, attacker: Attacker, vector: Floats) -> Sums:
        """Around zero, not around the reference age."""
        analysis = registered(attacker.campaign)[VALIDATION]
        layout, r = analysis.layout(analysis.first()), REFERENCE_AGE_YEARS
        n, u, v, vv, uv, absolute = (
            float(layout.block(vector, name))
            for name in ("n", "age", "predicted", "predicted_squared", "age_predicted", "absolute_error")
        )
        product = uv + r * u + r * v + n * r * r
        return cls(n, u + n * r, v + n * r, vv + 2 * r * v + n * r * r, product, absolute)


@dataclass
class Reader:
    """Reads patients off what sums lack against a line in feature 0, from the lowest value up.

    `predicted` (model, values of feature 0 in SDs) and `line` (model: intercept, slope per SD) are the attacker's own
    computation of its models.
    """

    predicted: Callable[[Arrays, Floats], Floats]
    line: Callable[[Arrays], tuple[float, float]]
    known: list[tuple[float, float]] = field(default_factory=list)
    last: str = "nobody"
    """Beside those known: "nobody", "one", "several", or "wrong": who seemed one before was several."""
    _supposed: bool = False
    _clean: list[tuple[Arrays, float]] = field(default_factory=list)
    _first: tuple[float, float, float] | None = None

    def read(self, model: Arrays, told: Sums) -> None:
        """Take in one round's sums. Of three equations two give the patient, and the third tells whether it is one."""
        a, b = self.line(model)
        if self._first is None:  # all on the line: Σz, Σz² and ΣΩz
            z = (told.predicted - told.n * a) / b
            zz = (told.predicted_squared - told.n * a * a - 2 * a * b * z) / b**2
            self._first = z, zz, (told.age_predicted - told.age * a) / b
        z, zz, age_z = self._first
        bend = told.predicted - (told.n * a + b * z)
        product = told.age_predicted - (told.age * a + b * age_z)
        square = told.predicted_squared - (told.n * a * a + 2 * a * b * z + b * b * zz)
        for value, age in self.known:
            of_one, of_square = self._bend(model, np.array([value]))
            bend, product, square = bend - of_one[0], product - age * of_one[0], square - of_square[0]
        if bend < LEAST_YEARS * (1 + len(self.known)):
            self._fit(model, told.age_predicted - (told.age * a + b * age_z))
            self.last, self._supposed = "nobody", False
            return
        if self._supposed:  # what was taken for one patient leaves something over
            self.known.pop()
            self.last, self._supposed = "wrong", False
            return
        value, age = self._value(model, bend), product / bend
        expected = float(self._bend(model, np.array([value]))[1][0])
        is_one = abs(square - expected) < 0.01 + 0.003 * len(self.known) and 0 < age < 130
        self.last, self._supposed = "one" if is_one else "several", is_one
        if is_one:
            self.known.append((value, age))

    def _fit(self, model: Arrays, product: float) -> None:
        """The ages of all known, from the last rounds that told of nobody else: the larger a bend, the better."""
        self._clean = [*self._clean, (model, product)][-6:]
        values = np.array([value for value, _ in self.known])
        if values.size:
            bends = np.array([self._bend(each, values)[0] for each, _ in self._clean])
            target = np.array([each for _, each in self._clean])
            before = np.array([age for _, age in self.known])
            # What several rounds leave open stays as it was.
            change = np.linalg.lstsq(bends, target - bends @ before, rcond=1e-4)[0]
            self.known = list(zip(values.tolist(), (before + change).tolist(), strict=True))

    def _value(self, model: Arrays, bend: float) -> float:
        """The value of feature 0 whose prediction is so much more than on the line: it falls with the value."""
        grid = np.linspace(-4, 4, 16001)
        return float(np.interp(-bend, -self._bend(model, grid)[0], grid))

    def _bend(self, model: Arrays, values: Floats) -> tuple[Floats, Floats]:
        """What predictions, and their squares, are more than on the line."""
        a, b = self.line(model)
        predicted, line = self.predicted(model, values), a + b * values
        return np.asarray(predicted - line), np.asarray(predicted**2 - line**2)


def searching(reader: Reader, *, start: float, most: float, least: float) -> Iterator[float]:
    """Places for a bend, upwards: back where several patients came in at once, and a look twice where one did."""
    clean, step = start, most
    yield clean
    while True:
        place = clean + step
        yield place
        if reader.last == "one":
            yield place + max(step / 3, 0.01)
        if reader.last in ("several", "wrong") and step > least:
            step = step / 2 if reader.last == "several" else step / 3
        else:
            clean, step = place, min(2 * step, most)


def reader_of(attacker: Attacker, *, on_line: tuple[float, float]) -> Reader:
    """`on_line`: two values of feature 0 in SDs between which every model is straight."""
    means, sds = public(attacker)
    estimator = attacker.estimator()

    def predicted(model: Arrays, values: Floats) -> Floats:
        x = np.tile(means, (values.size, 1))
        x[:, 0] = means[0] + values * sds[0]
        weights = {name: np.asarray(array, dtype=np.float32) for name, array in model.items()}
        return predict_years(estimator, weights, x.astype(np.float32), device="cpu", threads=1)

    def line(model: Arrays) -> tuple[float, float]:
        low, high = predicted(model, np.array(on_line))
        slope = (high - low) / (on_line[1] - on_line[0])
        return float(low - slope * on_line[0]), float(slope)

    return Reader(predicted, line)


def public(attacker: Attacker) -> tuple[Floats, Floats]:
    """Means and SDs that a preparation tells honestly: the attacker knows them."""
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    return x.mean(axis=0), x.std(axis=0)


def first_of(
    attacker: Attacker, *, slope: float, level: float, age_sd: float, centre: float, stretch: float
) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Invented sums whose first model says `level` + `slope` · z of feature 0, z its value in SDs of this site.

    The network's scale is `age_sd` years, its 0 is at `centre` SDs and its unit 1 / `stretch` of an SD.
    """
    means, sds = public(attacker)
    means[0], sds[0] = means[0] + centre * sds[0], sds[0] / stretch
    sums = attacker.crafted_sums(means, sds, age_mean=level + slope * centre, age_sd=age_sd)
    analysis_slope = slope / stretch  # per unit of the network
    sums = attacker.with_slope(sums, sds, slope=analysis_slope)
    return sums, attacker.first(sums)


def towards(first: Arrays, goals: Iterator[Arrays], attacker: Attacker, *, bounded: bool) -> Iterator[Arrays]:
    """Models from the first to each goal in turn, as far as steps and path allow; without bounds the goals at once."""
    limits, arrays = step_limits(attacker.campaign), roles(attacker.campaign, attacker.names)
    assert limits is not None
    assert isinstance(arrays, ArrayRoles)
    now, path = {name: np.array(array) for name, array in first.items()}, 0.0
    yield now
    sent = 1
    for goal in goals:
        while sent < ROUNDS:
            change = {name: np.asarray(goal[name], dtype=np.float64) - now[name] for name in now}
            length = learnt_norm(change, arrays)
            step = min(0.999 * limits.step_norm, 0.999 * limits.path_norm - path, length) if bounded else length
            if length < 1e-9:
                break
            if step < 1e-9:
                return
            path, sent = path + step, sent + 1
            now = {name: (now[name] + change[name] * (step / length)).astype(np.float32) for name in now}
            yield now
        if sent >= ROUNDS:
            return


def run_attack(attacker: Attacker, models: Iterator[Arrays], *, sums: Any, take: Callable[[Arrays, Sums], None]) -> int:
    """Send them; returns in how many rounds sums were withheld."""
    run, withheld = attacker.new_run(), 0
    for number, model in enumerate(models, start=1):
        reply, _, told = attacker.send(model, run=run, round_number=number, sums=sums if number == 1 else None)
        assert reply.status == "ok", (number, reply.rule, reply.reason)
        if told is None:
            withheld += 1
        else:
            take(model, Sums.of(attacker, told))
    return withheld


def bending_goals(first: Arrays, *, steep: float, out: float, places: Iterator[float]) -> Iterator[Arrays]:
    """One hidden unit that bends upwards at each place in turn, in the network's units: flat below, a line above."""
    for place in places:
        goal = {name: np.array(array) for name, array in first.items()}
        goal[W][0], goal[B][0], goal[OUT][0, 0] = np.eye(FEATURES)[0] * steep, -steep * place, out
        yield goal


def bend_yield(attacker: Attacker, *, steep: float, stretch: float, start: float, bounded: bool) -> int:
    """By a hidden unit: the first model is a line already, so that no two patients' predictions are the same."""
    sums, first = first_of(attacker, slope=3.0, level=30.0, age_sd=AGE_SD, centre=start, stretch=stretch)
    reader = reader_of(attacker, on_line=(3.0, 4.0))
    # Without bounds as it likes; inside of them only forwards, as each step back costs path.
    places: Iterator[float] = searching(reader, start=-0.5, most=0.12, least=0.002)
    if bounded:
        places = iter(np.linspace(0, 60, 2000))
    out = BEND_YEARS / (steep * AGE_SD * stretch)
    goals = bending_goals(first, steep=steep, out=out, places=places)
    run_attack(attacker, towards(first, goals, attacker, bounded=bounded), sums=sums, take=reader.read)
    return patients_known(attacker, reader.known)


def shifting_goals(first: Arrays, *, steps_years: Iterable[float], age_sd: float) -> Iterator[Arrays]:
    """The first model and a constant: all predictions move alike."""
    for years in steps_years:
        goal = {name: np.array(array) for name, array in first.items()}
        goal[SHIFT][0] = years / age_sd
        yield goal


def cut_yield(attacker: Attacker) -> tuple[int, int]:
    """By the lower bound of ages: the line sinks, and the lowest predictions are cut to 0, one after the other."""
    sums, first = first_of(attacker, slope=10.0, level=30.0, age_sd=12.0, centre=0.0, stretch=1.0)
    reader = reader_of(attacker, on_line=(2.5, 3.5))
    sinking = (-place for place in searching(reader, start=4.0, most=1.0, least=0.02))
    goals = shifting_goals(first, steps_years=sinking, age_sd=12.0)
    withheld = run_attack(attacker, towards(first, goals, attacker, bounded=True), sums=sums, take=reader.read)
    return patients_known(attacker, reader.known), withheld


def error_yield(attacker: Attacker) -> int:
    """By |e| at zero: Σ|Ω − c| of constants c is straight between two ages, and its slope tells how many are older."""
    sums, first = first_of(attacker, slope=1e-3, level=20.0, age_sd=8.0, centre=0.0, stretch=1.0)
    points: list[tuple[float, float]] = []
    levels = np.linspace(0.0, 60.0, ROUNDS - 1)

    def take(_model: Arrays, told: Sums) -> None:
        points.append((told.predicted / told.n, told.absolute_error))

    goals = shifting_goals(first, steps_years=levels, age_sd=8.0)
    run_attack(attacker, towards(first, goals, attacker, bounded=True), sums=sums, take=take)
    n, known = len(attacker.part("is_validation")), []
    for (c, low), (d, high) in itertools.pairwise(points):
        # Slope: patients younger less patients older. With one age in between it is 2k − n before it, two more after.
        k = math.floor(((high - low) / (d - c) + n) / 2)
        left, right = 2 * k - n, 2 * k + 2 - n
        age = (high - low + left * c - right * d) / (left - right)
        if c + 0.01 < age < d - 0.01:
            known.append(age)
    return ages_known(attacker, known)


INSIDE = ((6.5, (5.0, -1.9)), (6.5, (6.0, -1.5)), (5.0, (3.0, -1.9)), (5.0, (8.0, -1.2)))
"""Steepness of the bend in the network's units; how far these are stretched, and where their 0 lies, in SDs."""


@pytest.fixture
def any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that admits any model, as every site did."""
    monkeypatch.setattr(handlers, "admit_model", lambda *_args, **_named: None)


@pytest.fixture
def kinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that tells a round's Σ|e|, and sums over predictions that are cut."""
    monkeypatch.setattr(handlers, "of_a_round", lambda told, *_args, **_named: told)


@pytest.mark.usefixtures("any_model")
def test_without_the_bounds_a_run_tells_several_patients(tmp_path: Path) -> None:
    """The control: if this attack fails, the next test proves nothing."""
    attacker = Attacker(tmp_path)
    found = bend_yield(attacker, steep=200.0, stretch=1.0, start=-3.5, bounded=False)
    print(f"bends without the bounds: {found} of {len(attacker.part('is_validation'))}")
    assert found >= 5


def test_inside_the_bounds_a_run_tells_few_patients(tmp_path: Path) -> None:
    best = 0
    for seed in range(2):
        attacker = Attacker(tmp_path / str(seed), seed=seed)
        for steep, (stretch, start) in INSIDE:
            found = bend_yield(attacker, steep=steep, stretch=stretch, start=start, bounded=True)
            print(seed, steep, stretch, start, found)
            best = max(best, found)
    print(f"bends inside the bounds: feature and age of at most {best} patients in a run")
    assert best <= 2


@pytest.mark.usefixtures("kinks")
def test_cut_predictions_told_patients_inside_the_bounds(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    found, _ = cut_yield(attacker)
    print(f"cut predictions, told: {found} of {len(attacker.part('is_validation'))}")
    assert found >= 5


def test_of_a_round_with_cut_predictions_nothing_is_told(tmp_path: Path) -> None:
    for seed in range(3):
        attacker = Attacker(tmp_path / str(seed), seed=seed)
        found, withheld = cut_yield(attacker)
        assert (found, withheld >= 10) == (0, True)


@pytest.mark.usefixtures("kinks")
def test_absolute_errors_told_ages_inside_the_bounds(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    found = error_yield(attacker)
    print(f"absolute errors, told: ages of {found} of {len(attacker.part('is_validation'))}")
    assert found >= 8


def test_absolute_errors_of_a_round_are_those_of_normal_errors_and_tell_no_age(tmp_path: Path) -> None:
    """Ages that are right by chance: as many as numbers between 20 and 80 that have nothing to do with the patients."""
    for seed in range(3):
        attacker = Attacker(tmp_path / str(seed), seed=seed)
        run, told = attacker.new_run(), []
        sums, first = first_of(attacker, slope=1e-3, level=40.0, age_sd=8.0, centre=0.0, stretch=1.0)
        for number, model in enumerate(
            towards(
                first, shifting_goals(first, steps_years=np.linspace(0, 20, 20), age_sd=8.0), attacker, bounded=True
            ),
            start=1,
        ):
            _, _, vector = attacker.send(model, run=run, round_number=number, sums=sums if number == 1 else None)
            assert vector is not None
            told.append(Sums.of(attacker, vector))
        # Of n, Σe and Σe² alone, which are a parabola in the constant: it has no kink.
        levels = np.array([item.predicted / item.n for item in told])
        ages = attacker.site.found.cohort["age_years"][attacker.part("is_validation")]
        for level, item in zip(levels, told, strict=True):
            mean, sd = level - ages.mean(), ages.std()
            z = np.random.default_rng(0).normal(size=400_000)
            assert item.absolute_error / item.n == pytest.approx(np.abs(mean + sd * z).mean(), rel=0.01)
