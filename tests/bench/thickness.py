"""Phantom tables of cortical thickness: what the coVariance network is shown on, with planted truth.

Not patients: numbers drawn from a biological age b = Ω + gap, gap ~ N(0, σ²). Each region thins at a rate of its own
with g(b) = (b − 60) + (b − 60)² / 80, faster and faster, shares factors with others, so that regions are correlated,
and is measured with noise; each site has a scanner of its own, with a gain and an offset a region. Two diagnoses have a
pattern each: some regions look older by years than the patient's biological age has them. All randomness comes from the
seed and the site's name.

Notation: n patients, p regions, x thickness in mm, s slope (p,) in mm per year at 60, Σ covariance (p, p) given b.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedage.common.statistics.statistic import FloatArray

GAP_SD_YEARS = 5.0
REGIONS = 68
_FACTORS = 4
_PATTERN_YEARS = 12.0
"""By how much the regions of a diagnosis look older."""
_PATTERN_REGIONS = 8
CONTROL, FIRST, SECOND = 0, 1, 2


@dataclass(frozen=True)
class ThicknessSite:
    """A site: its ages, uniform, how many patients, and the size of its scanner's offsets (mm) and gain."""

    name: str
    age_min_years: float
    age_max_years: float
    offset_sd_mm: float = 0.03
    gain_sd: float = 0.01


SITES = (
    ThicknessSite("north", 40.0, 80.0),
    ThicknessSite("south", 50.0, 85.0),
    ThicknessSite("west", 45.0, 75.0),
)


@dataclass(frozen=True)
class Anatomy:
    """What all phantoms share: base (p,) mm, slope (p,) mm per year at 60, loadings (p, f) mm, the noise's SD, and
    which regions (2, k) look older in the first and the second diagnosis.
    """

    base_mm: FloatArray
    slope_mm_per_year: FloatArray
    loadings_mm: FloatArray
    noise_sd_mm: float
    patterns: FloatArray

    @property
    def names(self) -> tuple[str, ...]:
        """Regions, left hemisphere first."""
        half = len(self.base_mm) // 2
        return tuple(f"{side}_region{k + 1:02}_thickness" for side in ("lh", "rh") for k in range(half))

    @property
    def reading_sd_years(self) -> float:
        """SD of the best reading of g(b), all that the regions tell of b: 1 / √(sᵀ Σ⁻¹ s)."""
        p, s = len(self.base_mm), self.slope_mm_per_year
        sigma = self.loadings_mm @ self.loadings_mm.T + self.noise_sd_mm**2 * np.eye(p)
        return float(1 / np.sqrt(s @ np.linalg.solve(sigma, s)))


@dataclass(frozen=True)
class ThicknessTable:
    """One site's phantoms: x (n, p) mm, age and true gap (n,) in years, diagnosis (n,), is_male (n,)."""

    x_mm: FloatArray
    age_years: FloatArray
    true_gap_years: FloatArray
    diagnosis: FloatArray
    is_male: FloatArray


def anatomy(seed: int = 0, *, regions: int = REGIONS) -> Anatomy:
    """The cortex that every phantom of a seed has.

    Raises
    ------
    ValueError
        For an odd number of regions, or fewer than two patterns need.
    """
    if regions % 2 or regions < 2 * _PATTERN_REGIONS:
        raise ValueError(f"regions={regions} must be even and at least {2 * _PATTERN_REGIONS}")
    rng = np.random.default_rng([seed, 1])
    shuffled = rng.permutation(regions)
    return Anatomy(
        base_mm=rng.uniform(2.0, 3.2, regions),
        slope_mm_per_year=-rng.gamma(2.0, 0.0025, regions),
        loadings_mm=0.06 * rng.normal(size=(regions, _FACTORS)) + np.array([0.08, 0.0, 0.0, 0.0]),
        noise_sd_mm=0.08,
        patterns=np.stack([shuffled[:_PATTERN_REGIONS], shuffled[_PATTERN_REGIONS : 2 * _PATTERN_REGIONS]]),
    )


def draw_site(
    cortex: Anatomy,
    site: ThicknessSite,
    *,
    seed: int,
    patients: int,
    ill_fraction: float = 0.0,
    part: str = "",
) -> ThicknessTable:
    """Phantoms of one site; `part` names another draw of patients at the same scanner."""
    scanner, rng = (_generator(f"{seed}:{site.name}:{what}") for what in ("scanner", f"patients:{part}"))
    p = len(cortex.base_mm)
    age = rng.uniform(site.age_min_years, site.age_max_years, patients)
    gap = GAP_SD_YEARS * rng.standard_normal(patients)
    diagnosis = np.where(rng.random(patients) < ill_fraction, rng.integers(1, 3, patients), CONTROL)
    looks = np.repeat((age + gap)[:, None], p, axis=1)
    for which, regions in zip((FIRST, SECOND), cortex.patterns, strict=True):
        looks[np.ix_(diagnosis == which, regions.astype(np.intp))] += _PATTERN_YEARS
    x = cortex.base_mm + cortex.slope_mm_per_year * course(looks)
    x += rng.normal(size=(patients, cortex.loadings_mm.shape[1])) @ cortex.loadings_mm.T
    x += cortex.noise_sd_mm * rng.normal(size=(patients, p))
    x *= 1 + site.gain_sd * scanner.standard_normal()
    x += site.offset_sd_mm * scanner.standard_normal(p)
    return ThicknessTable(x, age, gap, diagnosis.astype(np.float64), (rng.random(patients) < 0.5).astype(np.float64))


def course(age_years: FloatArray) -> FloatArray:
    """g: how far the thinning has come at a biological age, in years of the rate at 60."""
    from_60 = age_years - 60.0
    return from_60 + from_60**2 / 80


def irreducible(cortex: Anatomy, sites: Sequence[ThicknessSite], *, steps: int = 400) -> dict[str, float]:
    """By site, the MAE in years of the best reader of its regions who knows its scanner and its ages.

    The regions tell y = g(b) + reading error and nothing else of Ω. Mean |Ω − posterior median(Ω | y)| on a grid.
    """
    tau = cortex.reading_sd_years
    z = np.linspace(-5, 5, 201)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    found = {}
    for site in sites:
        width = (site.age_max_years - site.age_min_years) / steps
        ages = site.age_min_years + width * (np.arange(steps) + 0.5)
        read = course(ages[:, None] + GAP_SD_YEARS * z)  # (a, z)
        y = np.linspace(read.min() - 4 * tau, read.max() + 4 * tau, steps)
        density = np.stack([np.exp(-((y[:, None] - each) ** 2) / (2 * tau**2)) @ weight for each in read])  # (a, y)
        cumulative = np.cumsum(density, axis=0)
        median = ages[np.argmax(cumulative >= cumulative[-1] / 2, axis=0)]
        error = np.abs(ages[:, None] - median)
        found[site.name] = float((error * density).sum() / density.sum())
    return found


def write_table(path: Path, cortex: Anatomy, table: ThicknessTable, *, site: str) -> None:
    """A site's table as CSV: id, age, sex, diagnosis and the regions."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("subject", "site", "age", "sex", "diagnosis", *cortex.names))
        for row in range(len(table.age_years)):
            writer.writerow(
                (
                    f"{site}-{row:04}",
                    site,
                    f"{table.age_years[row]:.2f}",
                    "M" if table.is_male[row] else "F",
                    f"{table.diagnosis[row]:.0f}",
                    *(f"{value:.4f}" for value in table.x_mm[row]),
                )
            )


def _generator(words: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big"))
