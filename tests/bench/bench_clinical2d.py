"""What `brain-clinical2d` learns from volumes through simulated slices, judged on thick slices of the same people.

Run as `python -m tests.bench.bench_clinical2d` for rendered heads at three hospitals, with `--ixi` for 50 real heads,
whose volumes are re-sliced by an integral over finer planes, with `brain-sfcn` on the volumes beside it. Rounds are
averaged in this process (simulated, not run as processes); every arm takes the same number of gradient steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedage.client.compute.training import predict_columns
from fedage.common.estimators import make
from fedage.common.estimators.base import Estimator, Samples
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.brains import BRAIN_HOSPITALS, BrainHospital, draw_patients, planted_in_brains
from fedage.deploy.demo.clinical2d_campaign import with_slices, with_volumes
from fedage.deploy.demo.phantoms import DAYS_PER_YEAR
from tests.bench.bench_brain_sfcn import OPTIONS as SFCN_OPTIONS
from tests.bench.bench_brain_sfcn import ixi_volumes, train

OPTIONS: dict[str, Any] = {**SFCN_OPTIONS, "shape": [32, 32, 24], "slices": [18, 24], "up_mm": 2.5}
ABLATIONS: dict[str, dict[str, Any]] = {
    "all of it": {},
    "no slice profile": {"slice_profile": "none"},
    "no phase": {"random_phase": False},
    "one protocol": {"thickness_mm": [6.0, 6.0], "gap_mm": [1.0, 1.0], "slices": [24, 24], "random_phase": False},
}
PROTOCOLS = {"harbour": (5.0, 0.5, 24), "north": (5.5, 1.1, 23), "valley": (6.5, 1.3, 21)}
"""Thickness and gap in mm and number of slices of each hospital's clinical series."""
Site = tuple[Samples, np.ndarray]
"""Samples and ages in years (n,)."""


def stacked(estimator: Estimator, images: Sequence[Image]) -> Samples:
    made = [estimator.preprocess(Exam({"t1w": image})) for image in images]
    return Samples({name: np.stack([one[name] for one in made]) for name in made[0]})


def rendered(estimator: Estimator, hospital: BrainHospital, *, rows: range, seed: int) -> Site:
    exams, _, volume = draw_patients(hospital, seed=seed, patients=rows.stop)
    voxel_mm = hospital.scanner.voxel_mm
    images = [Image(volume(i).astype(np.float32), voxel_mm, "MR", view="T1W", orientation="RAS") for i in rows]
    return stacked(estimator, images), np.array([exams[i].age_days / DAYS_PER_YEAR for i in rows])


def years(estimator: Estimator, weights: dict, samples: Samples) -> np.ndarray:
    predictor = estimator.predictor(weights, device="cpu")
    return predict_columns(predictor, samples, batch_size=32, device="cpu", threads=1)["predicted_years"]


def mae(estimator: Estimator, weights: dict, sites: Sequence[Site]) -> float:
    errors = [np.abs(years(estimator, weights, samples) - ages) for samples, ages in sites]
    return float(np.concatenate(errors).mean())


def pooled(sites: Sequence[Site]) -> Site:
    arrays = {name: np.concatenate([samples[name] for samples, _ in sites]) for name in sites[0][0].arrays}
    return Samples(arrays), np.concatenate([ages for _, ages in sites])


