"""What `brain-sfcn` learns on phantom heads at three hospitals, together, alone and pooled; and on 50 real heads.

Run as `python -m tests.bench.bench_brain_sfcn` for the phantoms, with `--estimator brain-tsan` for that one, and with
`--ixi` for the real volumes. Rounds are averaged
in this process (simulated, not run as processes); the arms take the same number of gradient steps, so that the
federation computes three times as much as the pooled model; `equal` is a federation of a third of the rounds, which
computes as much. Learning rates are the best of `--rates` on a third part that is not reported.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Estimator, RoundsPhase, Samples
from fedage.common.networks.roles import roles_of
from fedage.common.networks.steps import learnt_norm
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.brains import BRAIN_HOSPITALS, draw_patients, planted_in_brains
from fedage.deploy.demo.phantoms import DAYS_PER_YEAR

OPTIONS = {
    "shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0, "width": 8, "poolings": 3, "dropout": 0.1,
    "shift_voxels": 1,
    "first_bin_years": 27.0, "last_bin_years": 99.0, "bin_width_years": 3.0, "label_sd_years": 3.0,
}  # fmt: skip
OPTIONS_OF = {
    "brain-sfcn": OPTIONS,
    "brain-tsan": {
        "shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0, "intensity": "mean", "blocks": 3,
        "shift_voxels": 1, "sex_input": False, "first_age_years": 62.0,
    },
}  # fmt: skip
IXI = Path(__file__).parents[2] / "../shared/data/ixi-t1w"
Sites = Mapping[str, tuple[Any, np.ndarray]]
"""By site, samples (n, 1, I, J, K), or `Samples` of several arrays, and ages in years (n,)."""


def phantoms(estimator: Estimator, *, patients: int, seed: int) -> tuple[Sites, np.ndarray]:
    """Samples and ages by hospital, and the mean grey value of each stored volume (all patients)."""
    sites, means = {}, []
    for hospital in BRAIN_HOSPITALS:
        exams, _, volume = draw_patients(hospital, seed=seed, patients=patients)
        made = []
        for i in range(patients):
            pixels = volume(i).astype(np.float32)
            means.append(pixels.mean())
            spacing = (hospital.scanner.spacing_mm,) * 3
            made.append(sample_of(estimator, Image(pixels, spacing, "MR", view="T1W", orientation="RAS")))
        sites[hospital.name] = np.stack(made), np.array([exam.age_days / DAYS_PER_YEAR for exam in exams])
    return sites, np.array(means)


def sample_of(estimator: Estimator, image: Image) -> np.ndarray:
    return estimator.preprocess(Exam({"t1w": image}))["t1w"]


def part(sites: Sites, rows: slice) -> Sites:
    return {name: (x[rows], ages[rows]) for name, (x, ages) in sites.items()}


def together(sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([x for x, _ in sites.values()]), np.concatenate([ages for _, ages in sites.values()])


def train(estimator: Estimator, sites: Sites, *, rounds: int, epochs: int, rate: float, seed: int = 0) -> dict:
    """Federated averaging over the sites, phase by phase; of one site plain training with as many steps."""
    weights: dict = {}
    for phase in estimator.phases:
        assert isinstance(phase, RoundsPhase)
        weights = train_phase(phase, phase.start(weights, seed=seed), sites, rounds=rounds, epochs=epochs, rate=rate)
    return weights


def train_phase(phase: RoundsPhase, first: dict, sites: Sites, *, rounds: int, epochs: int, rate: float) -> dict:
    training = Training(
        rounds=rounds, local_epochs=epochs, batch_size=10, optimiser="adamw", learning_rate=rate,
        final_learning_rate_fraction=0.05, weight_decay=0.01,
    )  # fmt: skip
    count = sum(len(ages) for _, ages in sites.values())
    roles, weights, longest = roles_of(phase.build(seed=0)), first, [0.0, 0.0]
    for number in range(1, rounds + 1):
        total: dict[str, np.ndarray] = {}
        for order, (x, ages) in enumerate(sites.values()):
            update = train_locally(
                phase, weights, x if isinstance(x, Samples) else Samples({"t1w": x}), {"age_years": ages},
                training=training, round_number=number,
                rng_seed=1000 * number + order, order_seed=order, threads=1, device="cpu",
            )  # fmt: skip
            longest[0] = max(longest[0], learnt_norm(difference(update.weights, weights), roles))
            for name, array in update.weights.items():
                total[name] = total.get(name, 0.0) + array.astype(np.float64) * (update.n / count)
        following = {name: array.astype(np.float32) for name, array in total.items()}
        longest[1] += learnt_norm(difference(following, weights), roles)
        weights = following
    print(
        f"  {phase.name}: the longest update of a site {longest[0]:.2f}, the path of the model {longest[1]:.2f}, from "
        f"its beginning {learnt_norm(difference(weights, first), roles):.2f}",
        flush=True,
    )
    return weights


def difference(after: dict, before: dict) -> dict:
    return {name: array - before[name] for name, array in after.items()}


def predicted(estimator: Estimator, weights: dict, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = predict_columns(
        estimator.predictor(weights, device="cpu"), Samples({"t1w": x}), batch_size=32, device="cpu", threads=1
    )
    return found["predicted_years"], found.get("predicted_sd_years", np.full(len(x), np.nan))


def mae(estimator: Estimator, weights: dict, sites: Sites) -> float:
    x, ages = together(sites)
    return float(np.abs(predicted(estimator, weights, x)[0] - ages).mean())


def thumbnails(x: np.ndarray, side: int = 8) -> np.ndarray:
    """(n, side³): means of blocks."""
    step = x.shape[2] // side
    return x.reshape(len(x), side, step, side, step, side, step).mean(axis=(2, 4, 6)).reshape(len(x), -1)


def ridge_mae(fit: tuple[np.ndarray, np.ndarray], tune: tuple, test: tuple) -> float:
    """Ridge regression of age on thumbnails, its penalty the best of eight on the part for tuning."""
    (a, y), (b, u), (c, v) = ((thumbnails(x), ages) for x, ages in (fit, tune, test))
    mean, sd = a.mean(axis=0), a.std(axis=0) + 1e-9
    z, z_tune, z_test = ((one - mean) / sd for one in (a, b, c))
    best = (np.inf, np.inf)
    for penalty in 10.0 ** np.arange(-1, 7):
        dual = np.linalg.solve(z @ z.T + penalty * np.eye(len(y)), y - y.mean())
        errors = [np.abs(y.mean() + w @ (z.T @ dual) - t).mean() for w, t in ((z_tune, u), (z_test, v))]
        best = min(best, (float(errors[0]), float(errors[1])))
    return best[1]


def chosen_estimator(arguments: argparse.Namespace, of_sfcn: Mapping[str, float] = MappingProxyType({})) -> Estimator:
    more = {"norm": arguments.norm, **of_sfcn} if arguments.estimator == "brain-sfcn" else {}
    return make(arguments.estimator, {**OPTIONS_OF[arguments.estimator], **more})


def on_phantoms(arguments: argparse.Namespace) -> None:
    estimator = chosen_estimator(arguments)
    n, rounds, epochs = arguments.patients, arguments.rounds, arguments.epochs
    began = time.monotonic()
    sites, means = phantoms(estimator, patients=2 * n, seed=arguments.seed)
    fit, tune, test = part(sites, slice(n)), part(sites, slice(n, n + n // 3)), part(sites, slice(n + n // 3, None))
    everybody = {"all": together(fit)}
    ages = together(sites)[1]
    y_fit, y_test = together(fit)[1], together(test)[1]
    print(f"rendered and prepared {len(ages)} heads in {time.monotonic() - began:.0f} s", flush=True)
    print(f"share of age variance that the mean grey value explains {np.corrcoef(means, ages)[0, 1] ** 2:.3f}")
    irreducible = float(np.mean(list(planted_in_brains().irreducible_mae_years.values())))
    print(f"MAE of the mean {np.abs(y_test - y_fit.mean()).mean():.2f}, irreducible {irreducible:.2f}")
    ridge = ridge_mae(together(fit), together(tune), together(test))
    print(f"ridge on 8 × 8 × 8 thumbnails {ridge:.2f}", flush=True)
    best: dict[str, tuple[float, float, dict]] = {}
    fewer = max(round(rounds / len(fit)), 1)
    for rate in arguments.rates:
        arms = {
            # As many gradient steps: an epoch over all patients has as many batches as there are sites times one's.
            "pooled": (everybody, fewer),
            "federated": (fit, rounds),
            "equal": (fit, fewer),
        }
        for name, (of_sites, of_rounds) in arms.items():
            weights = train(estimator, of_sites, rounds=of_rounds, epochs=epochs, rate=rate)
            tuned, tested = mae(estimator, weights, tune), mae(estimator, weights, test)
            print(
                f"{name} at {rate:g}: {tested:.2f} (tuned on {tuned:.2f}), {time.monotonic() - began:.0f} s", flush=True
            )
            if name not in best or tuned < best[name][0]:
                best[name] = tuned, tested, weights
    if arguments.alone:
        for name in fit:
            alone = {name: fit[name]}
            rate = arguments.rates[0]
            found = mae(estimator, train(estimator, alone, rounds=rounds, epochs=epochs, rate=rate), test)
            print(f"{name} alone {found:.2f}, {time.monotonic() - began:.0f} s", flush=True)
    federated, pooled = best["federated"][1], best["pooled"][1]
    print(
        f"federated / pooled {federated / pooled:.3f} (≤ 1.05), federated / irreducible {federated / irreducible:.2f}"
        f" (≤ 1.5), ridge / federated {ridge / federated:.2f} (≥ 1.5)"
    )
    years, sd = predicted(estimator, best["federated"][2], together(test)[0])
    if not np.isfinite(sd).all():
        return
    z = np.abs(years - y_test) / sd
    print(
        f"predicted SD {sd.mean():.2f} on average; errors within 1 SD {np.mean(z <= 1):.2f}, "
        f"within 2 {np.mean(z <= 2):.2f}"
    )


def ixi_volumes() -> tuple[list[Image], np.ndarray]:
    """The 50 real heads and their ages in years."""
    with (IXI / "participants.csv").open(encoding="utf-8") as stream:
        rows = [(row["participant_id"], float(row["age_years"])) for row in csv.DictReader(stream)]
    images = []
    for name, _ in rows:
        image = nib.load(IXI / "t1w" / f"{name}.nii.gz")
        pixels = apply_orientation(np.asarray(image.dataobj, dtype=np.float32), io_orientation(image.affine))
        images.append(Image(pixels, (2.0, 2.0, 2.0), "MR", view="T1W", orientation="RAS"))
    return images, np.array([age for _, age in rows])


def ixi(estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Samples and ages of the 50 real heads."""
    images, ages = ixi_volumes()
    return np.stack([sample_of(estimator, image) for image in images]), ages


