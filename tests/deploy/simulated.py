"""Simulations by the command, as tests start them."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedage.client.cohort.selection.fold_assignment import round_robin_folds
from fedage.client.cohort.table.sites import read_site_tables
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import configured
from fedage.deploy.machine.simulation import VARIABLE
from fedage.server.record.results import Results
from tests.deploy.simulating import as_csv

ABIDE = Path(__file__).parents[3] / "shared/data/abide1/abide1-freesurfer.csv"


PENALTY, FOLDS = 50.0, 3


RIDGE = f"""
[campaign]
name = "ridge"
purpose = "Hold the federated ridge regression against a pooled one"
seed = 5

[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
penalty = {PENALTY}

[table]
id = "who"
age = "age"
sex = "sex"

[validation]
folds = {FOLDS}

[privacy]
minimum_count = 1

[simulation]
guard = false
"""


def table(*, patients: int = 120, features: int = 8, sites: int = 2, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(patients, features))
    age = np.exp(3.5 + 0.2 * x[:, 0] - 0.1 * x[:, 1] + 0.05 * rng.normal(size=patients))
    frame = pd.DataFrame(x * 10.0 ** rng.integers(-2, 4, features), columns=[f"x{k}" for k in range(features)])
    site = [f"site {k % sites}" for k in range(patients)]
    return frame.assign(who=[f"p{k}" for k in range(patients)], site=site, age=age, sex=np.arange(patients) % 2)


def pooled(x: np.ndarray, age: np.ndarray, fold: np.ndarray, *, train: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Ridge on standardised columns and log age, written out: slopes on raw columns, and the intercept."""
    rows = train & (fold != k)
    mean, sd, t = x[rows].mean(axis=0), x[rows].std(axis=0), np.log(age[rows])
    z = (x[rows] - mean) / sd
    slopes = np.linalg.solve(z.T @ z + PENALTY * np.eye(x.shape[1]), z.T @ (t - t.mean())) / sd
    return slopes, float(t.mean() - slopes @ mean)


def hold_against_pooled(folder: Path, results: Results, text: str, data: Path, *, site_column: str) -> None:
    """Every fold's model and the overall error are those of one table."""
    campaign = parse_campaign(text)
    read = read_site_tables(data, campaign, site_column=site_column)
    estimator = configured(campaign, next(iter(read.sites.values())).features)
    assert estimator is not None
    names = [column.removeprefix("feature:") for column in estimator.row_columns]
    x = np.concatenate([np.column_stack([s.columns[f"feature:{n}"] for n in names]) for s in read.sites.values()])
    age = np.concatenate([site.columns["age_years"] for site in read.sites.values()])
    health = [
        site.columns.get("DX_GROUP", np.full(site.split_uniform.size, -1.0)) == -1 for site in read.sites.values()
    ]
    pairs = zip(read.sites.values(), health, strict=True)
    fold = np.concatenate(
        [round_robin_folds(site.split_uniform, healthy.astype(float), FOLDS) for site, healthy in pairs]
    )
    train = np.ones(age.size, dtype=bool)
    if "DX_GROUP" in text:
        train = np.concatenate([site.columns["DX_GROUP"] == -1 for site in read.sites.values()])
    predicted = np.full(age.size, np.nan)
    for k in range(FOLDS):
        slopes, intercept = pooled(x, age, fold, train=train, k=k)
        model = load_file(folder / f"model-fold-{k + 1}.safetensors")
        np.testing.assert_allclose(model["coefficients"] / model["sds"], slopes, rtol=1e-8, atol=1e-12)
        predicted[fold == k] = np.exp(x[fold == k] @ slopes + intercept)
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.n == int(train.sum())
    assert overall.mae_years == pytest.approx(np.abs(predicted - age)[train].mean(), abs=1e-8)


def command(folder: Path, text: str, frame: pd.DataFrame) -> list[str]:
    file = folder / "ridge.toml"
    file.write_text(text, encoding="utf-8")
    data = as_csv(frame, folder / "table.csv")
    given = ["--data", str(data), "--site-column", "site", "--out", str(folder / "out")]
    return [sys.executable, "-m", "fedage.deploy", "simulate", str(file), *given]


def still_there(folder: Path) -> list[str]:
    """Processes of a simulation into this folder."""
    wanted, found = f"{VARIABLE}={folder / 'out' / 'work' / 'job.json'}".encode(), []
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def nothing_left(folder: Path) -> bool:
    """Ray's daemons have been told to end when the command does; on a busy machine the last takes a moment to."""
    deadline = time.monotonic() + 10
    while still_there(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return still_there(folder) == []


def below(parent: int) -> list[int]:
    """Processes that this one has started, and those started by them."""
    children = list[int]()
    for file in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, file.read_text().split())
    return [pid for child in children for pid in (child, *below(child))]


LONG = (
    RIDGE.replace("table-ridge", "table-mlp")
    .replace(f"penalty = {PENALTY}\n", "")
    .replace(f"[validation]\nfolds = {FOLDS}\n", "")
    + "\n[training]\nrounds = 10000\n"
)
