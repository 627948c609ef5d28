"""What `chest-ca` learns in months on phantom films of children at three hospitals: together, alone and pooled.

Run as `PYTHONPATH=. python tests/bench/bench_children.py`. Films are rendered as phantoms are and preprocessed as a
site does, sex is an input; rounds are averaged in this process (simulated, not run as processes). The arms `federated`,
`pooled` and `alone` take the same number of gradient steps at each site, so the federation computes as many times more
as it has sites; `equal` is a federation that computes as much in all as `pooled` does. Learning rates are the best of
`--rates` for each arm, on a part that is not reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np

from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import ROW, Estimator, Samples
from fedage.common.preprocessing.image import Exam, Image
from fedage.deploy.demo.children import CHILDREN_HOSPITALS, GAP_SD_YEARS, ChildSigns, render_child
from fedage.deploy.demo.phantoms import expose, generator_of, planted
from tests.of_estimators import network

OPTIONS = {
    "image_size": 64, "width": 16, "norm": "batch", "age_in": "months", "centre_years": 8.0, "scale_years": 5.0,
    "sex_input": True,
}  # fmt: skip
MONTHS = 12
Films = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Samples (n, 1, S, S), who is male (n,), ages in years (n,)."""


def phantoms(estimator: Estimator, *, children: int, seed: int) -> tuple[dict[str, Films], float]:
    """Films by hospital, and the share of the age variance that the mean grey value explains."""
    found, means = {}, []
    for hospital in CHILDREN_HOSPITALS:
        scanner, people = hospital.scanner, generator_of(seed, hospital, "bench")
        ages = people.uniform(hospital.age_min_years, hospital.age_max_years, children)
        gaps, male = GAP_SD_YEARS * people.standard_normal(children), people.random(children) < 0.5
        made = []
        for i in range(children):
            rng = generator_of(seed, hospital, f"bench {i}")
            signs = ChildSigns.of(ages[i] + gaps[i], is_male=bool(male[i]), rng=rng)
            density = render_child(signs, shape=(scanner.rows, scanner.columns), rng=rng)
            pixels = expose(density, scanner=scanner, rng=rng).astype(np.float32)
            if scanner.photometric == "MONOCHROME1":
                pixels = 2**scanner.bits_stored - 1 - pixels
            means.append(pixels.mean() / 2**scanner.bits_stored)
            image = Image(pixels=pixels, spacing_mm=(scanner.spacing_mm,) * 2, modality="DX", view="PA")
            made.append(estimator.preprocess(Exam({"image": image}))["image"])
        found[hospital.name] = np.stack(made), male.astype(float), ages
    everybody = np.concatenate([ages for _, _, ages in found.values()])
    return found, float(np.corrcoef(means, everybody)[0, 1] ** 2)


def part(sites: Mapping[str, Films], rows: slice) -> dict[str, Films]:
    return {name: (x[rows], male[rows], ages[rows]) for name, (x, male, ages) in sites.items()}


def together(sites: Mapping[str, Films]) -> Films:
    x, male, ages = (np.concatenate(arrays) for arrays in zip(*sites.values(), strict=True))
    return x, male, ages


def samples_of(films: Films) -> Samples:
    return Samples({"image": films[0], ROW: films[1][:, None]})


def train(
    estimator: Estimator, sites: Mapping[str, Films], *, rounds: int, epochs: int, rate: float, batch: int
) -> dict:
    """Federated averaging over the sites; of one site plain training."""
    phase = network(estimator)
    weights = phase.start({}, seed=0)
    training = Training(
        rounds=rounds, local_epochs=epochs, batch_size=batch, optimiser="adamw", learning_rate=rate,
        final_learning_rate_fraction=0.05, weight_decay=0.01,
    )  # fmt: skip
    count = sum(len(films[2]) for films in sites.values())
    for number in range(1, rounds + 1):
        total: dict[str, np.ndarray] = {}
        for order, films in enumerate(sites.values()):
            update = train_locally(
                phase, weights, samples_of(films), {"age_years": films[2]}, training=training, round_number=number,
                rng_seed=1000 * number + order, order_seed=order, threads=1, device="cpu",
            )  # fmt: skip
            for name, array in update.weights.items():
                total[name] = total.get(name, 0.0) + array.astype(np.float64) * (update.n / count)
        weights = {name: array.astype(np.float32) for name, array in total.items()}
    return weights


