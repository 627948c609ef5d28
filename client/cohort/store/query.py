"""A campaign's patients from the store: one baseline exam each, in the fixed order of their hashed identifiers."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.ages import AgeSource
from fedage.client.cohort.paths import SEPARATOR
from fedage.client.cohort.sop_classes import normalise_modality
from fedage.client.cohort.store.one_person import not_one_person
from fedage.client.cohort.store.schema import WITHOUT_WORDS
from fedage.client.cohort.store.statements import statements_of_images
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.sqlite import Connection, placed, scalar, scalars
from fedage.common.estimators.base import Input
from fedage.common.estimators.takes import Content, Takes
from fedage.common.statistics.statistic import FloatArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EligibleImage:
    """One eligible image of an exam.

    Parameters
    ----------
    path
        Relative to the indexed folder, or the name of a series.
    files
        Of a series the paths of its slices; else nothing.
    rank
        2 for an image, 3 for a volume.
    modality, view, laterality
        As the index has them.
    """

    path: str
    files: tuple[str, ...]
    rank: int
    modality: str
    view: str
    laterality: str


ANY_IMAGE = Input(name="image", rank=0)
"""Input that takes an image or a volume of any kind."""


@dataclass(frozen=True)
class Selection:
    """Patients with their baseline exam; arrays (n,) in the order of `keys`. None of it leaves the site as it is.

    Parameters
    ----------
    keys
        Keyed hashes of the patients, sorted.
    age_years, age_resolution_years, age_capped
        Age at exam; how wide an interval it stands for; whether it only says "at least".
    is_male
        1, 0, NaN if unknown.
    has_earlier_exam
        Whether the patient has an earlier exam with an image of these modalities, which is not taken or not eligible.
    unit
        u in [0, 1): drives the split, and moves nobody when patients are added.
    images, image_keys
        Relative paths and hashes of the exam's eligible images, of the first input the one to try first in front.
    found
        The same by the estimator's input.
    outcomes
        The hospital's columns, NaN where missing.
    excluded
        Patients left out, by reason.
    images_not_taken
        Images of the right modality that the estimator does not take, by reason; of all patients looked at.
    words
        By outcome column, how many patients of the store, chosen or not, have something there that is no number and no
        mapping explains.
    words_known
        Whether the store knows that: one whose outcomes were kept by an earlier release does not.
    files_digest
        SHA-256 over the images' hashes, sizes and modification times: changes when a file is replaced.
    """

    keys: tuple[str, ...] = field(repr=False)
    age_years: FloatArray = field(repr=False)
    age_resolution_years: FloatArray = field(repr=False)
    age_capped: Mask = field(repr=False)
    is_male: FloatArray = field(repr=False)
    has_earlier_exam: Mask = field(repr=False)
    split_uniform: FloatArray = field(repr=False)
    images: tuple[tuple[str, ...], ...] = field(repr=False)
    image_keys: tuple[tuple[str, ...], ...] = field(repr=False)
    images_by_input: tuple[Mapping[str, tuple[EligibleImage, ...]], ...] = field(repr=False)
    outcomes: Mapping[str, FloatArray] = field(repr=False)
    excluded: Mapping[str, int]
    files_digest: str
    images_not_taken: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)
    words_known: bool = True

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.keys)

    @property
    def snapshot(self) -> str:
        """SHA-256 over who is in and with which images: equal exactly for equal cohorts."""
        digest = hashlib.sha256()
        for key, images in zip(self.keys, self.image_keys, strict=True):
            digest.update(f"{key}:{','.join(sorted(images))}\n".encode())
        return digest.hexdigest()

    def keep(self, rows: NDArray[np.intp]) -> Selection:
        """The patients at these rows."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            age_years=self.age_years[rows],
            age_resolution_years=self.age_resolution_years[rows],
            age_capped=self.age_capped[rows],
            is_male=self.is_male[rows],
            has_earlier_exam=self.has_earlier_exam[rows],
            split_uniform=self.split_uniform[rows],
            images=tuple(self.images[row] for row in rows),
            image_keys=tuple(self.image_keys[row] for row in rows),
            images_by_input=tuple(self.images_by_input[row] for row in rows),
            outcomes={name: column[rows] for name, column in self.outcomes.items()},
        )


class _Image(NamedTuple):
    key: str
    path: bytes
    content: Content
    size: int
    mtime_ns: int
    modality: str
    rank: int


class _Exam(NamedTuple):
    key: str
    age_years: float
    age_source: str
    age_capped: bool
    shifted_day: int | None
    manufacturer: str


