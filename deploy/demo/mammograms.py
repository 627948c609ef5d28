"""Three hospitals' phantoms of mammography exams: four views each, DICOM files and outcome tables, from one seed.

As `phantoms` has them for chests: a biological age = Ω + gap, the same follow-up, a scanner of each hospital's own. In
some exams a view is missing, and one hospital stores dense as dark (MONOCHROME1).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.deploy.demo.breast import BreastBuild, BreastSigns, View, render_view
from fedage.deploy.demo.dicom import Picture, write_dicom
from fedage.deploy.demo.follow_up import simulate_follow_up
from fedage.deploy.demo.hospitals import HOSPITALS as CHEST_HOSPITALS
from fedage.deploy.demo.hospitals import Hospital
from fedage.deploy.demo.phantoms import (
    DAYS_PER_YEAR,
    GAP_SD_YEARS,
    HEALTHY_FRACTION,
    IMAGES_FOLDER,
    OUTCOMES_FILE,
    Progress,
    drawn_exams,
    expose,
    generator_of,
)

VIEWS: tuple[tuple[str, View], ...] = (("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO"))
LACKS_A_VIEW = 0.1
"""Part of the exams in which one view is missing."""


def _with_mammography(hospital: Hospital, *, ages_years: tuple[float, float], **scanner: Any) -> Hospital:
    """A hospital of the chest phantoms with the ages of its screening and what its mammography system differs in."""
    low, high = ages_years
    system = replace(hospital.scanner, manufacturer="Phantom Imaging", modality="MG", **scanner)
    return replace(hospital, age_min_years=low, age_max_years=high, scanner=system)


_HARBOUR, _NORTH, _VALLEY = CHEST_HOSPITALS
HOSPITALS: tuple[Hospital, ...] = (
    _with_mammography(
        _HARBOUR,
        ages_years=(40.0, 75.0),
        model="Mammo 14",
        rows=128,
        columns=76,
        spacing_mm=1.8,
        noise_sd=0.006,
        blur_mm=0.5,
    ),
    _with_mammography(
        _NORTH,
        ages_years=(45.0, 75.0),
        model="Mammo 12i",
        rows=132,
        columns=80,
        spacing_mm=1.75,
        bits_stored=12,
        offset=0.08,
        gamma=1.1,
        noise_sd=0.010,
        blur_mm=0.8,
    ),
    _with_mammography(
        _VALLEY,
        ages_years=(40.0, 70.0),
        model="Mammo 13",
        rows=136,
        columns=82,
        spacing_mm=1.7,
        bits_stored=13,
        offset=0.05,
        noise_sd=0.008,
        blur_mm=0.6,
    ),
)
"""In the order of their names, which is the order in which everything is summed."""


@dataclass(frozen=True)
class Woman:
    """One rendered exam: what the pictures were drawn from, and the pictures there are, by side and view."""

    age_years: float
    true_gap_years: float
    density: int
    pictures: dict[tuple[str, View], NDArray[np.uint16]]


def rendered(
    hospital: Hospital, number: int, *, seed: int, age_years: float, gap_years: float, lacking: int | None
) -> Woman:
    """One exam of a hospital, its pictures as the scanner stores them, the left breast's chest wall on the left.

    Parameters
    ----------
    number
        Of the exam at the hospital; with the seed and the hospital's name it fixes every bit.
    lacking
        Number of the view that is missing; None for an exam with all four.
    """
    rng = generator_of(seed, hospital, f"mammogram {number}")
    signs, build = BreastSigns.of(age_years + gap_years, rng=rng), BreastBuild.of(rng=rng)
    scanner = hospital.scanner
    pictures: dict[tuple[str, View], NDArray[np.uint16]] = {}
    for place, (side, view) in enumerate(VIEWS):
        density = render_view(
            signs, build, view=view, shape=(scanner.rows, scanner.columns), spacing_mm=scanner.spacing_mm, rng=rng
        )
        stored = expose(density if side == "L" else density[:, ::-1], scanner=scanner, rng=rng)
        if place != lacking:
            pictures[(side, view)] = stored
    return Woman(age_years=age_years, true_gap_years=gap_years, density=signs.acr, pictures=pictures)


def lacking_views(exams: int, *, rng: np.random.Generator) -> list[int | None]:
    """By exam, the number of the view that it lacks, None for none."""
    which = rng.integers(len(VIEWS), size=exams)
    return [int(k) if lacks else None for k, lacks in zip(which, rng.random(exams) < LACKS_A_VIEW, strict=True)]


def render_mammography(
    hospital: Hospital, *, out_dir: Path, seed: int, patients: int, progress: Progress | None = None
) -> None:
    """Write one hospital's exams to `out_dir/images/<study>/<series>/` and `out_dir/outcomes.csv`.

    Parameters
    ----------
    hospital, out_dir, seed, patients, progress
        As `render_hospital`.
    """
    people = generator_of(seed, hospital, "people")
    exams = [replace(exam, is_male=False) for exam in drawn_exams(hospital, patients, seed=seed, rng=people)]
    age_years = np.array([exam.age_days / DAYS_PER_YEAR for exam in exams])
    gap_years = GAP_SD_YEARS * people.standard_normal(patients)
    healthy = people.random(patients) < HEALTHY_FRACTION
    lacking = lacking_views(patients, rng=people)
    after = simulate_follow_up(age_years, gap_years, rng=generator_of(seed, hospital, "follow-up"))
    rows: list[Sequence[object]] = []
    for i, exam in enumerate(exams):
        woman = rendered(hospital, i, seed=seed, age_years=age_years[i], gap_years=gap_years[i], lacking=lacking[i])
        for place, ((side, view), stored) in enumerate(woman.pictures.items()):
            picture = Picture(
                study="Mammography (phantom)",
                body_part="BREAST",
                view=view,
                laterality=side,
                orientation=("A", "F") if side == "L" else ("P", "F"),
                name=f"{side} {view}",
                number=place + 1,
            )
            path = out_dir / IMAGES_FOLDER / f"ST{i:06d}" / "SE000001" / f"IM{place + 1:06d}.dcm"
            write_dicom(path, stored=stored, exam=exam, hospital=hospital, picture=picture)
        follow = [f"{after.time_years[i]:.6f}", int(after.event[i]), int(healthy[i]), f"{gap_years[i]:.6f}"]
        rows.append([exam.patient_id, *follow, woman.density])
        if progress is not None:
            progress(hospital.name, i + 1, patients)
    with (out_dir / OUTCOMES_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient_id", "time_years", "event", "healthy", "true_gap_years", "density"])
        writer.writerows(rows)
