"""What a contrastive encoder and one trained with L1 keep of the scanner, by number of hospitals.

Run as `python -m tests.bench.bench_contrastive`: phantom heads whose hospitals have scanners of their own. Rounds are
averaged in this process (simulated, not run as processes). Both arms have the same encoder, embedding, patients and
steps, L1 of one view of a patient and L^exp of two. Age and site are read from the embedding by the product's exact
sums: a ridge regression and a linear discriminant, fitted on those trained on. External hospitals are two that no arm
has seen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.analyses.evaluation.likely_site import openbhb_score
from fedage.common.analyses.preparation.age_scale import AgeScale
from fedage.common.analyses.preparation.site_moments import likeliest
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.analyses.preparation.table_sums import standardise
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch, Samples
from fedage.common.estimators.brain_contrastive import EncoderPhase
from fedage.common.preprocessing.image import Image
from fedage.common.statistics.cohort import Cohort
from fedage.deploy.demo.brains import BrainHospital, MRScanner, draw_patients
from fedage.deploy.demo.phantoms import DAYS_PER_YEAR
from tests.bench.bench_brain_sfcn import Sites, part, sample_of, together
from tests.common.analyses.table_rows import result
from tests.common.analyses.test_site_moments import totals
from tests.of_estimators import network

OPTIONS: dict[str, Any] = {
    "shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 7.0, "width": 8, "dimensions": 8,
    "kernel_width_years": 5.0,
}  # fmt: skip
TEST = 20
"""Patients of each hospital who are not trained on."""


@dataclass(frozen=True)
class L1Phase(EncoderPhase):
    """The same encoder and embedding, not normalised, with a linear layer to age, trained with L1 on age."""

    couples_samples: bool = False

    def build(self, *, seed: int) -> Any:
        import torch
        from torch import nn

        encoder = super().build(seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return nn.ModuleDict({"encoder": encoder, "age": nn.Linear(self.options.dimensions, 1)})

    def output(self, module: Any, batch: Batch) -> Any:
        import torch

        return module["age"](module["encoder"](torch.cat(list(batch.inputs.values()))))[:, 0]

    def loss(self, output: Any, batch: Batch) -> Any:
        ages = batch.targets["age_years"]
        return (output - (ages.repeat(len(output) // len(ages)) - 62) / 13).abs().mean()


def scanners(sites: int, *, seed: int) -> list[BrainHospital]:
    """Hospitals of the same ages, each with gain, curve, noise, blur and voxels of its own."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(sites):
        spacing = float(rng.uniform(5.0, 6.0))
        shape = tuple(round(extent / spacing) for extent in (190, 230, 190))
        gamma, noise, blur = rng.uniform(0.75, 1.3), rng.uniform(0.01, 0.04), rng.uniform(0.5, 2.5)
        scanner = MRScanner(
            "Phantom", "bids", shape, spacing, "RAS", float(rng.uniform(300, 2500)), float(gamma), float(noise),
            float(blur),
        )  # fmt: skip
        made.append(BrainHospital(f"s{number:02d}", "Hospital", 40.0, 85.0, "P", scanner))
    return made


def phantoms(estimator: Any, hospitals: Sequence[BrainHospital], *, patients: int, seed: int) -> Sites:
    sites = {}
    for hospital in hospitals:
        exams, _, volume = draw_patients(hospital, seed=seed, patients=patients)
        spacing = (hospital.scanner.spacing_mm,) * 3
        pixels = (volume(i).astype(np.float32) for i in range(patients))
        made = [sample_of(estimator, Image(one, spacing, "MR", view="T1W", orientation="RAS")) for one in pixels]
        sites[hospital.name] = np.stack(made), np.array([exam.age_days / DAYS_PER_YEAR for exam in exams])
    return sites


def train(phase: Any, sites: Sites, *, rounds: int, epochs: int, rate: float, seed: int) -> dict[str, Any]:
    weights = phase.start({}, seed=seed)
    training = Training(
        rounds=rounds, local_epochs=epochs, batch_size=16, optimiser="adamw", learning_rate=rate,
        final_learning_rate_fraction=0.05, weight_decay=5e-5,
    )  # fmt: skip
    count = sum(len(ages) for _, ages in sites.values())
    for number in range(1, rounds + 1):
        total: dict[str, np.ndarray] = {}
        for order, (x, ages) in enumerate(sites.values()):
            update = train_locally(
                phase, weights, Samples({"t1w": x}), {"age_years": ages}, training=training, round_number=number,
                rng_seed=1000 * number + order, order_seed=order, threads=1, device="cpu",
            )  # fmt: skip
            for name, array in update.weights.items():
                total[name] = total.get(name, 0.0) + array.astype(np.float64) * (update.n / count)
        weights = {name: array.astype(np.float32) for name, array in total.items()}
    return weights


