"""Chest films of children of nobody at three hospitals: DICOM files and outcome tables, from one seed.

As `phantoms` has them for adults, with ages to the day, from half a year to 16 years: what changes is quick in infants
and slow in schoolchildren, so errors are told in months. A film is collimated to the child, so that the size of the
child is not to be seen; girls' bones are ahead of boys' of the same age. All of it is our own choice.

Notation: image (H, W); u from the midline to the right of the picture and v downwards, in half widths of the chest. A
sign's strength is a number a = 0 at birth and 1 at 16 years, on a logarithmic scale of age.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from fedage.deploy.demo.anatomy import FloatImage
from fedage.deploy.demo.dicom import write_dicom
from fedage.deploy.demo.follow_up import simulate_follow_up
from fedage.deploy.demo.hospitals import HOSPITALS, Hospital
from fedage.deploy.demo.phantoms import (
    DAYS_PER_YEAR,
    HEALTHY_FRACTION,
    IMAGES_FOLDER,
    OUTCOMES_FILE,
    Truth,
    drawn_exams,
    expose,
    generator_of,
    write_outcomes,
)

GAP_SD_YEARS = 8 / 12
GIRLS_AHEAD_YEARS = 1.0
"""By how much the bones of girls look older than those of boys."""
_FINE_SCATTER_YEARS, _COARSE_SCATTER_YEARS = 0.3, 3.0
"""SD of a sign about its course: of bones, ribs and markings; of the heart and the thymus, as wide as real ones."""
_RIBS = 9
_ROWS = 96
_PLACES = (("harbour", 0.5, 16.0), ("north", 0.5, 14.0), ("valley", 1.0, 16.0))

CHILDREN_HOSPITALS: tuple[Hospital, ...] = tuple(
    replace(
        hospital,
        age_min_years=low,
        age_max_years=high,
        patient_prefix=f"{hospital.patient_prefix}C",
        # Whole years of age would set every child aside; the dates of birth tell the day.
        scanner=replace(hospital.scanner, rows=_ROWS, columns=_ROWS, writes_patient_age=False),
    )
    for hospital, (name, low, high) in zip(HOSPITALS, _PLACES, strict=True)
    if hospital.name == name
)
"""In the order of their names, which is the order in which everything is summed."""


@dataclass(frozen=True)
class ChildSigns:
    """How old each sign of age looks, in years."""

    heart: float
    thymus: float
    bone: float
    ribs: float
    markings: float

    @classmethod
    def of(cls, biological_age_years: float, *, is_male: bool, rng: np.random.Generator) -> ChildSigns:
        """Draw the signs of one child."""
        coarse, fine = _COARSE_SCATTER_YEARS, _FINE_SCATTER_YEARS
        drawn = biological_age_years + np.array([coarse, coarse, fine, fine, fine]) * rng.standard_normal(5)
        drawn[2] += 0.0 if is_male else GIRLS_AHEAD_YEARS
        return cls(*drawn.tolist())


def _strength(age_years: float) -> float:
    return float(np.log2(1 + np.clip(age_years, 0, 20)) / np.log2(17))


def render_child(signs: ChildSigns, *, shape: tuple[int, int], rng: np.random.Generator) -> FloatImage:
    """Density of the projected chest, (H, W) float32 from 0 (air outside) to below 1, brighter is denser."""
    rows, columns = shape
    zoom, tall = rng.uniform(1.15, 1.35), rng.uniform(0.95, 1.15)
    v = (np.linspace(-1, 1, rows) * zoom + 0.05 * rng.standard_normal())[:, None]
    u = (np.linspace(-1, 1, columns) * zoom * columns / rows + 0.05 * rng.standard_normal())[None]
    v, u = v + 0.06 * rng.standard_normal() * u, u - 0.06 * rng.standard_normal() * v
    trunk = _edge(1.02 - np.abs(u), 0.04) * _edge(1.25 - np.abs(v), 0.04)
    side = np.abs(u) - 0.52
    lungs = _edge(1 - (side / 0.40) ** 2 - (v / (0.85 * tall)) ** 4, 0.12)
    heart_width = 0.52 - 0.16 * _strength(signs.heart)
    heart = _edge(1 - ((u - 0.10) / heart_width) ** 2 - ((v - 0.35) / 0.42) ** 2, 0.15)
    thymus_width = 0.16 + 0.24 * (1 - _strength(signs.thymus))
    thymus = _edge(1 - (u / thymus_width) ** 2 - ((v + 0.35) / 0.35) ** 2, 0.15)
    lit = 1 - 0.75 * lungs * (1 - np.maximum(heart, thymus))
    thickness = trunk * rng.uniform(0.75, 1.0) * lit + 0.35 * np.exp(-((u / 0.10) ** 2))
    thickness = thickness + trunk * (_ribs(signs, u, v, tall, rng) + _shoulders(signs, u, v, rng))
    # Vessels in the lung: coarser with age, of a strength that is not.
    scale = 0.8 + 2.6 * _strength(signs.markings)
    noise = rng.standard_normal(shape)
    band = gaussian_filter(noise, scale) - gaussian_filter(noise, 2 * scale)
    thickness = thickness + 0.05 * lungs * band / band.std()
    return np.asarray(1 - np.exp(-1.15 * np.maximum(thickness, 0)), dtype=np.float32)


def _edge(inside: np.ndarray, softness: float) -> np.ndarray:
    """1 well inside (positive), 0 outside, a logistic edge between."""
    made: np.ndarray = 0.5 + 0.5 * np.tanh(inside / (2 * softness))
    return made


def _ribs(signs: ChildSigns, u: np.ndarray, v: np.ndarray, tall: float, rng: np.random.Generator) -> np.ndarray:
    """Ribs from the spine outwards: level in infants, falling and thinner later."""
    a = _strength(signs.ribs)
    slope, pitch = 0.10 + 0.70 * a, 1.7 * tall / _RIBS
    start = -0.85 * tall + 0.5 * pitch * rng.standard_normal()
    phase = (v - start - slope * np.abs(u) ** 1.5) / pitch
    line = np.exp(-((((phase + 0.5) % 1 - 0.5) / (0.26 - 0.10 * a)) ** 2))
    made: np.ndarray = (0.10 + 0.05 * rng.random()) * line * _edge(0.95 - np.abs(u), 0.03)
    return made


def _shoulders(signs: ChildSigns, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The heads of both upper arms: their kernels grow, and the growth plate beside them closes."""
    a = _strength(signs.bone)
    height = -1.0 + 0.06 * rng.standard_normal()
    away = np.hypot(np.abs(u) - 1.0, v - height)
    kernel = _edge(0.04 + 0.17 * a - away, 0.012)
    plate = (1 - a) * np.exp(-(((away - 0.26) / 0.03) ** 2))
    made: np.ndarray = 0.6 * kernel + 0.4 * plate
    return made