def select(
    store: CohortStore,
    *,
    modalities: tuple[str, ...],
    age_min_years: float,
    age_max_years: float,
    manufacturers: tuple[str, ...] = (),
    patients: Collection[str] | None = None,
    takes: Takes | None = None,
    inputs: tuple[Input, ...] = (),
    coarsest_age_years: float = math.inf,
) -> Selection:
    """The patients with an eligible exam, each with the earliest one: it has an image for every input that is needed.

    Parameters
    ----------
    store
        The site's store.
    modalities
        DICOM modalities; an exam needs an image of one of them. Empty means any.
    age_min_years, age_max_years
        Age at exam, both included.
    manufacturers
        As the images name them, capitals and blanks at the ends ignored. Empty means any.
    patients
        Keyed hashes of a frozen cohort: nobody else is in. None means anybody.
    takes
        What is taken where no inputs are given; None means any image.
    inputs
        What the estimator's exams hold.
    coarsest_age_years
        Widest interval that the age at an exam may be known to lie in, as the estimator says.
    """
    modalities = tuple(map(normalise_modality, modalities))
    of_makers = frozenset(name.strip().casefold() for name in manufacturers)
    excluded: Counter[str] = Counter()
    images_not_taken: Counter[str] = Counter()
    inputs = inputs or (replace(ANY_IMAGE, takes=takes or Takes()),)
    chosen: list[tuple[str, str | None, _Exam, dict[str, list[_Image]]]] = []
    has_earlier: list[bool] = []
    with store.reading() as connection:
        exams, (images, not_taken) = _exams(connection), _images(connection, modalities, inputs)
        not_one = {} if patients is not None else not_one_person(statements_of_images(connection))
        for patient, sex in connection.execute("SELECT key, sex FROM patients ORDER BY key"):
            if patients is not None and patient not in patients:
                continue  # not counted either: how many came since would be told from one answer to the next
            if patient in not_one:
                excluded[not_one[patient]] += 1
                continue
            with_images = [exam for exam in exams[patient] if _is_whole(images.get(exam.key, {}), inputs)]
            of_manufacturer = [
                exam for exam in with_images if not of_makers or exam.manufacturer.strip().casefold() in of_makers
            ]
            of_age = [exam for exam in of_manufacturer if age_min_years <= exam.age_years <= age_max_years]
            eligible = [exam for exam in of_age if AgeSource(exam.age_source).resolution_years <= coarsest_age_years]
            for exam in exams[patient]:
                images_not_taken.update(not_taken.get(exam.key, {}))
            if eligible:
                baseline = _earliest(eligible)
                chosen.append((patient, sex, baseline, images[baseline.key]))
                imaged = [exam for exam in exams[patient] if exam.key in images or exam.key in not_taken]
                has_earlier.append(_earliest(imaged) != baseline)
            else:
                has_others = any(exam.key in not_taken for exam in exams[patient])
                has_some = any(images.get(exam.key) for exam in exams[patient])
                why_not = _why_not(with_images, of_manufacturer, has_others=has_others, has_some=has_some)
                excluded["age-too-coarse" if of_age else why_not] += 1
        outcomes = _outcomes(connection, [patient for patient, *_ in chosen])
        words = _words(connection)
        words_known = scalar(connection, "SELECT name FROM settings WHERE name = ?", (WITHOUT_WORDS,)) is None
    images_by_patient = [
        list(dict.fromkeys(image for name in images_by_input for image in images_by_input[name]))
        for *_, images_by_input in chosen
    ]
    return Selection(
        keys=tuple(patient for patient, *_ in chosen),
        age_years=np.array([exam.age_years for _, _, exam, _ in chosen], dtype=np.float64),
        age_resolution_years=np.array(
            [AgeSource(exam.age_source).resolution_years for _, _, exam, _ in chosen], dtype=np.float64
        ),
        age_capped=np.array([exam.age_capped for _, _, exam, _ in chosen], dtype=np.bool_),
        is_male=np.array([{"M": 1.0, "F": 0.0}.get(sex or "", np.nan) for _, sex, *_ in chosen], dtype=np.float64),
        has_earlier_exam=np.array(has_earlier, dtype=np.bool_),
        split_uniform=np.array([store.split_uniform(patient) for patient, *_ in chosen], dtype=np.float64),
        images=tuple(
            tuple(store.path_of(image.path) for image in images_by_input) for images_by_input in images_by_patient
        ),
        image_keys=tuple(tuple(image.key for image in images_by_input) for images_by_input in images_by_patient),
        images_by_input=tuple(
            {
                name: tuple(_eligible_image(store, image) for image in images_of_input)
                for name, images_of_input in images_by_input.items()
            }
            for *_, images_by_input in chosen
        ),
        outcomes=outcomes,
        excluded=dict(excluded),
        images_not_taken=dict(images_not_taken),
        words=words,
        words_known=words_known,
        files_digest=_files_digest([image for images_by_input in images_by_patient for image in images_by_input]),
    )


def _is_whole(images: Mapping[str, list[_Image]], inputs: tuple[Input, ...]) -> bool:
    """Whether an exam has what is needed: every input that is, or any where none is."""
    required = [one.name for one in inputs if not one.optional]
    return bool(images) and all(name in images for name in required)


