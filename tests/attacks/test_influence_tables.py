"""Attacks on the sums that make a model on tables: one patient's record as a row, or a combination of rows, of Σuuᵀ.

Each is run twice: at a site whose guard is off, where it gives the patient's record, so that the attack is one; and at
a site as it is deployed, where the row is not there, the column is left out, and asking for it all the same is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedage.common.analyses.agreement import NOT_AGREED
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE, NAME
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import PATIENTS_PER_COLUMN, RULE
from fedage.common.statistics.statistic import FloatArray, Statistic
from tests.attacks.asked_of_a_site import Attacker, unpacked

PATIENTS, TARGET = 240, 17
FILE = """
[campaign]
name = "attack"
purpose = "Solve what leaves a site for one patient"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
{options}
age_scale = "linear"
[table]
age = "age"
[validation]
{validation}
[privacy]
minimum_count = 10
[simulation]
guard = {guard}
"""
FRACTIONS = "fractions = { train = 1.0, validation = 0.0, test = 0.0 }"


def campaign(*, guard: bool, folds: bool = False, inner: bool = False) -> Campaign:
    options = "inner_folds = 5" if inner else "penalty = 10.0"
    validation = "folds = 5" if folds else FRACTIONS
    return parse_campaign(FILE.format(guard=str(guard).lower(), options=options, validation=validation))


def hospital(extra: dict[str, FloatArray], *, patients: int = PATIENTS, train: FloatArray | None = None) -> Cohort:
    rng = np.random.default_rng(5)
    features = {f"thick{j}": rng.normal(2.5, 0.3, patients) for j in range(4)} | extra
    return Cohort(
        {
            **{f"feature:{name}": values for name, values in features.items()},
            "age_years": rng.uniform(20, 80, patients),
            "healthy": np.ones(patients),
            "is_train": np.ones(patients) if train is None else train,
            INNER_PLACE: rng.uniform(0, 1, patients),
        }
    )


def attacker(cohort: Cohort, folder: Path, *, guard: bool, folds: bool = False, inner: bool = False) -> Attacker:
    names = tuple(sorted(name.removeprefix("feature:") for name in cohort.columns if name.startswith("feature:")))
    return Attacker(campaign(guard=guard, folds=folds, inner=inner), cohort, folder / str(guard), features=names)


def around_zero(one: Attacker, columns: FloatArray | None) -> dict[str, FloatArray]:
    """An iterate whose centre is 0 and spread 1, so that sums are those of the values themselves."""
    p = len(one.features) if columns is None else int(columns.sum())
    iterate = {"centre": np.zeros(p), "spread": np.ones(p), "error": np.zeros(p)}
    return iterate if columns is None else {**iterate, "columns": columns}


def indicator(*who: int, patients: int = PATIENTS) -> FloatArray:
    values = np.zeros(patients)
    values[list(who)] = 1.0
    return values


def base() -> FloatArray:
    return (np.random.default_rng(11).uniform(0, 1, PATIENTS) < 0.4).astype(np.float64)


def one_more(values: FloatArray) -> FloatArray:
    """The same column, but for the target."""
    changed = values.copy()
    changed[TARGET] = 1 - changed[TARGET]
    return changed


def third() -> dict[str, FloatArray]:
    """Three groups, and a column that says who is in one of them, but for the target."""
    group = np.random.default_rng(12).integers(0, 3, PATIENTS)
    said = (group < 2).astype(np.float64)
    return {"zgroup0": (group == 0) * 1.0, "zgroup1": (group == 1) * 1.0, "zsaid": one_more(said)}


NEARLY = np.random.default_rng(13).normal(1e-3, 1e-5, PATIENTS)
DOMINATING = np.where(indicator(TARGET) == 1, 1e5, NEARLY)
RARE: dict[str, dict[str, FloatArray]] = {
    "0/1 that one patient has": {"zrare": indicator(TARGET)},
    "two values nobody shares": {"zrare": indicator(TARGET) * 3.0 + indicator(40) * 7.0},
    "a large value over noise": {"zrare": DOMINATING},
    "nearly constant, one apart": {"zrare": 5.0 + indicator(TARGET) * 1e-7},
    "nine of 240": {"zrare": indicator(TARGET, 1, 2, 3, 4, 5, 6, 7, 8)},
    "a product of a common column and a rare one": {"zbase": base(), "zrare": base() * indicator(TARGET, *range(10))},
}
COMBINED: dict[str, dict[str, FloatArray]] = {
    "a column twice, one patient apart": {"zbase": base(), "zcopy": one_more(base())},
    "a column and its complement, one patient apart": {"zbase": base(), "zcopy": 1 - one_more(base())},
    "a continuous column twice, one patient apart": {
        "zbase": np.random.default_rng(14).normal(0, 1, PATIENTS),
        "zcopy": np.random.default_rng(14).normal(0, 1, PATIENTS) + indicator(TARGET) * 0.01,
    },
    "three groups that add up but for one patient": third(),
}


def ages_and_features(one: Attacker) -> FloatArray:
    """What the attacker wants: the target's features and age."""
    row = [float(one.cohort[f"feature:{name}"][TARGET]) for name in one.features]
    return np.array([*row, float(one.cohort["age_years"][TARGET])])


