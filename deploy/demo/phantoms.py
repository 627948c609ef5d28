"""Three hospitals' phantoms: DICOM files and outcome tables, rendered from one seed.

Not patients: pictures drawn from a biological age = Ω + gap, gap ~ N(0, σ²), with follow-up from a planted hazard ratio
per year of true gap. All randomness comes from the seed and the hospital's name, so the same seed gives the same bytes.
Healthy or not is drawn apart from the gap: the label decides on whom a bias line is fitted, and no more.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.demo.anatomy import FloatImage, render
from fedage.deploy.demo.dicom import Exam, write_dicom
from fedage.deploy.demo.follow_up import (
    HAZARD_RATIO_PER_YEAR,
    LOG_HAZARD_RATIO_PER_YEAR_OF_AGE,
    FollowUp,
    simulate_follow_up,
)
from fedage.deploy.demo.hospitals import HOSPITALS, Hospital, Scanner
from fedage.deploy.demo.person import Build, Signs
from fedage.deploy.demo.truth import Planted, irreducible_mae_years

__all__ = [
    "GAP_SD_YEARS",
    "HEALTHY_FRACTION",
    "Planted",
    "Truth",
    "planted",
    "render_all",
    "render_hospital",
    "simulate_follow_up",
]

GAP_SD_YEARS = 3.5
HEALTHY_FRACTION = 0.85
DAYS_PER_YEAR = 365.25
IMAGES_FOLDER = "images"
OUTCOMES_FILE = "outcomes.csv"

Progress = Callable[[str, int, int], None]
"""Called with the hospital's name, patients rendered and patients in all."""


class Place(Protocol):
    """A hospital of phantoms, whatever its scanner."""

    @property
    def name(self) -> str: ...

    @property
    def patient_prefix(self) -> str: ...

    @property
    def age_min_years(self) -> float: ...

    @property
    def age_max_years(self) -> float: ...


@dataclass(frozen=True)
class Truth:
    """One rendered patient: what the picture was drawn from and what followed."""

    patient_id: str
    age_years: float
    true_gap_years: float
    is_male: bool
    healthy: bool
    time_years: float
    event: bool
    image: Path


def planted(hospitals: Sequence[Place] = HOSPITALS, *, gap_sd_years: float = GAP_SD_YEARS) -> Planted:
    """What the phantoms of these hospitals are rendered with."""
    ranges = {hospital.name: (hospital.age_min_years, hospital.age_max_years) for hospital in hospitals}
    return Planted(
        hazard_ratio_per_year=HAZARD_RATIO_PER_YEAR,
        hazard_ratio_per_year_of_age=float(np.exp(LOG_HAZARD_RATIO_PER_YEAR_OF_AGE)),
        gap_sd_years=gap_sd_years,
        age_range_years=ranges,
        irreducible_mae_years={
            name: irreducible_mae_years(age_min_years=low, age_max_years=high, gap_sd_years=gap_sd_years)
            for name, (low, high) in ranges.items()
        },
    )


def render_all(
    out_dir: Path,
    *,
    seed: int,
    patients_per_site: int,
    hospitals: Sequence[Hospital] = HOSPITALS,
    progress: Progress | None = None,
) -> Planted:
    """Render every hospital into `out_dir/<name>/` and say what was planted."""
    for hospital in hospitals:
        render_hospital(
            hospital, out_dir=out_dir / hospital.name, seed=seed, patients=patients_per_site, progress=progress
        )
    return planted(hospitals)


