"""Made-up runs whose every figure is set by the test."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedage.server.record.results import Results

THRESHOLDS = [float(t) for t in range(21)]


def metrics(mae: float, *, n: int = 60) -> dict[str, Any]:
    return {"n": n, "mae_years": mae, "cs_5": 0.7, "pearson_r": 0.9, "mae_of_mean_years": 9.0}


def curve(scale: float, *, width: float = 0.0) -> dict[str, Any]:
    cs = [min(1.0, t / scale) for t in THRESHOLDS]
    low = [max(0.0, value - width) if 0 < value < 1 else value for value in cs]
    return {"n": 120, "thresholds_years": THRESHOLDS, "cs": cs, "cs_low": low, "cs_high": cs, "largest_width": width}


def cox(model: str, gap: str, ratio: float, *, by_site: bool = True) -> dict[str, Any]:
    covariates = [
        {"name": name, "coef": 0.1, "se": 0.02, "hazard_ratio": value, "ci95": [value - 0.05, value + 0.05]}
        for name, value in ((gap, ratio), ("age_years", 1.03))
    ]
    return {"model": model, "stratified_by_site": by_site, "events": 130, "covariates": covariates}


def campaign_text(*, seed: int = 1, strategy: str = "fedavg", extra: str = "") -> str:
    return (
        f'[campaign]\nname = "c"\npurpose = "a purpose for a test"\nseed = {seed}\n[estimator]\nname = "chest-ca"\n'
        f'[training]\nstrategy = "{strategy}"\nrounds = 3\n{extra}'
    )


def record(
    *, sites: Mapping[str, float], text: str, seed: int, rounds: int = 3, phantoms: bool = False, **changes: Any
) -> dict[str, Any]:
    overall = sum(sites.values()) / len(sites)
    evaluated = {"overall": metrics(overall, n=60 * len(sites)), "by_site": {s: metrics(m) for s, m in sites.items()}}
    return {
        "fedage_version": "0.1.0",
        "flwr_version": "1.41.0",
        "campaign": {
            "name": "c",
            "purpose": "a purpose for a test",
            "digest": hashlib.sha256(text.encode()).hexdigest(),
            "seed": seed,
            "estimator": "chest-ca",
            "minimum_count": 10,
        },
        "run": {
            "id": "run",
            "started_utc": "2026-01-01T00:00:00+00:00",
            "status": "finished",
            "environment": "simulation",
            "guard": True,
        },
        "phantoms": phantoms,
        "rounds": [{"number": k, "validation_mae_years": overall + 3 / k} for k in range(1, rounds + 1)],
        "evaluation": {"test": {"raw": evaluated, "corrected": evaluated}},
        "figures": {"error_curve_raw": curve(12, width=0.05), "error_curve_corrected": curve(8)},
        "survival": {
            "cox": [
                cox("pooled", "gap_years", 1.09, by_site=False),
                cox("gap", "gap_years", 1.11),
                cox("cole", "cole_gap_years", 1.07),
            ]
        },
        **changes,
    }


def write_version_1(path: Path, values: Mapping[str, Any]) -> None:
    """A record in the parts of version 1, which every reader of records takes."""
    Results.model_validate(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**values, "schema_version": 1}), encoding="utf-8")


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run's folder: `make_run("a", mae=4.0, seed=2, strategy="fedprox", phantoms=True, …)`."""

    def make(
        name: str,
        *,
        mae: float = 4.0,
        sites: Mapping[str, float] | None = None,
        seed: int = 1,
        strategy: str = "fedavg",
        extra: str = "",
        with_file: bool = True,
        **changes: Any,
    ) -> Path:
        text = campaign_text(seed=seed, strategy=strategy, extra=extra)
        values = record(sites=sites or {"north": mae - 0.5, "south": mae + 0.5}, text=text, seed=seed, **changes)
        folder = tmp_path / name
        write_version_1(folder / "results.json", values)
        if with_file:
            (folder / "campaign.toml").write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def edit() -> Callable[..., None]:
    """Change a run's record in place: `edit(folder, run={"guard": False})` updates that part."""

    def change(folder: Path, **parts: Any) -> None:
        path = folder / "results.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        for part, value in parts.items():
            merged = isinstance(value, dict) and isinstance(values.get(part), dict)
            values[part] = {**values[part], **value} if merged else value
        write_version_1(path, values)

    return change