def solved(one: Attacker, statistic: Statistic, weights: dict[str, float], *, names: tuple[str, ...]) -> FloatArray:
    """Σ (wᵀu) (u, t) for a combination w that is 0 for all but one: her record, times her value of it."""
    p = len(names)
    w = np.array([weights.get(name, 0.0) for name in names])
    uu, ut = unpacked(statistic, "uu", p).sum(axis=0), statistic["ut"].sum(axis=0)
    return np.array([*(w @ uu), w @ ut])


def test_without_a_guard_a_rare_column_is_a_patient_s_record(tmp_path: Path) -> None:
    one = attacker(hospital(RARE["0/1 that one patient has"]), tmp_path, guard=False)
    got = one.ask(NAME, around_zero(one, None))
    assert got is not None
    np.testing.assert_allclose(solved(one, got, {"zrare": 1.0}, names=one.features), ages_and_features(one), rtol=1e-9)


def test_without_a_guard_two_columns_one_patient_apart_are_a_patient_s_record(tmp_path: Path) -> None:
    one = attacker(hospital(COMBINED["a column twice, one patient apart"]), tmp_path, guard=False)
    got = one.ask(NAME, around_zero(one, None))
    assert got is not None
    found = solved(one, got, {"zbase": 1.0, "zcopy": -1.0}, names=one.features)
    apart = float(one.cohort["feature:zbase"][TARGET] - one.cohort["feature:zcopy"][TARGET])
    np.testing.assert_allclose(found / apart, ages_and_features(one), rtol=1e-9)


@pytest.mark.parametrize("which", RARE)
def test_a_rare_column_leaves_in_no_sum(which: str, tmp_path: Path) -> None:
    one = attacker(hospital(RARE[which]), tmp_path, guard=True)
    ok = one.agreed(NAME)
    assert ok is not None
    rare = one.features.index("zrare")
    assert not ok[rare]
    assert ok[: rare - (len(RARE[which]) - 1)].all()
    must_be_left_out(one, ok)


@pytest.mark.parametrize("which", COMBINED)
def test_no_combination_of_columns_is_one_patient(which: str, tmp_path: Path) -> None:
    one = attacker(hospital(COMBINED[which]), tmp_path, guard=True)
    ok = one.agreed(NAME)
    assert ok is not None
    left = [name for name, inside in zip(one.features, ok, strict=True) if not inside]
    assert len(left) == 1
    assert left[0] in COMBINED[which]
    must_be_left_out(one, ok)


def must_be_left_out(one: Attacker, ok: FloatArray) -> None:
    """What leaves holds the agreed columns only, and nobody makes up a combination of those."""
    everything = one.everything(NAME)
    p = int(ok.sum())
    sums = everything[-1]
    assert sums["uu"].shape[1] == p * (p + 1) // 2
    kept = [name for name, inside in zip(one.features, ok, strict=True) if inside]
    z = np.column_stack([one.cohort[f"feature:{name}"] for name in kept])
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    assert np.linalg.svd(z, full_matrices=False)[0].__pow__(2).sum(axis=1).max() < 0.9
    # To ask for a column that the site said no to, or without asking before, is refused whatever the others said.
    all_of_them = np.ones(len(one.features))
    assert one.ask(NAME, around_zero(one, all_of_them)) is None
    assert one.ask(NAME, around_zero(one, None)) is None
    assert [rule for rule, _ in one.refusals] == [RULE, NOT_AGREED]
    assert all(name in one.refusals[0][1] for name in one.features if name not in kept)