def render_hospital(
    hospital: Hospital, *, out_dir: Path, seed: int, patients: int, progress: Progress | None = None
) -> list[Truth]:
    """Write one hospital's pictures to `out_dir/images/<study>/<series>/` and `out_dir/outcomes.csv`.

    Parameters
    ----------
    hospital
        Its patients' ages and its scanner.
    out_dir
        The hospital's own folder; made if it does not exist.
    seed
        The demo's; with the hospital's name it fixes every byte.
    patients
        How many, one picture each.
    progress
        Told after every picture.

    Returns
    -------
    The truth behind every patient, in the order of the table.
    """
    people = generator_of(seed, hospital, "people")
    exams = drawn_exams(hospital, patients, seed=seed, rng=people)
    age_years = np.array([exam.age_days / DAYS_PER_YEAR for exam in exams], dtype=np.float64)
    gap_years = GAP_SD_YEARS * people.standard_normal(patients)
    healthy = people.random(patients) < HEALTHY_FRACTION
    follow_up = simulate_follow_up(age_years, gap_years, rng=generator_of(seed, hospital, "follow-up"))
    truths = []
    for i, exam in enumerate(exams):
        rng = generator_of(seed, hospital, f"picture {i}")
        signs = Signs.of(age_years[i] + gap_years[i], rng=rng)
        density = render(
            signs,
            Build.of(is_male=exam.is_male, rng=rng),
            shape=(hospital.scanner.rows, hospital.scanner.columns),
            spacing_mm=hospital.scanner.spacing_mm,
        )
        stored = expose(density, scanner=hospital.scanner, rng=rng)
        path = out_dir / IMAGES_FOLDER / f"ST{i:06d}" / "SE000001" / "IM000001.dcm"
        write_dicom(path, stored=stored, exam=exam, hospital=hospital)
        truths.append(_truth(exam, i, age_years, gap_years, healthy, follow_up, path))
        if progress is not None:
            progress(hospital.name, i + 1, patients)
    write_outcomes(out_dir / OUTCOMES_FILE, truths)
    return truths


def expose(density: FloatImage, *, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint16]:
    """What the scanner stores of a density picture (H, W): blur, characteristic curve, exposure, noise, quantisation.

    Exposure scatters from shot to shot: ±8 % in gain, ±2 % of the range in offset (one standard deviation).
    """
    blurred = gaussian_filter(density, scanner.blur_mm / scanner.spacing_mm)
    gain = scanner.gain * np.exp(0.08 * rng.standard_normal())
    offset = scanner.offset + 0.02 * rng.standard_normal()
    signal = gain * blurred**scanner.gamma + offset
    noise = scanner.noise_sd * rng.standard_normal(density.shape, dtype=np.float32)
    # Quantum noise: fewer photons behind denser parts.
    value = np.clip(signal + noise * (0.5 + blurred), 0.0, 1.0)
    if scanner.photometric == "MONOCHROME1":
        value = 1.0 - value
    return np.asarray(np.rint(value * (2**scanner.bits_stored - 1)), dtype=np.uint16)


def generator_of(seed: int, hospital: Place, purpose: str) -> np.random.Generator:
    """A generator of random numbers that is one purpose's own."""
    words = hashlib.sha256(f"{seed}/{hospital.name}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(words, "big"))


def drawn_exams(hospital: Place, patients: int, *, seed: int, rng: np.random.Generator) -> list[Exam]:
    """A hospital's exams, one a patient."""
    return [_exam(hospital, number, seed=seed, rng=rng) for number in _numbers(patients, rng)]


def _numbers(patients: int, rng: np.random.Generator) -> list[int]:
    """Distinct hospital numbers in no order."""
    return [int(n) for n in 100_000 + rng.permutation(max(4 * patients, 1000))[:patients]]


def _exam(hospital: Place, number: int, *, seed: int, rng: np.random.Generator) -> Exam:
    study_date = datetime.date(2009, 1, 5) + datetime.timedelta(days=int(rng.integers(3 * 365)))
    age_days = int(rng.uniform(hospital.age_min_years, hospital.age_max_years) * DAYS_PER_YEAR)
    return Exam(
        patient_id=f"{hospital.patient_prefix}{number}",
        birth_date=study_date - datetime.timedelta(days=age_days),
        study_date=study_date,
        study_time=datetime.time(int(rng.integers(7, 19)), int(rng.integers(60)), int(rng.integers(60))),
        is_male=bool(rng.random() < 0.5),
        entropy=("fedage phantom", str(seed), hospital.name, str(number)),
    )


def _truth(
    exam: Exam, i: int, age: FloatArray, gap: FloatArray, healthy: NDArray[np.bool_], after: FollowUp, path: Path
) -> Truth:
    return Truth(
        patient_id=exam.patient_id,
        age_years=float(age[i]),
        true_gap_years=float(gap[i]),
        is_male=exam.is_male,
        healthy=bool(healthy[i]),
        time_years=float(after.time_years[i]),
        event=bool(after.event[i]),
        image=path,
    )


def write_outcomes(path: Path, truths: Sequence[Truth]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient_id", "time_years", "event", "healthy", "true_gap_years"])
        for t in truths:
            writer.writerow(
                [t.patient_id, f"{t.time_years:.6f}", int(t.event), int(t.healthy), f"{t.true_gap_years:.6f}"]
            )
