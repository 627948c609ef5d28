"""What `breast-4view` learns on phantom mammograms at three hospitals: together, alone and pooled.

Run as `PYTHONPATH=. python tests/bench/bench_breast.py`. Exams are rendered as the demo renders them and preprocessed
as a site does; rounds are averaged in this process (simulated, not run as processes). The arms take the same number of
gradient steps, so that the federation computes three times as much as the pooled model; `equal` is a federation of a
third of the rounds, which computes as much. Learning rates are the best of `--rates` on a part that is not reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Estimator, Samples
from fedage.common.estimators.breast_4view import VIEWS
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.mammograms import HOSPITALS, lacking_views, rendered
from fedage.deploy.demo.phantoms import GAP_SD_YEARS, planted
from tests.of_estimators import network

OPTIONS: dict[str, Any] = {
    "image_height": 64,
    "image_width": 32,
    "width": 16,
    "local_channels": 32,
    "local_blocks": 1,
    "draws": 8,
    "dropout": 0.1,
    "age_min_years": 30,
    "age_max_years": 85,
}


@dataclass(frozen=True)
class Exams:
    """Samples and ages of some exams, densities (n,) in ACR codes."""

    samples: Samples
    age_years: NDArray[np.float64]
    density: NDArray[np.float64]

    def at(self, rows: slice) -> Exams:
        return Exams(self.samples.at(rows), self.age_years[rows], self.density[rows])

    @classmethod
    def of(cls, several: Sequence[Exams]) -> Exams:
        arrays = {name: np.concatenate([one.samples[name] for one in several]) for name in VIEWS}
        present = {name: np.concatenate([one.samples.has(name) for one in several]) for name in VIEWS}
        ages, densities = ([getattr(one, name) for one in several] for name in ("age_years", "density"))
        return cls(Samples(arrays, present), np.concatenate(ages), np.concatenate(densities))


def phantoms(estimator: Estimator, *, exams: int, seed: int) -> dict[str, Exams]:
    """By hospital; ages are uniform in its range."""
    found = {}
    for place, hospital in enumerate(HOSPITALS):
        rng = np.random.default_rng([seed, place])
        ages = rng.uniform(hospital.age_min_years, hospital.age_max_years, exams)
        gaps = GAP_SD_YEARS * rng.standard_normal(exams)
        arrays = {name: np.zeros((exams, *shape), np.float32) for name, shape in estimator.shapes().items()}
        present = {name: np.zeros(exams, bool) for name in VIEWS}
        densities = np.zeros(exams)
        for i, lacking in enumerate(lacking_views(exams, rng=rng)):
            woman = rendered(hospital, i, seed=seed, age_years=ages[i], gap_years=gaps[i], lacking=lacking)
            densities[i] = woman.density
            images = {f"{side}-{view}": image_of(pixels, hospital) for (side, view), pixels in woman.pictures.items()}
            for name, made in estimator.preprocess(Exam(images)).items():
                arrays[name][i], present[name][i] = made, True
        found[hospital.name] = Exams(Samples(arrays, present), ages, densities)
    return found


def image_of(stored: NDArray[np.uint16], hospital: Any) -> Image:
    """As a site decodes it: brighter is denser."""
    pixels = stored.astype(np.float32)
    if hospital.scanner.photometric == "MONOCHROME1":
        pixels = 2**hospital.scanner.bits_stored - 1 - pixels
    return Image(pixels=pixels, spacing_mm=(hospital.scanner.spacing_mm,) * 2, modality="MG")


def train(
    estimator: Estimator, sites: Mapping[str, Exams], *, rounds: int, epochs: int, rate: float, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Federated averaging over the sites; of one site plain training."""
    phase = network(estimator)
    weights = phase.start({}, seed=seed)
    training = Training(
        rounds=rounds,
        local_epochs=epochs,
        batch_size=16,
        optimiser="adamw",
        learning_rate=rate,
        final_learning_rate_fraction=0.05,
        weight_decay=0.01,
    )
    count = sum(len(one.age_years) for one in sites.values())
    for number in range(1, rounds + 1):
        total: dict[str, NDArray[Any]] = {}
        for order, one in enumerate(sites.values()):
            update = train_locally(
                phase,
                weights,
                one.samples,
                {"age_years": one.age_years, "density": one.density},
                training=training,
                round_number=number,
                rng_seed=1000 * number + order,
                order_seed=order,
                threads=1,
                device="cpu",
            )
            for name, array in update.weights.items():
                total[name] = total.get(name, 0.0) + array.astype(np.float64) * (update.n / count)
        weights = {name: array.astype(np.float32) for name, array in total.items()}
    return weights


def years_of(estimator: Estimator, weights: Mapping[str, NDArray[Any]], on: Exams) -> NDArray[np.float64]:
    """Predicted ages (n,)."""
    predictor = estimator.predictor(weights, device="cpu")
    return predict_columns(predictor, on.samples, batch_size=32, device="cpu", threads=1)["predicted_years"]