def on_real_heads(arguments: argparse.Namespace) -> None:
    """Five folds, patients apart, each predicted by a model of the rest, which lie at three sites at random."""
    estimator = chosen_estimator(arguments, {"first_bin_years": 9.0, "last_bin_years": 90.0})
    x, ages = ixi(estimator)
    order = np.random.default_rng(arguments.seed).permutation(len(ages))
    folds = np.array_split(order, 5)
    found, of_mean = np.zeros(len(ages)), np.zeros(len(ages))
    for number, held_out in enumerate(folds):
        rest = np.setdiff1d(order, held_out)
        rest = np.random.default_rng(number).permutation(rest)
        sites = {f"site {k}": (x[rows], ages[rows]) for k, rows in enumerate(np.array_split(rest, 3))}
        weights = train(
            estimator, sites, rounds=arguments.rounds, epochs=arguments.epochs, rate=arguments.rates[0], seed=number
        )
        found[held_out], _ = predicted(estimator, weights, x[held_out])
        of_mean[held_out] = ages[rest].mean()
        print(f"fold {number + 1}: MAE {np.abs(found - ages)[held_out].mean():.2f}", flush=True)
    print(
        f"50 real heads, five folds, three sites: MAE {np.abs(found - ages).mean():.2f}, r "
        f"{np.corrcoef(found, ages)[0, 1]:.2f}; the mean {np.abs(of_mean - ages).mean():.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimator", choices=sorted(OPTIONS_OF), default="brain-sfcn")
    parser.add_argument("--patients", type=int, default=90, help="trained on at each hospital")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-3])
    parser.add_argument("--norm", choices=("group", "batch"), default="batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="each hospital by itself as well")
    parser.add_argument("--ixi", action="store_true", help="the real heads instead")
    chosen = parser.parse_args(arguments)
    (on_real_heads if chosen.ixi else on_phantoms)(chosen)


if __name__ == "__main__":
    main()