def embedded(phase: Any, weights: Mapping[str, Any], sites: Sites, names: tuple[str, ...]) -> Sites:
    """The embedding (n, D) in place of the samples; of the encoder without the layer to age."""
    encoder = EncoderPhase(phase.options)
    own = {name.removeprefix("encoder."): a for name, a in weights.items() if not name.startswith("age.")}
    arrays = own if isinstance(phase, L1Phase) else weights
    embed = encoder.embedding(arrays, names, device="cpu")
    made = {}
    for site, (x, ages) in sites.items():
        columns = predict_columns(embed, Samples({"t1w": x}), batch_size=32, device="cpu", threads=1)
        made[site] = np.column_stack([columns[name] for name in names]), ages
    return made


def age_model(fit: Sites, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The ridge regression of age and the discriminant of sites, by the product's sums."""
    analysis = TablePreparation(names, AgeScale("linear"), penalty=1.0, sites=tuple(fit))
    cohorts = {}
    for site, (x, ages) in fit.items():
        ones = np.ones(len(ages))
        columns = {"age_years": ages, "is_train": ones, "healthy": ones, **dict(zip(names, x.T, strict=True))}
        cohorts[site] = Cohort(columns)
    return {name: np.asarray(value) for name, value in result(totals(analysis, cohorts)[2])["model"].items()}


def years(model: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return model["intercept"] + standardise(x, model["means"], model["sds"]) @ model["coefficients"]


def probed(fit: Sites, internal: Sites, external: Sites, *, names: tuple[str, ...]) -> tuple[float, float, float]:
    """Internal and external MAE in years, and balanced accuracy of the site."""
    model = age_model(fit, names)

    def mae(sites: Sites) -> float:
        x, ages = together(sites)
        return float(np.abs(years(model, x) - ages).mean())

    recalls = []
    for number, (x, _) in enumerate(internal.values(), start=1):
        z = standardise(x, model["means"], model["sds"])
        recalls.append(np.mean(likeliest(z, model["site_directions"], model["site_constants"]) == number))
    return mae(internal), mae(external), float(np.mean(recalls))


def on_phantoms(arguments: argparse.Namespace) -> None:
    estimator: Any = make("brain-contrastive", OPTIONS)
    names = tuple(f"embedding:{k}" for k in range(1, OPTIONS["dimensions"] + 1))
    arms = {"L^exp": network(estimator), "L1": L1Phase(estimator.options.model_copy(update={"views": 1}))}
    for seed, count in ((seed, count) for seed in arguments.seeds for count in arguments.sites):
        n = arguments.patients // count
        hospitals = scanners(max(arguments.sites) + 2, seed=seed)
        there = [*hospitals[:count], *hospitals[-2:]]
        everybody = phantoms(estimator, there, patients=n + TEST, seed=seed)
        external = {h.name: everybody[h.name] for h in hospitals[-2:]}
        sites = {h.name: everybody[h.name] for h in hospitals[:count]}
        fit, internal = part(sites, slice(n)), part(sites, slice(n, None))
        of_mean = float(np.abs(together(external)[1] - together(fit)[1].mean()).mean())
        for name, phase in arms.items():
            began = time.monotonic()
            weights = train(
                phase, fit, rounds=arguments.rounds, epochs=arguments.epochs, rate=arguments.rate, seed=seed
            )
            rows = [embedded(phase, weights, which, names) for which in (fit, internal, external)]
            inside, outside, accuracy = probed(rows[0], rows[1], rows[2], names=names)
            print(
                f"{count} sites, seed {seed}, {name}: internal MAE {inside:.2f}, external {outside:.2f} (mean "
                f"{of_mean:.2f}), balanced accuracy {accuracy:.3f} (chance {1 / count:.3f}), OpenBHB score "
                f"{openbhb_score(outside, accuracy):.2f}, {time.monotonic() - began:.0f} s",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=96, help="trained on, at all hospitals together")
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-3)
    on_phantoms(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
