"""A campaign's cohort from the store: one baseline exam a patient, in the fixed order of the hashed identifiers."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select as sql_select
from sqlalchemy.orm import Session

from fedage.client.cohort.store import CohortStore, Exam, ImageFile, Outcome, Patient
from fedage.common.campaign.types import Fractions
from fedage.common.statistic import FloatArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """Patients of a cohort with their baseline exam, arrays (n,) in the order of `keys`.

    Parameters
    ----------
    keys
        Keyed hashes of the patients, sorted. They stay at the site.
    age_years, is_male, unit
        Age at exam; 1, 0 or NaN; place in [0, 1) that drives the split.
    images
        Relative path of each patient's image.
    image_keys
        Keyed hash of each patient's image.
    outcomes
        Outcome columns, NaN where missing.
    excluded
        Patients left out, by reason.
    """

    keys: tuple[str, ...]
    age_years: FloatArray
    is_male: FloatArray
    unit: FloatArray
    images: tuple[str, ...]
    image_keys: tuple[str, ...]
    outcomes: Mapping[str, FloatArray]
    excluded: Mapping[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.keys)

    @property
    def snapshot(self) -> str:
        """SHA-256 over who is in and by which image: equal exactly for equal cohorts."""
        digest = hashlib.sha256()
        for key, image in zip(self.keys, self.image_keys, strict=True):
            digest.update(f"{key}:{image}\n".encode())
        return digest.hexdigest()

    def keep(self, rows: NDArray[np.intp]) -> Selection:
        """The patients at these rows."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            age_years=self.age_years[rows],
            is_male=self.is_male[rows],
            unit=self.unit[rows],
            images=tuple(self.images[row] for row in rows),
            image_keys=tuple(self.image_keys[row] for row in rows),
            outcomes={name: column[rows] for name, column in self.outcomes.items()},
        )


def select(store: CohortStore, *, modalities: tuple[str, ...], age_min_years: float, age_max_years: float) -> Selection:
    """The patients with an eligible exam: of a modality asked for and an age within the bounds, both included.

    A patient with several eligible exams takes part with the earliest, by age; of its images with the first by hash.
    """
    excluded: Counter[str] = Counter()
    with Session(store.engine) as session:
        patients = session.scalars(sql_select(Patient).order_by(Patient.key)).all()
        exams: dict[str, list[Exam]] = defaultdict(list)
        for exam in session.scalars(sql_select(Exam)):
            exams[exam.patient].append(exam)
        images: dict[str, list[ImageFile]] = defaultdict(list)
        for image in session.scalars(sql_select(ImageFile).order_by(ImageFile.key)):
            images[image.exam].append(image)
        values: dict[str, dict[str, float]] = defaultdict(dict)
        for outcome in session.scalars(sql_select(Outcome)):
            values[outcome.column][outcome.patient] = outcome.value
        chosen: list[tuple[Patient, Exam, ImageFile]] = []
        for patient in patients:
            fitting = [
                (exam, image)
                for exam in exams[patient.key]
                if (image := next((i for i in images[exam.key] if i.modality in modalities), None)) is not None
            ]
            of_age = [pair for pair in fitting if age_min_years <= pair[0].age_years <= age_max_years]
            if of_age:
                exam, image = min(of_age, key=lambda pair: (pair[0].age_years, pair[0].key))
                chosen.append((patient, exam, image))
            else:
                excluded["age-outside-cohort" if fitting else "no-image-of-modality"] += 1
    keys = tuple(patient.key for patient, _, _ in chosen)
    return Selection(
        keys=keys,
        age_years=np.array([exam.age_years for _, exam, _ in chosen], dtype=np.float64),
        is_male=np.array([np.nan if p.is_male is None else p.is_male for p, _, _ in chosen], dtype=np.float64),
        unit=np.array([patient.unit for patient, _, _ in chosen], dtype=np.float64),
        images=tuple(image.path for _, _, image in chosen),
        image_keys=tuple(image.key for _, _, image in chosen),
        outcomes={
            name: np.array([by_patient.get(key, np.nan) for key in keys], dtype=np.float64)
            for name, by_patient in sorted(values.items())
        },
        excluded=dict(excluded),
    )


def split(unit: FloatArray, fractions: Fractions) -> tuple[Mask, Mask, Mask]:
    """Train, validation and test masks (n,) by place in [0, 1): adding patients moves nobody."""
    train = unit < fractions.train
    validation = ~train & (unit < fractions.train + fractions.validation)
    return train, validation, ~train & ~validation


def folds(unit: FloatArray, k: int) -> NDArray[np.intp]:
    """The fold (n,), 0 to k − 1, of each patient by place in [0, 1)."""
    return np.minimum((unit * k).astype(np.intp), k - 1)
