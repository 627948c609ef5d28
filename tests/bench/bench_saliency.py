"""Whether maps point at where age was painted, and at nothing once the weights are drawn at random.

Run as `PYTHONPATH=. python tests/bench/bench_saliency.py [estimator ...]`. Phantoms in which one sign of age alone
changes with it: the heart and aorta of a chest, the ventricles of a head, of a breast a spot of stated place. A small
network is trained on them in this process; its maps, on exams it was not trained on, are held against the cells of
which a quarter or more is painted (of each exam its own). Printed: the share of a map inside those cells over their
share of the images' area; and Spearman's correlation of the mean map with that of the same network with random weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from fedage.client.compute.saliency import saliency
from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Estimator, RoundsPhase, Samples
from fedage.common.estimators.brain_contrastive import EMBEDDING
from fedage.common.estimators.inputs import image_shapes
from fedage.common.estimators.ridge import ridge_arrays
from fedage.common.preprocessing.image import Exam, Image
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.deploy.demo.anatomy import render as render_chest
from fedage.deploy.demo.brains import BRAIN_HOSPITALS, receive
from fedage.deploy.demo.breast import BreastBuild, BreastSigns, render_view
from fedage.deploy.demo.heads import BrainSigns, Head
from fedage.deploy.demo.heads import render as render_head
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.mammograms import HOSPITALS as MAMMOGRAPHY
from fedage.deploy.demo.mammograms import VIEWS
from fedage.deploy.demo.painted import painted
from fedage.deploy.demo.person import Build, Signs
from fedage.deploy.demo.phantoms import expose

HEAD: dict[str, Any] = {"shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0}
Drawn = dict[str, np.ndarray]
Render = Callable[[float], Drawn]
"""The preprocessed arrays of one person whose painted sign looks so many years old."""


@dataclass(frozen=True)
class Case:
    options: dict[str, Any]
    person: Callable[[Estimator, int, bool], Render]
    """By number; the flag asks for a scanner's noise."""
    epochs: int = 30
    rate: float = 1e-3
    patients: int = 150