def test_the_answer_is_the_same_whatever_is_asked_before(tmp_path: Path) -> None:
    one = attacker(hospital(RARE["nine of 240"]), tmp_path, guard=True)
    first = one.agreed(NAME)
    assert first is not None
    one.ask(NAME, around_zero(one, first.astype(np.float64)))
    one.ask(NAME, {**around_zero(one, np.eye(len(one.features))[0])})
    again = one.agreed(NAME)
    assert again is not None
    assert (again == first).all()


def test_nine_and_one_patient_get_the_same_answer(tmp_path: Path) -> None:
    """Yes or no: how far a column is from passing is not told."""
    told = []
    for number, name in enumerate(("0/1 that one patient has", "nine of 240")):
        one = attacker(hospital(RARE[name]), tmp_path / str(number), guard=True)
        told.append(one.ask(NAME, {}))
    assert told[0] is not None
    assert told[1] is not None
    np.testing.assert_array_equal(told[0].vector, told[1].vector)


def test_a_column_rare_in_one_inner_fold_only_is_told_in_no_fold_alone(tmp_path: Path) -> None:
    """Sixty patients have it, one of them in the second inner fold."""
    cohort = hospital({"zrare": np.zeros(PATIENTS)})
    fold = np.minimum((cohort[INNER_PLACE] * 5).astype(int), 4)
    has = np.flatnonzero(fold != 1)[:60]
    values = indicator(int(np.flatnonzero(fold == 1)[0]), *has.tolist())
    cohort = cohort.with_columns(**{"feature:zrare": values})
    one = attacker(cohort, tmp_path, guard=True, inner=True)
    ok = one.agreed(NAME)
    assert ok is not None
    assert ok.all()
    sums = one.everything(NAME)[-1]
    rare = one.features.index("zrare")
    u, uu = sums["u"][:, rare], unpacked(sums, "uu", len(one.features))[:, rare, rare]
    for k in np.flatnonzero(sums["n"]):
        # From Σu and Σu² of a 0/1 column follow its two values and how many have each.
        n, mean = sums["n"][k], u[k] / sums["n"][k]
        spread = uu[k] / n - mean**2
        everywhere = uu.sum() / sums["n"].sum() - (u.sum() / sums["n"].sum()) ** 2
        assert spread > 0.02 * everywhere
        inside = one.steps[NAME].analysis._inner_folds(cohort, np.arange(PATIENTS)) == k  # type: ignore[attr-defined]
        assert min(values[inside].sum(), (1 - values[inside]).sum()) >= 10


def test_a_column_rare_among_those_held_out_is_left_out(tmp_path: Path) -> None:
    """Held out of a fold of the campaign, their sums follow by subtraction of two folds' sums."""
    held_out = np.arange(PATIENTS) % 5 == 0
    values = (np.arange(PATIENTS) % 5 == 1).astype(np.float64)
    values[np.flatnonzero(held_out)[0]] = 1.0
    one = attacker(hospital({"zrare": values}, train=(~held_out).astype(np.float64)), tmp_path, guard=True, folds=True)
    ok = one.agreed(NAME)
    assert ok is not None
    assert [bool(inside) for inside in ok] == [name != "zrare" for name in one.features]


@pytest.mark.parametrize(("patients", "answers"), [(9, False), (12, True)])
def test_products_of_few_more_patients_than_columns_do_not_leave(patients: int, answers: bool, tmp_path: Path) -> None:
    """Of n patients in hardly fewer columns, Σuuᵀ is the patients' table turned: whole numbers give the turn away."""
    columns = {f"extra{j}": np.random.default_rng(j).normal(0, 1, 10 * patients) for j in range(42)}
    one = attacker(hospital(columns, patients=10 * patients), tmp_path, guard=True)
    assert (one.agreed(NAME) is not None) == answers
    if not answers:
        rule, detail = one.refusals[0]
        assert rule == PATIENTS_PER_COLUMN
        assert "patients_per_column in [disclosure] of policy.toml" in detail
        assert "name fewer columns" in detail
        # Nor does it help to leave the exchange out, or to ask for all columns as if they had been agreed.
        assert one.ask(NAME, around_zero(one, np.ones(len(one.features)))) is None
        assert one.refusals[-1][0] == PATIENTS_PER_COLUMN


