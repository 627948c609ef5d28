"""What privacy for each patient costs: time of a training step by engine, and error by ε on tables.

    PYTHONPATH=. python tests/bench/bench_privacy.py speed
    PYTHONPATH=. python tests/bench/bench_privacy.py epoch
    PYTHONPATH=. python tests/bench/bench_privacy.py error --data ../shared/data --seeds 3

`speed`: seconds of a batch's gradients, plain and with each patient's clipped alone, as a ratio; engines of Opacus that
cannot take a network are said so. `epoch`: a whole epoch by the site's own trainers, Poisson sampling, noise and the
optimiser's steps included, in seconds of one processor, best of two. `error`: federated averaging of `table-mlp` from
stated ranges over the hospitals of a table, 70 % of the patients of each trained on, by the site's own trainer; MAE on
the others, mean over seeds. With and without privacy the learning rate is the one of `RATES` that is best for a seed
which is not reported. `ridge`: the same of `table-ridge` from sums to which each site adds noise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fedage.client.compute import private_training
from fedage.client.compute.patient_gradients import ClippedGradients
from fedage.client.compute.private_training import PrivateTraining, train_privately
from fedage.client.compute.training import TrainingDiverged, train_locally
from fedage.common import estimators
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.exact import SumsNoise
from fedage.common.analyses.preparation.noised_moments import NoisedMoments
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.types import Training
from fedage.common.estimators.base import Batch, Conditions, ExactPhase, RoundsPhase, Samples
from fedage.common.estimators.predict import as_float
from fedage.common.privacy.accountant import Mechanism, noise_for
from fedage.common.privacy.noise import SecretRandom, key_for, noised
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic

Range = tuple[float, float]
Table = Callable[[Path], tuple[np.ndarray, np.ndarray, np.ndarray, Range, Range]]
CPU = torch.device("cpu")
NETWORKS: dict[str, tuple[str, dict[str, Any], str, tuple[int, ...]]] = {
    "2D 64²": ("chest-ca", {"image_size": 64, "width": 16}, "image", (1, 64, 64)),
    "2D 128²": ("chest-ca", {"image_size": 128, "width": 32}, "image", (1, 128, 128)),
    "3D 32³": (
        "brain-sfcn",
        {"norm": "group", "shape": [32, 32, 32], "width": 8, "poolings": 3, "dropout": 0.0},
        "t1w",
        (1, 32, 32, 32),
    ),
    "3D 64³": (
        "brain-sfcn",
        {"norm": "group", "shape": [64, 64, 64], "width": 16, "poolings": 4, "dropout": 0.0},
        "t1w",
        (1, 64, 64, 64),
    ),
}


def gradients_of(name: str, options: dict[str, Any], array: str, shape: tuple[int, ...], *, size: int) -> None:
    made = estimators.make(name, options)
    phase = next(one for one in made.phases if isinstance(one, RoundsPhase))
    chance = np.random.default_rng(0)
    present = torch.ones(size, dtype=torch.bool)
    images = torch.from_numpy(chance.normal(size=(size, *shape)).astype(np.float32))
    ages = torch.from_numpy(chance.uniform(20, 80, size).astype(np.float32))
    batch = Batch({array: images}, {array: present}, {"age_years": ages})
    patients = np.arange(size, dtype=np.intp)

    def plain() -> None:
        module = phase.build(seed=0).train()
        torch.autograd.grad(phase.loss(as_float(phase.output(module, batch)), batch), list(module.parameters()))

    def ours(by_row: bool, *, by_layer: bool | None = False) -> None:
        gradients = ClippedGradients(phase, phase.build(seed=0).train(), clip_norm=1.0, where=CPU)
        gradients._by_row, gradients._by_layer = by_row, by_layer
        total, most = gradients.zeros(), gradients.most_rows
        for start in range(0, size, most):
            rows = slice(start, start + most)
            gradients.add(
                total,
                Batch(
                    *({k: v[rows] for k, v in part.items()} for part in (batch.inputs, batch.present, batch.targets))
                ),
                patients[rows] - start,
            )

    def opacus(mode: str) -> None:
        from opacus.grad_sample import GradSampleModule
        from opacus.grad_sample.gsm_exp_weights import GradSampleModuleExpandedWeights

        module: Any = phase.build(seed=0).train()
        wrapped: Any = (
            GradSampleModuleExpandedWeights(module, loss_reduction="mean")
            if mode == "ew"
            else GradSampleModule(module, loss_reduction="mean", force_functorch=mode == "functorch")
        )
        phase.loss(as_float(phase.output(wrapped, batch)), batch).backward()  # type: ignore[no-untyped-call]
        norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in module.parameters()]).norm(dim=0)
        for p in module.parameters():
            torch.tensordot((1 / norms).clamp(max=1), p.grad_sample, dims=1)

    engines: dict[str, Callable[[], None]] = {
        "at the layers (ours)": lambda: ours(True, by_layer=True),
        "torch.func, by row (ours)": lambda: ours(True),
        "one patient at a time (ours)": lambda: ours(False),
        "Opacus ew": lambda: opacus("ew"),
        "Opacus hooks": lambda: opacus("hooks"),
        "Opacus functorch": lambda: opacus("functorch"),
    }
    base = _seconds(plain)
    print(f"{name} {shape}, {size} patients: plain {base:.3f} s", flush=True)
    for engine, run in engines.items():
        try:
            took = _seconds(run)
        except (RuntimeError, AttributeError, ValueError) as error:
            print(f"  {engine}: not possible ({str(error)[:60]})", flush=True)
            continue
        print(f"  {engine}: {took:.3f} s, {took / base:.1f} times", flush=True)


RATES = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
TUNED_ON = 11


def _seconds(run: Callable[[], None], *, times: int = 5) -> float:
    run()
    found = []
    for _ in range(times):
        began = time.process_time()  # others may work on the same machine
        run()
        found.append(time.process_time() - began)
    return min(found)


ENGINES: dict[str, dict[str, bool | None]] = {
    "chosen (at the layers where possible)": {},
    "torch.func": {"_by_layer": False},
    "one patient at a time": {"_by_layer": False, "_by_row": False},
}


def epoch(name: str, options: dict[str, Any], array: str, shape: tuple[int, ...], *, n: int, batch_size: int) -> None:
    """Print what an epoch over n patients takes by each engine, beside the plain trainer's."""
    estimator = estimators.make(name, options)
    phase = next(one for one in estimator.phases if isinstance(one, RoundsPhase))
    chance = np.random.default_rng(0)
    samples = Samples({array: chance.normal(size=(n, *shape)).astype(np.float32)})
    targets = {"age_years": chance.uniform(20, 80, n)}
    weights = phase.start({}, seed=0)
    training = Training(rounds=1, optimiser="sgd", learning_rate=1e-6, batch_size=batch_size)
    common: dict[str, Any] = {"training": training, "round_number": 1, "threads": 1, "device": "cpu"}
    base = _seconds(lambda: train_locally(phase, weights, samples, targets, rng_seed=0, **common), times=2)
    print(f"{name} {shape}, {n} patients in batches of {batch_size}: plain epoch {base:.3f} s", flush=True)
    mechanism = Mechanism(sampling_rate=batch_size / n, noise_multiplier=1.0, steps=n // batch_size)
    whole = private_training.ClippedGradients
    for engine, flags in ENGINES.items():

        def chosen(*given: Any, flags: dict[str, bool | None] = flags, **named: Any) -> ClippedGradients:
            made = whole(*given, **named)
            vars(made).update(flags)
            return made

        private_training.ClippedGradients = chosen  # type: ignore[assignment, misc]
        # Of each repetition other patients join: the mean over them is of as many as the plain epoch has.
        keys = iter(key_for(b"bench", str(k)) for k in range(100))

        def run(keys: Any = keys) -> None:
            private = PrivateTraining(mechanism=mechanism, clip_norm=1.0, key=next(keys))
            train_privately(phase, weights, samples, targets, private=private, **common)

        try:
            took = _seconds(run, times=2)
        finally:
            private_training.ClippedGradients = whole  # type: ignore[misc]
        print(f"  {engine}: {took:.3f} s, {took / base:.2f} times", flush=True)


def fcon1000(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Range, Range]:
    frame = pd.read_csv(data / "thickness/fcon1000.csv")
    site = next(name for name in ("site", "Site", "SITE") if name in frame)
    columns = [name for name in frame if name.endswith("_thickness")]
    return frame[columns].to_numpy(), frame["age"].to_numpy(), frame[site].to_numpy(), (1.5, 4.0), (5.0, 90.0)


def abide1(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Range, Range]:
    frame = pd.read_csv(data / "abide1/abide1-freesurfer.csv")
    frame = frame[frame["DX_GROUP"] == -1]
    columns = [name for name in frame if name.endswith("_ThickAvg")]
    return frame[columns].to_numpy(), frame["AGE_AT_SCAN"].to_numpy(), frame["SITE"].to_numpy(), (1.5, 4.0), (5.0, 30.0)


def simulated_rows(_data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Range, Range]:
    """Three hospitals of 1,000 rows of 8 columns, of which 4 tell the age, but for 5 years (SD) that none tells."""
    chance = np.random.default_rng(12345)
    age = chance.uniform(20, 90, 3000)
    x = chance.normal(size=(3000, 8))
    x[:, :4] += (age[:, None] - 55) / 20
    return x, np.clip(age + chance.normal(0, 5, 3000), 18, 95), np.arange(3000) % 3, (-4.0, 4.0), (15.0, 95.0)


def _mean_thickness(table: Table) -> Table:
    """The table with one column, the mean of its thicknesses."""

    def averaged(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Range, Range]:
        x, age, site, _, ages = table(data)
        return np.nanmean(x.astype(float), axis=1, keepdims=True), age, site, (2.0, 3.2), ages

    return averaged


TABLES: dict[str, Table] = {
    "fcon1000": fcon1000,
    "ABIDE I controls": abide1,
    "fcon1000, mean thickness": _mean_thickness(fcon1000),
    "ABIDE I controls, mean thickness": _mean_thickness(abide1),
    "simulated rows": simulated_rows,
}


def error(
    data: Path, table: str, *, epsilon: float, seed: int, rounds: int, rate: float, clip: float, hidden: list[int]
) -> tuple[float, float]:
    """MAE of the model and of the mean age of the training patients, in years."""
    x, age, site, spread, ages = TABLES[table](data)
    chance = np.random.default_rng(seed)
    trained = chance.random(age.size) < 0.7
    estimator = estimators.make(
        "table-mlp",
        {
            "features": ["*"],
            "start": "stated",
            "noise": 0.0,
            "hidden": hidden,
            "age_scale": "linear",
            "ranges": {"*": spread},
            "age_range_years": ages,
        },
    ).for_table([f"x{k}" for k in range(x.shape[1])])
    (phase,) = estimator.phases
    assert isinstance(phase, RoundsPhase)
    model = phase.start({}, seed=seed)
    training = Training(rounds=rounds, optimiser="sgd", learning_rate=rate, batch_size=4096)
    for number in range(1, rounds + 1):
        changes, sizes = [], []
        for name in np.unique(site):
            rows = np.flatnonzero(trained & (site == name))
            if rows.size < 3:
                continue
            samples, targets = Samples({"row": x[rows].astype(np.float32)}), {"age_years": age[rows].astype(float)}
            common: dict[str, Any] = {"training": training, "round_number": number, "threads": 1, "device": "cpu"}
            if np.isinf(epsilon):
                update = train_locally(phase, model, samples, targets, rng_seed=seed, **common)
            else:
                noise = noise_for(epsilon, delta=1e-5, rate=1.0, steps=rounds)
                update = train_privately(
                    phase,
                    model,
                    samples,
                    targets,
                    private=PrivateTraining(
                        mechanism=Mechanism(sampling_rate=1.0, noise_multiplier=noise, steps=1),
                        clip_norm=clip,
                        key=key_for(b"bench", table, str(name), str(number), str(seed), str(epsilon)),
                    ),
                    **common,
                )
            changes.append(update.weights)
            sizes.append(rows.size)
        model = {
            key: np.average([change[key] for change in changes], axis=0, weights=sizes).astype(np.float32)
            for key in model
        }
    held = np.flatnonzero(~trained)
    predicted = estimator.predictor(model, device="cpu")(Samples({"row": x[held].astype(np.float32)}))
    return (
        float(np.abs(np.asarray(predicted["predicted_years"]) - age[held]).mean()),
        float(np.abs(age[trained].mean() - age[held]).mean()),
    )


def _error_of(ways: Callable[..., tuple[float, float]], *, seed: int, rate: float) -> tuple[float, float]:
    try:
        return ways(seed=seed, rate=rate)
    except TrainingDiverged:
        return np.nan, np.nan


def ridge_error(data: Path, table: str, *, epsilon: float, seed: int, clip: float) -> tuple[float, float]:
    """MAE of `table-ridge` from sums with noise (each site its own), and of the mean age, in years.

    Without privacy: the same sums without noise, and the penalty by cross-validation as a campaign has it.
    """
    x, age, site, spread, ages = TABLES[table](data)
    trained = np.random.default_rng(seed).random(age.size) < 0.7
    names = tuple(f"feature:x{k:04}" for k in range(x.shape[1]))  # in the order of their names
    options = {"features": ["*"], "age_scale": "linear"}
    stated = {"start": "stated", "ranges": {"*": spread}, "age_range_years": ages}
    is_private = bool(np.isfinite(epsilon))
    estimator = estimators.make("table-ridge", {**options, **(stated if is_private else {})}).for_table(
        [name.removeprefix("feature:") for name in names]
    )
    (phase,) = estimator.phases
    assert isinstance(phase, ExactPhase)
    noise = None
    if is_private:
        noise = SumsNoise(noise_multiplier=noise_for(epsilon, delta=1e-5, rate=1.0, steps=1), clip_norm=clip)
    analysis = phase.analysis(Conditions(minimum_count=1, noise=noise))
    cohorts = {}
    for name in np.unique(site):
        rows = np.flatnonzero(trained & (site == name))
        columns = dict(zip(names, x[rows].T.astype(float), strict=True))
        place = np.random.default_rng(seed).random(rows.size)
        own = {"age_years": age[rows].astype(float), "is_train": np.ones(rows.size), INNER_PLACE: place}
        if rows.size >= 3:
            cohorts[str(name)] = Cohort({**own, **columns})
    if isinstance(analysis, NoisedMoments):
        layout, total = analysis.layout({}), Statistic.zero(analysis.layout({}))
        for name, cohort in cohorts.items():
            sums = analysis.local(cohort, {})
            random = SecretRandom(key_for(b"bench", table, name, str(seed), str(epsilon)))
            blocks = {
                "moments": noised(sums["moments"], sd=analysis.noise_multiplier, random=random),
                "sites": sums["sites"],
            }
            total = total + Statistic(layout=layout, vector=layout.flatten(blocks), smallest=None)
        outcome: Any = analysis.combine(total, {})
    else:
        outcome = run_locally(analysis, cohorts)
    held = np.flatnonzero(~trained)
    mean = float(np.abs(age[trained].mean() - age[held]).mean())
    if not isinstance(outcome, Done):
        return float("nan"), mean
    model = phase.solve(outcome.result, {}, seed=seed)
    predicted = estimator.predictor(model, device="cpu")(Samples({"row": x[held].astype(float)}))
    return float(np.abs(np.asarray(predicted["predicted_years"]) - age[held]).mean()), mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "epoch", "error", "ridge"])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared/data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clip", type=float, default=500.0)
    parser.add_argument("--hidden", type=int, nargs="*", default=[])
    parser.add_argument("--epsilons", type=float, nargs="*", default=[1.0, 3.0, 8.0, np.inf])
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if asked.what == "speed":
        for network in NETWORKS.values():
            gradients_of(*network, size=16)
        return
    if asked.what == "epoch":
        for network, n in zip(NETWORKS.values(), (256, 128, 128, 32), strict=True):
            for batch_size in (8, 64) if n > 64 else (8,):
                epoch(*network, n=n, batch_size=batch_size)
        return
    if asked.what == "ridge":
        for table in asked.tables:
            clip = float(np.sqrt(TABLES[table](asked.data)[0].shape[1] + 2))
            for epsilon in asked.epsilons:
                made = np.array(
                    [
                        ridge_error(asked.data, table, epsilon=epsilon, seed=seed, clip=clip)
                        for seed in range(asked.seeds)
                    ]
                )
                mae, mean = made.mean(axis=0)
                print(
                    f"{table}, ridge: ε {epsilon:g}: MAE {mae:.2f} (SD {made[:, 0].std():.2f}), mean {mean:.2f}",
                    flush=True,
                )
        return
    for table in asked.tables:
        for epsilon in asked.epsilons:
            given: dict[str, Any] = {"rounds": asked.rounds, "clip": asked.clip, "hidden": asked.hidden}
            ways = partial(error, asked.data, table, epsilon=epsilon, **given)
            # One that diverges has no error.
            rate = min(RATES, key=lambda one: np.nan_to_num(_error_of(ways, seed=TUNED_ON, rate=one)[0], nan=np.inf))
            made = np.array([_error_of(ways, seed=seed, rate=rate) for seed in range(asked.seeds)])
            mae, mean = made.mean(axis=0)
            print(
                f"{table}: ε {epsilon:g}: MAE {mae:.2f} (SD {made[:, 0].std():.2f}), mean age {mean:.2f}, "
                f"rate {rate:g}",
                flush=True,
            )


if __name__ == "__main__":
    main()