def chest(estimator: Estimator, number: int, noisy: bool) -> Render:
    scanner = HOSPITALS[0].scanner
    build = Build.of(is_male=bool(number % 2), rng=np.random.default_rng([7, number]))

    def render(years: float) -> Drawn:
        signs = replace(Signs(*[60.0] * 8), heart=years, aorta=years)
        pixels = render_chest(
            signs, build, shape=(scanner.rows // 2, scanner.columns // 2), spacing_mm=2 * scanner.spacing_mm
        )
        if noisy:
            quiet = replace(scanner, photometric="MONOCHROME2")
            pixels = expose(pixels, scanner=quiet, rng=np.random.default_rng([8, number])).astype(np.float32)
        spacing = (2 * scanner.spacing_mm,) * 2
        return dict(estimator.preprocess(Exam({"image": Image(pixels, spacing, "DX", view="PA")})))

    return render


def head(estimator: Estimator, number: int, noisy: bool) -> Render:
    scanner = BRAIN_HOSPITALS[0].scanner
    person = Head.of(is_male=bool(number % 2), rng=np.random.default_rng([7, number]))

    def render(years: float) -> Drawn:
        signs = replace(BrainSigns(*[60.0] * 5), ventricles=years, third_ventricle=years)
        voxels = render_head(signs, person, shape=scanner.shape, spacing_mm=scanner.spacing_mm)
        if noisy:
            voxels = receive(voxels, scanner=scanner, rng=np.random.default_rng([8, number])).astype(np.float32)
        image = Image(voxels, (scanner.spacing_mm,) * 3, "MR", view="T1W", orientation="RAS")
        return dict(estimator.preprocess(Exam({"t1w": image})))

    return render


def breasts(estimator: Estimator, number: int, noisy: bool) -> Render:
    scanner = MAMMOGRAPHY[0].scanner
    build = BreastBuild.of(rng=np.random.default_rng([7, number]))

    def render(years: float) -> Drawn:
        images = {}
        for place, (side, view) in enumerate(VIEWS):
            rng = np.random.default_rng([8, number, place])
            shape = (scanner.rows, scanner.columns)
            pixels = render_view(
                BreastSigns(60.0, 60.0, 60.0), build, view=view, shape=shape, spacing_mm=scanner.spacing_mm, rng=rng
            )
            rows, columns = np.ogrid[: shape[0], : shape[1]]
            spot = np.exp(-((rows - 0.5 * shape[0]) ** 2 + (columns - 0.35 * shape[1]) ** 2) / (2 * 5.0**2))
            pixels = np.clip(pixels + np.float32(0.4 * (years - 40) / 45) * spot, 0, 0.98).astype(np.float32)
            pixels = pixels if side == "L" else pixels[:, ::-1]
            if noisy:
                quiet = replace(scanner, photometric="MONOCHROME2")
                pixels = expose(pixels, scanner=quiet, rng=rng).astype(np.float32)
            spacing = (scanner.spacing_mm,) * 2
            images[f"{side}-{view}"] = Image(pixels, spacing, "MG", view=view, laterality=side)
        return dict(estimator.preprocess(Exam(images)))

    return render


CASES = {
    "chest-ca": Case({"image_size": 64, "width": 8, "augment": False}, chest),
    "brain-sfcn": Case(
        {**HEAD, "width": 8, "poolings": 3, "dropout": 0.1, "shift_voxels": 1, "first_bin_years": 27.0,
         "last_bin_years": 99.0, "bin_width_years": 3.0, "label_sd_years": 3.0}, head, rate=1e-2,
    ),
    "brain-contrastive": Case(
        {**HEAD, "width": 8, "dimensions": 16, "encoder": "resnet18", "views": 2}, head, rate=3e-3,
    ),
    "breast-4view": Case(
        {"image_height": 64, "image_width": 32, "width": 16, "local_path": False, "dropout": 0.1, "age_min_years": 30,
         "age_max_years": 95}, breasts,
    ),
}  # fmt: skip


def drawn(case: Case, estimator: Estimator, *, first: int, count: int) -> tuple[Samples, np.ndarray]:
    ages = np.random.default_rng(first).uniform(40, 85, count)
    people = [case.person(estimator, first + k, True)(years) for k, years in enumerate(ages)]
    return Samples({name: np.stack([one[name] for one in people]) for name in people[0]}), ages


def grids_of(estimator: Estimator) -> list[CoarseGrid]:
    return [CoarseGrid.of(name, shape, longest=8) for name, shape in image_shapes(estimator)]


def cells_of(estimator: Estimator, case: Case, grids: list[CoarseGrid], *, first: int, count: int) -> np.ndarray:
    """Which cells (n, K) are painted in each exam."""
    found = []
    for number in range(first, first + count):
        render = case.person(estimator, number, False)
        row: list[bool] = []
        for grid in grids:
            mask = painted(lambda years, name=grid.name, render=render: render(years)[name])[0]
            row += [bool(mask[where].mean() >= 0.25) for where in grid.slices()]
        found.append(row)
    return np.array(found)


def trained(estimator: Estimator, case: Case, samples: Samples, ages: np.ndarray) -> dict[str, Any]:
    model: dict[str, Any] = {}
    for phase in estimator.phases:
        if isinstance(phase, RoundsPhase):
            training = Training(
                rounds=1, local_epochs=case.epochs, batch_size=16, optimiser="adamw", learning_rate=case.rate
            )
            targets = {target.column: np.full(len(ages), np.nan) for target in estimator.targets} | {"age_years": ages}
            update = train_locally(
                phase, phase.start(model, seed=1), samples, targets, training=training, round_number=1, rng_seed=1,
                threads=1, device="cpu",
            )  # fmt: skip
            model = dict(update.weights)
    return with_probe(estimator, model, samples, ages)


def with_probe(estimator: Estimator, model: dict[str, Any], samples: Samples, ages: np.ndarray) -> dict[str, Any]:
    """The model with the ridge regression of age, for an estimator that has one."""
    if estimator.name != "brain-contrastive":
        return model
    from tests.bench.bench_contrastive import age_model

    names = tuple(f"{EMBEDDING}{k}" for k in range(1, estimator.options.dimensions + 1))  # type: ignore[attr-defined]
    made = predict_columns(
        estimator.phases[0].embedding(model, names, device="cpu"),
        samples,
        batch_size=32,
        device="cpu",
        threads=1,  # type: ignore[union-attr]
    )
    sums = age_model({"one": (np.column_stack([made[name] for name in names]), ages)}, names)
    ridge = ridge_arrays({"model": {name: np.asarray(array).tolist() for name, array in sums.items()}})
    return model | {f"ridge.{name}": array for name, array in ridge.items()}


def randomised(weights: dict[str, Any], *, seed: int) -> dict[str, Any]:
    """Every array with its entries in a random order: the same sizes, nothing learnt."""
    rng = np.random.default_rng(seed)
    return {name: rng.permutation(array.ravel()).reshape(array.shape) for name, array in weights.items()}


def figures(name: str) -> Iterator[str]:
    case = CASES[name]
    estimator, began = make(name, case.options), time.monotonic()
    samples, ages = drawn(case, estimator, first=0, count=case.patients)
    weights = trained(estimator, case, samples, ages)
    new, years = drawn(case, estimator, first=10_000, count=30)
    grids = grids_of(estimator)

    def maps(model: dict[str, Any]) -> np.ndarray:
        return saliency(estimator.predictor(model, device="cpu"), new, grids, batch_size=30, device="cpu", threads=1)

    made = predict_columns(estimator.predictor(weights, device="cpu"), new, batch_size=30, device="cpu", threads=1)
    error, of_mean = np.abs(made["predicted_years"] - years).mean(), np.abs(years - ages.mean()).mean()
    inside = cells_of(estimator, case, grids, first=10_000, count=30)
    found = maps(weights)
    share, area = float((found * inside).sum(axis=1).mean()), float(inside.mean())
    yield f"{name}: MAE {error:.2f} years (mean {of_mean:.2f}); {inside.shape[1]} cells, {area:.1%} of them painted"
    seconds = time.monotonic() - began
    yield f"  share of the maps there {share:.1%}: {share / area:.1f} times the area's, {seconds:.0f} s"
    others = [maps(randomised(weights, seed=k)) for k in range(3)]
    alike = [spearmanr(found.mean(axis=0), other.mean(axis=0)).statistic for other in others]
    there = [float((other * inside).sum(axis=1).mean()) / area for other in others]
    yield f"  random weights: correlation of the mean maps {np.round(alike, 2)}, {np.round(there, 1)} times the area's"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        for line in figures(wanted):
            print(line, flush=True)
