"""Sites in memory whose small pictures show age and, apart from it, what an outcome depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.estimators.base import Samples
from fedage.common.estimators.breast_4view import VIEWS
from fedage.common.statistics.cohort import Cohort
from tests.machinery import MemorySite

TINY: dict[str, Any] = {
    "image_height": 64,
    "image_width": 32,
    "width": 8,
    "norm": "batch",
    "local_path": False,
    "draws": 0,
    "dropout": 0.0,
    "density": 0.0,
    "age_min_years": 35,
    "age_max_years": 85,
    "augment": False,
}
HEAD = """
[campaign]
name = "outcome"
purpose = "Try fine-tuning a model of age for an outcome"
seed = 3
sites = ["a", "b", "c"]
wait_s = 1
approval_wait_s = 1
[privacy]
minimum_count = 5
[estimator]
name = "{name}"
[training]
quorum = 2
round_deadline_s = 60
rounds = {rounds}
local_epochs = 2
batch_size = 16
learning_rate = 0.003
{training}
[validation.fractions]
train = 0.6
validation = 0.15
test = 0.25
[estimator.options]
"""


def options_text(options: dict[str, Any]) -> str:
    written = {True: "true", False: "false"}
    return "".join(
        f"{name} = {written[v] if isinstance(v, bool) else repr(v).replace(chr(39), chr(34))}\n"
        for name, v in options.items()
    )


def text(name: str, options: dict[str, Any], *, rounds: int = 3, training: str = "", more: str = "") -> str:
    return HEAD.format(name=name, rounds=rounds, training=training) + options_text(options) + more


def columns_of(count: int, seed: int, *, per_unit: float = 2.0) -> dict[str, np.ndarray]:
    """Ages, a sign z in the picture that raises the risk, and outcomes that depend on it and on chance alone."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, count)
    time = rng.exponential(6 / np.exp(per_unit * z))
    censored = rng.uniform(2, 12, count)
    chance = 1 / (1 + np.exp(-2 * per_unit * z))
    return {
        "age_years": rng.uniform(40, 80, count),
        "is_male": np.zeros(count),
        "sign": z,
        "chance": chance,
        "cancer": (rng.random(count) < chance).astype(float),
        "score": np.clip(15 + 10 * z + rng.normal(0, 1, count), 0, 30),
        "time_years": np.minimum(time, censored),
        "event": (time <= censored).astype(float),
    }


def views_of(columns: dict[str, np.ndarray], seed: int) -> Samples:
    """Four views (n, 1, 64, 32): brighter with age, stripes stronger with the sign."""
    rng = np.random.default_rng(seed)
    age, z = (columns["age_years"] - 60) / 20, columns["sign"]
    stripes = np.where(np.arange(64) // 4 % 2, 1.0, -1.0)[None, :, None]
    arrays = {}
    for name in VIEWS:
        picture = 0.1 * rng.normal(size=(age.size, 64, 32))
        picture += age[:, None, None] + (1 + z)[:, None, None] * stripes
        arrays[name] = picture[:, None].astype(np.float32)
    return Samples(arrays)


def sites(folder: Path, *, count: int = 80) -> list[MemorySite]:
    made = []
    for seed, name in enumerate("abc"):
        columns = columns_of(count, seed)
        unit = np.random.default_rng(1000 + seed).random(count)
        hidden = {"sign", "chance"}
        shown = {key: value for key, value in columns.items() if key not in hidden}
        found = SiteCohort(cohort=Cohort(shown), samples=views_of(columns, 50 + seed))
        made.append(MemorySite(name, found, folder / "sites", unit=unit))
    return made


def auc(values: np.ndarray, cases: np.ndarray) -> float:
    """Pairs, one by one."""
    wins = [float(x > y) + 0.5 * float(x == y) for x in values[cases] for y in values[~cases]]
    return sum(wins) / len(wins)