def on_phantoms(arguments: argparse.Namespace) -> None:
    n, began = arguments.patients, time.monotonic()
    irreducible = float(np.mean(list(planted_in_brains().irreducible_mae_years.values())))
    for name, options in list(ABLATIONS.items())[: None if arguments.ablations else 1]:
        estimator = make("brain-clinical2d", {**OPTIONS, **options})
        volumes = [with_volumes(hospital) for hospital in BRAIN_HOSPITALS]
        clinical = [
            with_slices(hospital, slice_mm=mm, gap_mm=gap, slices=slices)
            for hospital, (mm, gap, slices) in zip(BRAIN_HOSPITALS, PROTOCOLS.values(), strict=True)
        ]
        fit = [rendered(estimator, hospital, rows=range(n), seed=arguments.seed) for hospital in volumes]
        held_out = range(n, n + n // 2)
        thick = [rendered(estimator, hospital, rows=held_out, seed=arguments.seed) for hospital in clinical]
        of_volumes = [rendered(estimator, hospital, rows=held_out, seed=arguments.seed) for hospital in volumes]
        everybody = np.concatenate([ages for _, ages in fit])
        of_mean = float(np.abs(np.concatenate([ages for _, ages in thick]) - everybody.mean()).mean())
        print(f"{name}: rendered in {time.monotonic() - began:.0f} s; MAE of the mean {of_mean:.2f}", flush=True)
        arms: dict[str, tuple[Sequence[Site], int]] = {"federated": (fit, arguments.rounds)}
        if not options:
            arms["pooled"] = [pooled(fit)], max(round(arguments.rounds / len(fit)), 1)
        found = {}
        for arm, (sites, rounds) in arms.items():
            weights = train(
                estimator,
                {str(k): site for k, site in enumerate(sites)},
                rounds=rounds,
                epochs=arguments.epochs,
                rate=arguments.rate,
                seed=arguments.seed,
            )
            found[arm] = mae(estimator, weights, thick)
            print(
                f"  {arm}: thick slices {found[arm]:.2f}, volumes {mae(estimator, weights, of_volumes):.2f}, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
        if "pooled" in found:
            print(
                f"  federated / pooled {found['federated'] / found['pooled']:.3f} (≤ 1.05), federated / irreducible "
                f"{found['federated'] / irreducible:.2f} (≤ 1.5; {irreducible:.2f})",
                flush=True,
            )


def resliced(image: Image, *, thickness_mm: float, apart_mm: float, slices: int, phase: float) -> Image:
    """Thick slices of a volume: the mean under a Gaussian, of 13 planes over ± 3 SDs, linear between voxels."""
    sd_mm = thickness_mm / 2.3548200450309493
    offsets = np.linspace(-3, 3, 13)
    profile = np.exp(-(offsets**2) / 2)
    up_mm, voxels = image.spacing_mm[2], image.pixels.shape[2]
    centres = (voxels - 1) / 2 + (np.arange(slices) - (slices - 1) / 2 + phase) * apart_mm / up_mm
    planes = np.clip(centres[:, None] + offsets * sd_mm / up_mm, 0, voxels - 1)  # (S, 13)
    hats = np.clip(1 - np.abs(np.arange(voxels)[:, None, None] - planes), 0, None)  # (K, S, 13)
    pixels = image.pixels @ (hats @ (profile / profile.sum())).astype(np.float32)
    return Image(pixels, (*image.spacing_mm[:2], apart_mm), "MR", view="T1W", orientation="RAS")


def on_real_heads(arguments: argparse.Namespace) -> None:
    """Five folds, patients apart: 2D ages of re-sliced volumes, and 3D ages of the volumes by `brain-sfcn`."""
    bins = {"first_bin_years": 9.0, "last_bin_years": 90.0}
    two = make("brain-clinical2d", {**OPTIONS, **bins, "up_mm": 2.0})
    three = make("brain-sfcn", {**SFCN_OPTIONS, **bins})
    images, ages = ixi_volumes()
    phases = np.random.default_rng(arguments.seed).uniform(-0.5, 0.5, len(images))
    thick = [
        resliced(image, thickness_mm=5.5, apart_mm=6.6, slices=24, phase=phase)
        for image, phase in zip(images, phases, strict=True)
    ]
    series, of_two, of_three = stacked(two, thick), stacked(two, images), stacked(three, images)
    order = np.random.default_rng(arguments.seed).permutation(len(ages))
    found = {name: np.zeros(len(ages)) for name in ("2D", "2D of volumes", "3D", "mean")}
    for number, held_out in enumerate(np.array_split(order, 5)):
        rest = np.random.default_rng(number).permutation(np.setdiff1d(order, held_out))
        steps = {"rounds": arguments.rounds, "epochs": arguments.epochs, "rate": arguments.rate, "seed": number}
        weights = {}
        for name, estimator, samples in (("2D", two, of_two), ("3D", three, of_three)):
            sites = {f"site {k}": (samples.at(rows), ages[rows]) for k, rows in enumerate(np.array_split(rest, 3))}
            weights[name] = train(estimator, sites, **steps)
        found["2D"][held_out] = years(two, weights["2D"], series.at(held_out))
        found["2D of volumes"][held_out] = years(two, weights["2D"], of_two.at(held_out))
        found["3D"][held_out] = years(three, weights["3D"], of_three.at(held_out))
        found["mean"][held_out] = ages[rest].mean()
        print(f"fold {number + 1}: 2D {np.abs(found['2D'] - ages)[held_out].mean():.2f}", flush=True)
    for name, predicted in found.items():
        r = np.corrcoef(predicted, ages)[0, 1]
        print(f"50 real heads, {name}: MAE {np.abs(predicted - ages).mean():.2f}, r {r:.2f}")
    for name in ("2D of volumes", "3D"):
        difference = found["2D"] - found[name]
        print(
            f"the same people, 2D against {name}: r {np.corrcoef(found['2D'], found[name])[0, 1]:.2f}, difference "
            f"{difference.mean():.2f} (SD {difference.std():.2f}) years"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=90, help="trained on at each hospital; half as many held out")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ablations", action="store_true", help="without each part of the simulation as well")
    parser.add_argument("--ixi", action="store_true", help="the real heads instead")
    chosen = parser.parse_args(arguments)
    (on_real_heads if chosen.ixi else on_phantoms)(chosen)


if __name__ == "__main__":
    main()