def mae(estimator: Estimator, weights: Mapping[str, NDArray[Any]], on: Exams) -> float:
    return float(np.abs(years_of(estimator, weights, on) - on.age_years).mean())


def thumbnails(on: Exams, side: int = 8) -> NDArray[np.float64]:
    """(n, 4·side²): means of blocks of every view, zeros where it is missing."""
    made = []
    for name in VIEWS:
        x = on.samples[name][:, 0].astype(np.float64)
        rows, columns = x.shape[1] // side, x.shape[2] // side
        made.append(x.reshape(len(x), side, rows, side, columns).mean(axis=(2, 4)).reshape(len(x), -1))
    return np.concatenate(made, axis=1)


def ridge_mae(fit: Exams, tune: Exams, test: Exams) -> float:
    """Ridge regression of age on thumbnails, its penalty the best of nine on the part for tuning."""
    x = thumbnails(fit)
    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-9
    z, z_tune, z_test = ((thumbnails(one) - mean) / sd for one in (fit, tune, test))
    best = (np.inf, np.inf)
    for penalty in 10.0 ** np.arange(-2, 7):
        w = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (fit.age_years - fit.age_years.mean()))
        errors = [
            np.abs(fit.age_years.mean() + of @ w - one.age_years).mean() for of, one in ((z_tune, tune), (z_test, test))
        ]
        best = min(best, (float(errors[0]), float(errors[1])))
    return best[1]


def explained_by_the_mean(on: Exams) -> float:
    """Share of the age variance that the mean grey value of the views there explains."""
    means = np.array([on.samples[name].mean(axis=(1, 2, 3)) for name in VIEWS])
    there = np.array([on.samples.has(name) for name in VIEWS])
    return float(np.corrcoef((means * there).sum(axis=0) / there.sum(axis=0), on.age_years)[0, 1] ** 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, default=150, help="trained on at each hospital")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-3])
    parser.add_argument("--norm", choices=("group", "batch"), default="batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="each hospital by itself as well")
    parser.add_argument("--option", nargs=2, action="append", default=[], metavar=("NAME", "NUMBER"))
    chosen = parser.parse_args(arguments)
    given = {name: float(text) if "." in text else int(text) for name, text in chosen.option}
    estimator = make("breast-4view", {**OPTIONS, "norm": chosen.norm, **given})
    n, rounds, epochs = chosen.exams, chosen.rounds, chosen.epochs
    began = time.monotonic()
    sites = phantoms(estimator, exams=n + n // 3 + n // 2, seed=chosen.seed)
    fit = {name: one.at(slice(n)) for name, one in sites.items()}
    tune = Exams.of([one.at(slice(n, n + n // 3)) for one in sites.values()])
    test = Exams.of([one.at(slice(n + n // 3, None)) for one in sites.values()])
    everybody = Exams.of(list(fit.values()))
    whole = Exams.of(list(sites.values()))
    print(f"{len(whole.age_years)} exams rendered and prepared in {time.monotonic() - began:.0f} s")
    print(f"share of age variance that the mean grey value explains {explained_by_the_mean(whole):.3f} (< 0.333)")
    irreducible = float(np.mean(list(planted(HOSPITALS).irreducible_mae_years.values())))
    of_mean = np.abs(test.age_years - everybody.age_years.mean()).mean()
    ridge = ridge_mae(everybody, tune, test)
    print(f"MAE of the mean {of_mean:.2f}, irreducible {irreducible:.2f}, ridge on 8 × 8 thumbnails {ridge:.2f}")
    best: dict[str, tuple[float, float]] = {}
    # An epoch over all exams has as many batches as there are sites times one's.
    fewer = max(round(rounds / len(fit)), 1)
    arms = {"federated": (fit, rounds), "pooled": ({"all": everybody}, fewer), "equal": (fit, fewer)}
    for rate in chosen.rates:
        for name, (of_sites, of_rounds) in arms.items():
            weights = train(estimator, of_sites, rounds=of_rounds, epochs=epochs, rate=rate)
            found = mae(estimator, weights, tune), mae(estimator, weights, test)
            seconds = time.monotonic() - began
            print(f"{name} at {rate:g}: {found[1]:.2f} (tuned on {found[0]:.2f}), {seconds:.0f} s", flush=True)
            best[name] = min(best.get(name, (np.inf, np.inf)), found)
    if chosen.alone:
        for name, one in fit.items():
            weights = train(estimator, {name: one}, rounds=rounds, epochs=epochs, rate=chosen.rates[0])
            print(f"{name} alone {mae(estimator, weights, test):.2f}, {time.monotonic() - began:.0f} s", flush=True)
    federated, pooled = best["federated"][1], best["pooled"][1]
    print(
        f"federated / pooled {federated / pooled:.3f} (≤ 1.05), federated / irreducible {federated / irreducible:.2f}"
        f" (≤ 1.5), ridge / federated {ridge / federated:.2f} (≥ 1.5)"
    )


if __name__ == "__main__":
    main()