def mae_months(estimator: Estimator, weights: dict, films: Films) -> float:
    predictor = estimator.predictor(weights, device="cpu")
    years = predict_columns(predictor, samples_of(films), device="cpu", threads=1)["predicted_years"]
    return float(MONTHS * np.abs(years - films[2]).mean())


def ridge_months(fit: Films, tune: Films, test: Films) -> float:
    """Ridge regression on 8 × 8 thumbnails and sex, its penalty the best of eight on the part for tuning."""

    def rows(films: Films) -> np.ndarray:
        small = films[0].reshape(len(films[0]), 8, 8, 8, 8).mean(axis=(2, 4)).reshape(len(films[0]), -1)
        return np.column_stack([small, films[1]])

    x = rows(fit)
    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-9
    z, y, best = (x - mean) / sd, fit[2], (np.inf, np.inf)
    for penalty in 10.0 ** np.arange(-1, 7):
        w = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
        errors = [np.abs(y.mean() + (rows(one) - mean) / sd @ w - one[2]).mean() for one in (tune, test)]
        best = min(best, (float(errors[0]), float(errors[1])))
    return MONTHS * best[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=750, help="trained on at each hospital")
    parser.add_argument("--tuned", type=int, default=100, help="of each hospital, that learning rates are chosen by")
    parser.add_argument("--tested", type=int, default=300, help="of each hospital, that errors are reported of")
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--arms", nargs="+", default=["federated", "pooled", "equal", "alone"])
    chosen = parser.parse_args(arguments)
    estimator, n, began = make("chest-ca", OPTIONS), chosen.children, time.monotonic()
    sites, explained = phantoms(estimator, children=n + chosen.tuned + chosen.tested, seed=chosen.seed)
    fit, cut = part(sites, slice(n)), n + chosen.tuned
    tune, test = (together(part(sites, rows)) for rows in (slice(n, cut), slice(cut, None)))
    everybody = together(fit)
    irreducible = MONTHS * float(
        np.mean(list(planted(CHILDREN_HOSPITALS, gap_sd_years=GAP_SD_YEARS).irreducible_mae_years.values()))
    )
    ridge = ridge_months(everybody, tune, test)
    of_mean = MONTHS * np.abs(test[2] - everybody[2].mean()).mean()
    print(f"share of age variance that the mean grey value explains {explained:.3f} (< 0.333); in months:")
    print(f"mean {of_mean:.1f}, ridge on thumbnails {ridge:.1f}, irreducible {irreducible:.1f}", flush=True)
    fewer = max(round(chosen.rounds / len(fit)), 1)
    arms: dict[str, tuple[Mapping[str, Films], int]] = {
        "federated": (fit, chosen.rounds), "pooled": ({"all": everybody}, fewer), "equal": (fit, fewer),
    }  # fmt: skip
    arms |= {f"{name} alone": ({name: films}, chosen.rounds) for name, films in fit.items()}
    best: dict[str, tuple[float, float]] = {}
    for name, (of_sites, rounds) in arms.items():
        if name.split()[-1] not in chosen.arms:
            continue
        for rate in chosen.rates:
            weights = train(estimator, of_sites, rounds=rounds, epochs=chosen.epochs, rate=rate, batch=chosen.batch)
            found = mae_months(estimator, weights, tune), mae_months(estimator, weights, test)
            best[name] = min(best.get(name, (np.inf, np.inf)), found)
            seconds = time.monotonic() - began
            print(f"{name} at {rate:g}: {found[1]:.2f} (tuned on {found[0]:.2f}), {seconds:.0f} s", flush=True)
    if "federated" in best:
        federated = best["federated"][1]
        print(f"/ irreducible {federated / irreducible:.2f} (≤ 1.5), ridge / federated {ridge / federated:.2f} (≥ 1.5)")
        if "pooled" in best:
            print(f"federated / pooled {federated / best['pooled'][1]:.3f} (≤ 1.05)")


if __name__ == "__main__":
    main()
