"""`chest-ca` on 1,000 real films of 264 adults at 64 × 64 pixels, five folds, patients apart: MAE in years.

    PYTHONPATH=. python tests/bench/bench_chest.py [epochs]

Beside it the mean, and PCA with a ridge regression of the same folds. One site, computed without processes: the films
go through the estimator's own preprocessing as one frame of 1 mm pixels each. A hard case: little is to be had at this
size, and ages are whole years, so `age_in = "months"` would refuse them all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image as Picture

from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.preprocessing.image import Exam, Image
from fedage.common.statistics.statistic import FloatArray
from tests.of_estimators import network, predict_years, train_locally

DATA = Path(__file__).parents[3] / "shared/data/nih-cxr"
FOLDS, COMPONENTS, PENALTY = 5, 50, 100.0


def films() -> tuple[np.ndarray, FloatArray, np.ndarray]:
    """Samples (n, 1, 64, 64), ages (n,) in years, patients (n,)."""
    table = pd.read_csv(DATA / "labels.csv")
    made = make("chest-ca", {"image_size": 64})
    samples = []
    for name in table.file:
        pixels = np.asarray(Picture.open(DATA / "images" / name).convert("L"), dtype=np.float32)
        image = Image(pixels=pixels, spacing_mm=(1.0, 1.0), modality="DX", view="PA")
        samples.append(made.preprocess(Exam({"image": image}))["image"])
    return np.stack(samples), table.age.to_numpy(float), table.patient.to_numpy()


def pca_ridge(train: np.ndarray, age: FloatArray, test: np.ndarray) -> FloatArray:
    flat, other = (part.reshape(len(part), -1).astype(np.float64) for part in (train, test))
    mean = flat.mean(axis=0)
    _, _, axes = np.linalg.svd(flat - mean, full_matrices=False)
    z, w = (flat - mean) @ axes[:COMPONENTS].T, (other - mean) @ axes[:COMPONENTS].T
    sd = z.std(axis=0)
    z, w = z / sd, w / sd
    b = np.linalg.solve(z.T @ z + PENALTY * np.eye(COMPONENTS), z.T @ (age - age.mean()))
    return np.asarray(age.mean() + w @ b)


def main(epochs: int) -> None:
    samples, age, patient = films()
    people = np.unique(patient)
    fold = dict(zip(people, np.random.default_rng(1).permutation(len(people)) % FOLDS, strict=True))
    of = np.array([fold[one] for one in patient])
    found = {way: np.empty(len(age)) for way in ("mean", "PCA + ridge", "chest-ca")}
    for k in range(FOLDS):
        inside, outside = of != k, of == k
        options = {"image_size": 64, "width": 8, "centre_years": float(age[inside].mean()), "scale_years": 15.0}
        made = make("chest-ca", options)
        training = Training(
            rounds=1, local_epochs=epochs, batch_size=32, optimiser="adamw", learning_rate=1e-3, weight_decay=0.05
        )
        update = train_locally(
            made,
            network(made).start({}, seed=k),
            samples[inside],
            age[inside],
            training=training,
            round_number=1,
            rng_seed=k,
            threads=1,
            device="cpu",
        )
        found["mean"][outside] = age[inside].mean()
        found["PCA + ridge"][outside] = pca_ridge(samples[inside], age[inside], samples[outside])
        found["chest-ca"][outside] = predict_years(made, update.weights, samples[outside])
        so_far = {way: float(np.abs(values - age)[of <= k].mean()) for way, values in found.items()}
        print(f"after fold {k + 1}: {so_far}", flush=True)
    for way, values in found.items():
        r = np.corrcoef(values, age)[0, 1]
        print(f"{way:12} MAE {np.abs(values - age).mean():.2f}  r {r:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
