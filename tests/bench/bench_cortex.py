"""`cortex-vnn` on thickness phantoms of three sites and on real tables: MAE in years beside what it is held against.

    PYTHONPATH=. python tests/bench/bench_cortex.py [phantoms] [fcon1000] [abide1]

Computed without the engine's processes, with the same phases, training and averaging. Rates are tuned for both ways of
training apart, on patients who are neither trained on nor reported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.types import Training
from fedage.common.estimators.cortex_vnn import CortexVNN, CortexVNNOptions, transferred
from fedage.common.estimators.table_ridge import TableRidge, TableRidgeOptions
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from tests import of_estimators
from tests.bench.thickness import SITES, anatomy, draw_site, irreducible
from tests.of_estimators import predict_years, train_locally, weights_from

DATA = Path(__file__).parents[3] / "shared/data"
RATES = (0.001, 0.003, 0.01)
ROUNDS, EPOCHS = 20, 5
Sites = Mapping[str, tuple[FloatArray, FloatArray]]
"""By site, regions (n, p) and ages (n,)."""


def training(rate: float, rounds: int) -> Training:
    return Training(
        rounds=rounds,
        local_epochs=EPOCHS,
        batch_size=4096,
        optimiser="adam",
        learning_rate=rate,
        final_learning_rate_fraction=0.1,
    )


def prepared(made: Any, names: Sequence[str], sites: Sites) -> dict[str, Any]:
    cohorts = {}
    for name, (x, age) in sites.items():
        place = np.random.default_rng(7).random(len(age))
        columns = {"age_years": age, "is_train": np.ones(len(age)), INNER_PLACE: place}
        cohorts[name] = Cohort(columns | {f"feature:{region}": x[:, j] for j, region in enumerate(names)})
    return of_estimators.prepared(made, cohorts)


def averaged(made: CortexVNN, start: Mapping[str, Any], sites: Sites, *, rate: float, rounds: int) -> dict[str, Any]:
    """Federated averaging; with one site it is plain training."""
    weights = dict(start)
    for number in range(1, rounds + 1):
        updates = [
            train_locally(
                made,
                weights,
                x,
                age,
                training=training(rate, rounds),
                round_number=number,
                rng_seed=number * 100 + k,
                threads=1,
                device="cpu",
            )
            for k, (x, age) in enumerate(sites.values())
        ]
        n = sum(update.n for update in updates)
        weights = {
            name: sum(update.n / n * update.weights[name].astype(np.float64) for update in updates).astype(np.float32)
            for name in weights
        }
    return weights


def pooled(sites: Sites) -> dict[str, tuple[FloatArray, FloatArray]]:
    xs, ages = zip(*sites.values(), strict=True)
    return {"all": (np.concatenate(xs), np.concatenate(ages))}


def mae(made: Any, weights: Mapping[str, Any], sites: Sites) -> float:
    x, age = pooled(sites)["all"]
    return float(np.abs(predict_years(made, weights, x) - age).mean())


def tuned(made: CortexVNN, names: Sequence[str], train: Sites, held_out: Sites, *, rounds: int) -> tuple[Any, float]:
    """The model and rate of least error on patients held out."""
    start = weights_from(made, prepared(made, names, train), seed=1)
    models = {rate: averaged(made, start, train, rate=rate, rounds=rounds) for rate in RATES}
    rate = min(models, key=lambda each: mae(made, models[each], held_out))
    return models[rate], rate


def phantoms(*, patients: int = 200) -> None:
    """MAE of the mean, each site alone, federated, pooled, irreducible."""
    cortex = anatomy()
    train, tuning, test = (
        {
            site.name: (table.x_mm, table.age_years)
            for site in SITES
            for table in [draw_site(cortex, site, seed=1, patients=count, part=part)]
        }
        for part, count in (("train", patients), ("tuning", 100), ("test", 500))
    )
    made = CortexVNN(CortexVNNOptions.model_validate({"features": cortex.names, "age_scale": "linear"}))
    ridge = TableRidge(TableRidgeOptions.model_validate({"features": cortex.names, "age_scale": "linear"}))
    mean = pooled(train)["all"][1].mean()
    found = {"mean": float(np.abs(pooled(test)["all"][1] - mean).mean())}
    for name in train:
        model, _ = tuned(made, cortex.names, {name: train[name]}, {name: tuning[name]}, rounds=ROUNDS)
        found[f"{name} alone, all sites"] = mae(made, model, test)
    federated, rate = tuned(made, cortex.names, train, tuning, rounds=ROUNDS)
    found[f"federated (rate {rate})"] = mae(made, federated, test)
    central, rate = tuned(made, cortex.names, pooled(train), tuning, rounds=ROUNDS)
    found[f"pooled (rate {rate})"] = mae(made, central, test)
    found["ridge, federated"] = mae(ridge, weights_from(ridge, prepared(ridge, cortex.names, train)), test)
    best = irreducible(cortex, SITES)
    found["irreducible"] = float(np.mean(list(best.values())))
    at_start = weights_from(made, prepared(made, cortex.names, train), seed=1)
    found["before rounds"] = mae(made, at_start, test)
    random = CortexVNN(made.options.model_copy(update={"start": "random", "readout": "mean"}))
    begin = weights_from(random, prepared(random, cortex.names, train), seed=1)
    found["published start and readout, 80 rounds"] = mae(
        random, averaged(random, begin, train, rate=0.03, rounds=80), test
    )
    report(f"three sites of {patients} phantoms, 68 regions, {ROUNDS} rounds of {EPOCHS} steps", found)


def report(title: str, found: Mapping[str, float]) -> None:
    print(f"\n{title}")
    for name, value in found.items():
        print(f"  {name:45} {value:6.3f}", flush=True)


def real(
    name: str,
    table: pd.DataFrame,
    *,
    age: str,
    site: str,
    regions: Sequence[str],
    offset: float,
    rates: Sequence[float],
    rounds: int = ROUNDS,
    seed: int = 1,
) -> dict[str, Any]:
    """Five folds, people apart: the network beside the ridge regression of the same folds."""
    names = tuple(sorted(regions))
    x, ages, sites = table[list(names)].to_numpy(float), table[age].to_numpy(float), table[site].to_numpy()
    options = {"features": names, "age_offset_years": offset}
    ridge = TableRidge(TableRidgeOptions.model_validate(options))
    made = CortexVNN(CortexVNNOptions.model_validate(options))
    fold = np.random.default_rng(seed).permutation(len(ages)) % 5
    predicted: dict[str, FloatArray] = {}
    first: dict[str, Any] = {}
    for k in range(5):
        inside = fold != k
        parts = {str(s): (x[inside & (sites == s)], ages[inside & (sites == s)]) for s in np.unique(sites)}
        parts = {s: part for s, part in parts.items() if len(part[1]) >= 3}
        ways: dict[str, tuple[Any, Any]] = {"ridge": (ridge, weights_from(ridge, prepared(ridge, names, parts)))}
        result = prepared(made, names, parts)
        start = weights_from(made, result, seed=k)
        ways["before rounds"] = made, start
        for rate in rates:
            ways[f"federated, rate {rate}"] = made, averaged(made, start, parts, rate=rate, rounds=rounds)
            ways[f"pooled, rate {rate}"] = made, averaged(made, start, pooled(parts), rate=rate, rounds=rounds)
        first = first or {"made": made, "weights": ways[f"federated, rate {rates[-1]}"][1]}
        for way, (estimator, weights) in ways.items():
            predicted.setdefault(way, np.empty(len(ages)))[~inside] = predict_years(estimator, weights, x[~inside])
        predicted.setdefault("mean", np.empty(len(ages)))[~inside] = ages[inside].mean()
    report(
        f"{name}: {len(ages)} people, {len(names)} regions, {len(np.unique(sites))} sites, five folds of seed {seed}",
        {way: float(np.abs(values - ages).mean()) for way, values in predicted.items()},
    )
    return first


def fcon1000() -> None:
    """fcon1000, and its filters carried to the regions of IXI."""
    table = pd.read_csv(DATA / "thickness/fcon1000.csv")
    first = real(
        "fcon1000",
        table,
        age="age",
        site="site",
        regions=[c for c in table if c.endswith("_thickness") and "MeanThickness" not in c],
        offset=0.0,
        rates=(0.003, 0.01),
    )
    ixi = pd.read_csv(DATA / "thickness/IXI_aparc_thickness.csv")
    ages = pd.read_csv(DATA / "thickness/IXI_age_gender.csv")
    ixi = ixi.merge(ages, on="participant_id").dropna(subset="age")
    regions = sorted(c for c in ixi if c.endswith("_thickness") and "MeanThickness" not in c)
    x, age = ixi[regions].to_numpy(float), ixi.age.to_numpy(float)
    made = CortexVNN(CortexVNNOptions.model_validate({"features": regions}))
    ridge = TableRidge(TableRidgeOptions.model_validate({"features": regions}))
    fold = np.random.default_rng(1).permutation(len(age)) % 5
    found: dict[str, FloatArray] = {}
    for k in range(5):
        inside = fold != k
        part = {"ixi": (x[inside], age[inside])}
        other = made.phases[0].solve(prepared(made, regions, part), {}, seed=0)
        carried = transferred(first["weights"], other)
        found.setdefault("filters of fcon1000, not trained", np.empty(len(age)))[~inside] = predict_years(
            made, carried, x[~inside]
        )
        fitted = weights_from(ridge, prepared(ridge, regions, part))
        found.setdefault("ridge fitted on IXI", np.empty(len(age)))[~inside] = predict_years(ridge, fitted, x[~inside])
        found.setdefault("mean of IXI", np.empty(len(age)))[~inside] = age[inside].mean()
    report(
        f"IXI: {len(age)} people, {len(regions)} regions, covariance and age correlations of four fifths",
        {way: float(np.abs(values - age).mean()) for way, values in found.items()},
    )
    for way, values in found.items():
        print(f"  {way:45} r {np.corrcoef(values, age)[0, 1]:.3f}")


def abide1() -> None:
    """The controls of ABIDE I, three splits into folds."""
    table = pd.read_csv(DATA / "abide1/abide1-freesurfer.csv")
    for seed in (1, 2, 3):
        real(
            "ABIDE I, controls",
            table[table.DX_GROUP == -1],
            age="AGE_AT_SCAN",
            site="SITE",
            regions=[c for c in table if c.endswith("_ThickAvg")],
            offset=-3.0,
            rates=(0.001, 0.003),
            rounds=4,  # more steps follow the noise of 280 people
            seed=seed,
        )


if __name__ == "__main__":
    parts = {"phantoms": phantoms, "fcon1000": fcon1000, "abide1": abide1}
    for chosen in sys.argv[1:] or parts:
        parts[chosen]()