def render_children(hospital: Hospital, *, out_dir: Path, seed: int, patients: int) -> list[Truth]:
    """Write one hospital's films to `out_dir/images/<study>/<series>/` and `out_dir/outcomes.csv`; the truth of each.

    Parameters
    ----------
    hospital, out_dir, seed, patients
        As `phantoms.render_hospital`.
    """
    people = generator_of(seed, hospital, "children")
    exams = drawn_exams(hospital, patients, seed=seed, rng=people)
    age_years = np.array([exam.age_days / DAYS_PER_YEAR for exam in exams])
    gap_years = GAP_SD_YEARS * people.standard_normal(patients)
    healthy = people.random(patients) < HEALTHY_FRACTION
    after = simulate_follow_up(age_years, gap_years, rng=generator_of(seed, hospital, "follow-up of children"))
    truths = []
    for i, exam in enumerate(exams):
        rng = generator_of(seed, hospital, f"child {i}")
        signs = ChildSigns.of(age_years[i] + gap_years[i], is_male=exam.is_male, rng=rng)
        density = render_child(signs, shape=(hospital.scanner.rows, hospital.scanner.columns), rng=rng)
        stored = expose(density, scanner=hospital.scanner, rng=rng)
        path = out_dir / IMAGES_FOLDER / f"ST{i:06d}" / "SE000001" / "IM000001.dcm"
        write_dicom(path, stored=stored, exam=exam, hospital=hospital)
        truths.append(
            Truth(
                patient_id=exam.patient_id,
                age_years=float(age_years[i]),
                true_gap_years=float(gap_years[i]),
                is_male=exam.is_male,
                healthy=bool(healthy[i]),
                time_years=float(after.time_years[i]),
                event=bool(after.event[i]),
                image=path,
            )
        )
    write_outcomes(out_dir / OUTCOMES_FILE, truths)
    return truths