BULK = np.random.default_rng(21).normal(0, 1, PATIENTS)
FEW = [TARGET, 40, 90, 151]


def lesions(*, noise: float) -> FloatArray:
    """Small in all but four, and no two values the same."""
    values = np.random.default_rng(22).uniform(0, noise, PATIENTS)
    values[FEW] = [50.0, 38.0, 61.0, 44.0]
    return values


def apart(values: FloatArray, *who: int, by: float = 0.7) -> FloatArray:
    changed = values.copy()
    changed[list(who)] += by * np.linspace(1, 2, len(who))
    return changed


def levels() -> FloatArray:
    return np.random.default_rng(23).integers(0, 4, PATIENTS).astype(np.float64)


OF_FEW: dict[str, dict[str, FloatArray]] = {
    "a volume that is noise in all but four": {"zrare": lesions(noise=0.01)},
    "the same over noise of a thousandth of it": {"zrare": lesions(noise=0.05)},
    "nine of 240 over noise": {"zrare": apart(1e-6 * BULK, *range(TARGET, TARGET + 9))},
    "one up, one down": {"zrare": 5 + 1e-7 * BULK + indicator(TARGET) - indicator(40)},
    "two columns two patients apart": {"zbase": BULK, "zcopy": apart(BULK, TARGET, 40)},
    "two columns nine patients apart, in other units": {"zbase": BULK, "zcopy": 3 - 2 * apart(BULK, *range(20, 29))},
    "four levels twice, three patients apart": {"zbase": levels(), "zcopy": apart(levels(), *range(3), by=1.0)},
    "measured twice, but for four": {"zbase": BULK, "zcopy": apart(BULK + 1e-3 * np.roll(BULK, 7), *FEW)},
}


@pytest.mark.parametrize("which", OF_FEW)
def test_no_column_and_no_pair_is_made_up_by_few(which: str, tmp_path: Path) -> None:
    """No value is the most frequent one and no patient has half: the sums are still those of a handful."""
    one = attacker(hospital(OF_FEW[which]), tmp_path, guard=True)
    ok = one.agreed(NAME)
    assert ok is not None
    left = [name for name, inside in zip(one.features, ok, strict=True) if not inside]
    assert left == sorted(OF_FEW[which])[-1:]
    assert one.ask(NAME, around_zero(one, np.ones(len(one.features)))) is None
    assert one.refusals[-1][0] == RULE


def test_without_a_guard_a_volume_over_noise_is_the_sum_of_four(tmp_path: Path) -> None:
    one = attacker(hospital({"zrare": lesions(noise=0.01)}), tmp_path, guard=False)
    got = one.ask(NAME, around_zero(one, None))
    assert got is not None
    found = solved(one, got, {"zrare": 1.0}, names=one.features)[-1]
    volume, age = one.cohort["feature:zrare"][FEW], one.cohort["age_years"][FEW]
    assert found / volume.sum() == pytest.approx(np.average(age, weights=volume), abs=0.4)


@pytest.mark.parametrize("patients", [24, 60, 240])
def test_columns_that_many_make_up_still_leave(patients: int, tmp_path: Path) -> None:
    """Skewed, correlated and noisy ones, copies, and a column that a tenth of the patients have."""
    rng = np.random.default_rng(patients)
    x = rng.normal(0, 1, patients)
    extra = {
        "zcorrelated": 0.98 * x + 0.2 * rng.normal(0, 1, patients),
        "zx": x,
        "zskewed": rng.lognormal(0, 0.7, patients),
        "zsome": np.where(np.arange(patients) < max(12, patients // 10), 1.0, 0.0),
    }
    ok = attacker(hospital(extra, patients=patients), tmp_path, guard=True).agreed(NAME)
    assert ok is not None
    assert ok.all()
