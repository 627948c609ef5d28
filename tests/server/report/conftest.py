"""A full record of a made-up run: three sites, phantoms, survival, one site that dropped out."""

from typing import Any

import numpy as np
import pytest

from fedage.server.record.results import Results

SITES = {"north": (45.0, 80.0), "south": (40.0, 70.0), "west": (55.0, 85.0)}
EDGES = tuple(float(edge) for edge in range(40, 90, 5))


def _metrics(age: Any, predicted: Any, mean: float) -> dict[str, Any]:
    error = predicted - age
    return {
        "n": age.size,
        "left_out": 0,
        "mae_years": np.abs(error).mean(),
        "mean_error_years": error.mean(),
        "rmse_years": np.sqrt((error**2).mean()),
        "cs_5": (np.abs(error) <= 5).mean(),
        "pearson_r": np.corrcoef(age, predicted)[0, 1],
        "mae_of_mean_years": np.abs(age - mean).mean(),
    }


def _evaluated(ages: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    everyone = np.concatenate(list(ages.values()))
    mean = everyone.mean()
    return {
        "overall": _metrics(everyone, np.concatenate(list(predicted.values())), mean),
        "by_site": {site: _metrics(ages[site], predicted[site], mean) for site in ages},
    }


def _gap_by_age(age: Any, gap: Any) -> dict[str, Any]:
    where = np.digitize(age, EDGES) - 1
    bins = [gap[where == k] for k in range(len(EDGES) - 1)]
    return {
        "n": age.size,
        "edges_years": EDGES,
        "counts": [len(b) if len(b) >= 5 else 0 for b in bins],
        "mean_years": [b.mean() if len(b) >= 5 else None for b in bins],
        "sd_years": [b.std(ddof=1) if len(b) >= 5 else None for b in bins],
        "withheld": sum(len(b) for b in bins if len(b) < 5),
    }


def _coefficient(name: str, coef: float, se: float, sd: float) -> dict[str, Any]:
    z = coef / se
    return {
        "name": name,
        "coef": coef,
        "se": se,
        "z": z,
        "p": float(2 * (1 - 0.5 * (1 + np.tanh(0.7978845608 * (abs(z) + 0.044715 * abs(z) ** 3))))),
        "hazard_ratio": np.exp(coef),
        "ci95": [np.exp(coef - 1.96 * se), np.exp(coef + 1.96 * se)],
        "sd": sd,
        "hazard_ratio_per_sd": np.exp(coef * sd),
    }


def _cox(name: str, gap: str, coef: float, se: float, *, by_site: bool = True) -> dict[str, Any]:
    return {
        "model": name,
        "stratified_by_site": by_site,
        "n": 204,
        "events": 131,
        "sites": list(SITES),
        "log_likelihood": -512.345,
        "null_log_likelihood": -530.123,
        "covariates": [_coefficient(gap, coef, se, 4.8), _coefficient("age_years", 0.031, 0.009, 10.2)],
    }


def _difference(difference: float, se: float, df: int, sd: float) -> dict[str, Any]:
    return {
        "difference_years": difference,
        "se_years": se,
        "ci95_low": difference - 1.97 * se,
        "ci95_high": difference + 1.97 * se,
        "t": difference / se,
        "df": df,
        "p": 0.0004 if abs(difference / se) > 3 else 0.21,
        "cohens_d": difference / sd,
        "residual_sd_years": sd,
    }


def _compared(gap: str, shift: float) -> dict[str, Any]:
    rates = np.linspace(0, 1, 17)
    return {
        "gap": gap,
        "n_group": 80,
        "n_reference": 124,
        "left_out": 3,
        "one_group_only": 21,
        "adjusted": _difference(1.9 + shift, 0.5, 199, 3.4),
        "unadjusted": _difference(1.7 + shift, 0.55, 200, 3.6),
        "auc": 0.641 + shift / 50,
        "auc_low": 0.61,
        "auc_high": 0.68,
        "auc_ci95_low": 0.575,
        "auc_ci95_high": 0.702,
        "auc_within_sites": 0.655,
        "auc_within_sites_ci95_low": 0.581,
        "auc_within_sites_ci95_high": 0.722,
        "roc": {"false_positive": rates, "true_positive": rates**0.6},
        "by_site": {
            "north": {"n_group": 40, "n_reference": 60, "unadjusted": _difference(2.1, 0.7, 98, 3.5), "auc": 0.66},
            "south": {"n_group": 40, "n_reference": 64, "unadjusted": _difference(0.4, 0.8, 102, 3.7), "auc": 0.53},
            "west": {"not_computed": "it has patients of one group only"},
        },
    }


def example_values() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    age = {site: rng.uniform(low, high, 68) for site, (low, high) in SITES.items()}
    gap = {site: rng.normal(0, 3.5, 68) for site in SITES}
    predicted = {s: 62 + 0.75 * (age[s] + gap[s] - 62) + rng.normal(0, 2.2, 68) for s in SITES}
    corrected = {s: predicted[s] + age[s] - (62 + 0.75 * (age[s] - 62)) for s in SITES}
    everyone, raw = np.concatenate(list(age.values())), np.concatenate(list(predicted.values()))
    counts = np.histogram2d(everyone, raw, bins=[EDGES, EDGES])[0].astype(int)
    small = (counts > 0) & (counts < 3)
    irreducible = {"north": 2.61, "south": 2.57, "west": 2.55}
    curve = {site: 12.0 - 1.3 * k for k, site in enumerate(SITES)}
    return {
        "fedage_version": "0.1.0",
        "flwr_version": "1.41.0",
        "campaign": {
            "name": "demo",
            "purpose": "Show on rendered phantoms that age can be learnt together and that the gap predicts events",
            "digest": "9f" * 32,
            "seed": 7,
            "estimator": "chest-ca",
            "minimum_count": 5,
        },
        "run": {
            "id": "demo",
            "started_utc": "2026-03-02T09:00:00+00:00",
            "finished_utc": "2026-03-02T09:04:10+00:00",
            "status": "finished",
            "environment": "deployment",
            "guard": True,
        },
        "phantoms": True,
        "sites": [
            {
                "name": site,
                "status": "took part" if site != "west" else "dropped out",
                "dropped_out_in_round": None if site != "west" else 9,
                "reason": "" if site != "west" else "no answer before the deadline",
                "patients": 150,
                "patients_by_part": {"train": 60, "validation": 22, "test": 68},
                "excluded": {"age-out-of-range": 7, "no-age": None if site == "south" else 0},
                "rejected_files": {"not-dicom": 1, "truncated": 2} if site == "north" else {},
                "rejected_samples": {"no-pixels": 1} if site == "south" else {},
                "device": "cpu",
                "withheld": [{"step": "cox:gap-unstratified", "reason": "minimum-count: fewer than 5 patients"}]
                if site == "west"
                else [],
                "troubles": ["train (round 9): no answer before the deadline"] if site == "west" else [],
            }
            for site in SITES
        ],
        "rounds": [
            {
                "number": k,
                "seconds": 11.5 + 0.1 * k,
                "train_loss": 5.0 * np.exp(-k / 4) + 0.8,
                "validation_mae_years": 9.0 * np.exp(-k / 3) + 4.0 + 0.3 * np.sin(2 * k),
                "validation_mae_years_by_site": {
                    site: start * np.exp(-k / 3) + 3.9 + 0.6 * np.sin(3 * k + start)
                    for site, start in curve.items()
                    if site != "west" or k < 9
                },
                "sites": [site for site in SITES if site != "west" or k < 9],
                "update_norm": 3.0 / k,
            }
            for k in range(1, 13)
        ],
        "evaluation": {
            "test": {"raw": _evaluated(age, predicted), "corrected": _evaluated(age, corrected)},
            "validation": {"raw": _evaluated(age, predicted)},
        },
        "bias": {
            "lines": {
                site: {"slope": 0.75 + 0.02 * k, "intercept_years": 15.5 - k, "n": 22, "residual_sd_years": 3.4}
                for k, site in enumerate(SITES)
            },
        },
        "figures": {
            "predicted_by_age": {
                "n": everyone.size,
                "edges_years": EDGES,
                "counts": np.where(small, 0, counts),
                "withheld": int(counts[small].sum()),
            },
            "gap_by_age_raw": _gap_by_age(everyone, raw - everyone),
            "gap_by_age_corrected": _gap_by_age(everyone, np.concatenate(list(corrected.values())) - everyone),
        },
        "survival": {
            "cox": [
                _cox("gap", "gap_years", 0.105, 0.024),
                _cox("gap-unstratified", "gap_years", 0.098, 0.023, by_site=False),
                _cox("cole-gap", "cole_gap_years", 0.079, 0.018),
                _cox("true-gap", "true_gap_years", 0.176, 0.027),
                {"model": "with-sex", "not_computed": "every site withheld its contribution"},
            ],
            "kaplan_meier": {
                "table_times": [2, 4, 6, 8, 10],
                "split_years": 0.12,
                "groups": [
                    {
                        "name": "low gap",
                        "n": 102,
                        "events": 52,
                        "survival": [0.90, 0.78, 0.67, 0.57, 0.49],
                        "ci95_low": [0.83, 0.69, 0.57, 0.46, 0.38],
                        "ci95_high": [0.95, 0.85, 0.76, 0.66, 0.59],
                        "at_risk": [102, 88, 74, 61, 49],
                        "events_at": [10, 12, 11, 10, 9],
                        "median_survival": 10.0,
                    },
                    {
                        "name": "high gap",
                        "n": 102,
                        "events": 79,
                        "survival": [0.80, 0.61, 0.45, 0.33, 0.22],
                        "ci95_low": [0.71, 0.51, 0.35, 0.24, 0.14],
                        "ci95_high": [0.87, 0.70, 0.54, 0.43, 0.31],
                        "at_risk": [102, 78, 57, 41, 28],
                        "events_at": [20, 20, 16, 13, 10],
                        "median_survival": 6.0,
                    },
                ],
                "log_rank": {"chi2": 14.2, "p": 0.000164},
            },
        },
        "groups": {
            "column": "diagnosis",
            "equals": 1.0,
            "reference": -1.0,
            "covariates": ["age_years"],
            "corrected": _compared("gap_years", 0.0),
            "raw": _compared("raw_gap_years", -0.3),
        },
        "planted": {
            "hazard_ratio_per_year": 1.2,
            "gap_sd_years": 3.5,
            "irreducible_mae_years": 2.58,
            "irreducible_mae_years_by_site": irreducible,
            "attenuation": {"gap_years": 0.71, "cole_gap_years": 0.53},
            "expected_hazard_ratio": {"gap_years": 1.138, "cole_gap_years": 1.101, "true_gap_years": 1.2},
            "checks": [
                {
                    "what": "MAE of the model, raw, against the irreducible one",
                    "found": 3.31,
                    "against": 2.58,
                    "ratio": 1.28,
                    "wanted": "at most 1.6",
                    "holds": True,
                },
                {
                    "what": "MAE of predicting the mean against the irreducible one",
                    "found": 9.4,
                    "against": 2.58,
                    "ratio": 3.64,
                    "wanted": "at least 3",
                    "holds": True,
                },
                {
                    "what": "hazard ratio of the true gap",
                    "found": 1.192,
                    "against": 1.2,
                    "wanted": "interval covers it",
                    "holds": True,
                },
                {
                    "what": "hazard ratio of the estimated gap",
                    "found": 1.11,
                    "against": 1.138,
                    "wanted": "interval covers it and excludes 1, at least 100 events",
                    "holds": True,
                },
            ],
        },
        "notes": ["Federated averaging with local epochs is not pooled training."],
    }


def example_events() -> list[dict[str, Any]]:
    return [
        {"time": "2026-03-02T09:00:00.100+00:00", "event": "started", "campaign": "demo", "run": "demo"},
        {"time": "2026-03-02T09:00:04.000+00:00", "event": "site", "site": "north", "patients": 150, "device": "cpu"},
        {"time": "2026-03-02T09:00:16.000+00:00", "event": "answer", "site": "north", "step": "train", "round": 1},
        {"time": "2026-03-02T09:00:17.000+00:00", "event": "round", "number": 1, "of": 12, "train_loss": 4.69421},
    ]


@pytest.fixture
def values() -> dict[str, Any]:
    return example_values()


@pytest.fixture
def results() -> Results:
    return Results.model_validate(example_values())


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return example_events()


@pytest.fixture(scope="session")
def full_record() -> Results:
    return Results.model_validate(example_values())


@pytest.fixture(scope="session")
def full_events() -> list[dict[str, Any]]:
    return example_events()