def _eligible_image(store: CohortStore, image: _Image) -> EligibleImage:
    path = store.path_of(image.path)
    return EligibleImage(
        path=path,
        files=store.slices(path) if path.startswith(SEPARATOR) else (),
        rank=image.rank,
        modality=image.modality,
        view=image.content.view,
        laterality=image.content.laterality,
    )


def _why_not(imaged: list[_Exam], of_manufacturer: list[_Exam], *, has_others: bool, has_some: bool) -> str:
    if not imaged and has_some:
        return "exam-incomplete"
    if not imaged:
        return "no-image-taken" if has_others else "no-image-of-modality"
    return "age-outside-cohort" if of_manufacturer else "other-manufacturer"


def _exams(connection: Connection) -> dict[str, list[_Exam]]:
    """All exams by patient."""
    exams: dict[str, list[_Exam]] = defaultdict(list)
    columns = "patient, key, age_years, age_source, age_capped, shifted_day, manufacturer"
    for patient, *of_exam in connection.execute(f"SELECT {columns} FROM exams"):
        exams[patient].append(_Exam(*of_exam))
    return exams


def _images(
    connection: Connection, modalities: tuple[str, ...], inputs: tuple[Input, ...]
) -> tuple[dict[str, dict[str, list[_Image]]], dict[str, Counter[str]]]:
    """By exam and input, the images that are taken, those to be tried first in front; how many are not, by reason.

    An image goes to the first input that takes it.
    """
    columns = 'exam, key, path, size, mtime_ns, "view", body_part, intent, special, laterality, modality, slices'
    only = "WHERE modality IN (SELECT value FROM json_each(:modalities))" if modalities else ""
    images: dict[str, dict[str, list[_Image]]] = {}
    not_taken: dict[str, Counter[str]] = {}
    rows = connection.execute(f"SELECT {columns} FROM images {only}", {"modalities": placed(modalities)})
    for exam, key, path, size, mtime_ns, view, body_part, intent, special, laterality, modality, slices in rows:
        content = Content(view=view, body_part=body_part, intent=intent, special=special, laterality=laterality)
        image = _Image(key, path, content, size, mtime_ns, modality, 3 if slices > 1 else 2)
        reasons = {wanted.name: _why_not_taken(image, wanted) for wanted in inputs}
        taken_by = next((name for name, reason in reasons.items() if reason is None), None)
        if taken_by is not None:
            images.setdefault(exam, {}).setdefault(taken_by, []).append(image)
        else:
            reason = next(reason for reason in reasons.values() if reason is not None)
            not_taken.setdefault(exam, Counter())[reason] += 1
    for images_by_input in images.values():
        for wanted in inputs:
            images_by_input.get(wanted.name, []).sort(key=_Order(wanted.takes))
    order = [wanted.name for wanted in inputs]
    return {
        exam: {name: images_by_input[name] for name in order if name in images_by_input}
        for exam, images_by_input in images.items()
    }, not_taken


@dataclass(frozen=True)
class _Order:
    """Sorts an input's images, the one to be tried first in front."""

    takes: Takes

    def __call__(self, image: _Image) -> tuple[tuple[int, int], str]:
        return self.takes.order(image.content), image.key


def _why_not_taken(image: _Image, wanted: Input) -> str | None:
    """Why an input does not take an image; None if it does."""
    if wanted.modalities and image.modality not in map(normalise_modality, wanted.modalities):
        return "other-modality"
    if wanted.rank and image.rank != wanted.rank:
        return "not-a-volume" if wanted.rank == 3 else "multi-frame"
    return wanted.takes.why_not(image.content)


def _earliest(exams: list[_Exam]) -> _Exam:
    """By day where every exam has one (two exams in one year of `PatientAge` are of equal age), else by age."""
    if all(exam.shifted_day is not None for exam in exams):
        return min(exams, key=lambda exam: (exam.shifted_day, exam.key))
    return min(exams, key=lambda exam: (exam.age_years, exam.key))


def _outcomes(connection: Connection, patients: list[str]) -> dict[str, FloatArray]:
    rows = {patient: row for row, patient in enumerate(patients)}
    columns: dict[str, FloatArray] = {}
    for patient, name, value in connection.execute('SELECT patient, "column", value FROM outcomes ORDER BY "column"'):
        column = columns.setdefault(name, np.full(len(patients), np.nan))
        if patient in rows:
            column[rows[patient]] = value
    return columns


def _words(connection: Connection) -> dict[str, int]:
    """How many patients of the store have a word in a column of outcomes.

    Attack: a campaign with other age limits each time asks whether the one patient with a word is among the patients.
    Rule: all patients of the store are looked at, whoever is chosen. Residual risk: that there is a word is told.
    """
    return dict(Counter(scalars(connection, 'SELECT "column" FROM outcome_words')))


def _files_digest(images: list[_Image]) -> str:
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.key}:{image.size}:{image.mtime_ns}\n".encode())
    return digest.hexdigest()
