"""Changes of a cohort store: files forgotten and added, outcomes replaced; identifiers are hashed on the way in."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update

from fedage.client.cohort.ages import age_limits_years
from fedage.client.cohort.dicom.facts import DicomFacts
from fedage.client.cohort.keys import Keys
from fedage.client.cohort.paths import FileStamp
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.models import (
    WITHOUT_WORDS,
    Base,
    Exam,
    ImageFile,
    Outcome,
    OutcomeWord,
    Patient,
    RejectedFile,
    Series,
    Setting,
    Slice,
    TableColumn,
    TablePatient,
    TableRejected,
)
from fedage.client.cohort.store.series import judge_series, series_of, withdraw
from fedage.client.cohort.store.store import CohortStore

READER_VERSION = "11"
"""Increased when files are read differently; the next indexing then reads all of them again."""


class LastIndexing(NamedTuple):
    """The last complete indexing: version of the reader, and digest of the folder. Empty if there was none."""

    reader: str = ""
    tree: str = ""

    @classmethod
    def read(cls, store: CohortStore) -> LastIndexing:
        """Read it from a store."""
        with store.reading() as session:
            sealed = session.scalar(select(Setting.value).where(Setting.name == "tree"))
        return cls() if sealed is None else cls(*store.path_of(sealed).split(":"))


@contextmanager
def writing(store: CohortStore) -> Iterator[Writer]:
    """One writing transaction of a store, all of it or nothing. Raises as `CohortStore.transaction` does."""
    with store.transaction() as (connection, keys):
        yield Writer(connection, keys)


class Writer:
    """One writing transaction of a store."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection, self._keys = connection, keys

    def set_root(self, root: Path) -> None:
        """Remember the indexed folder."""
        self._connection.execute(delete(Setting).where(Setting.name == "root"))
        self._connection.execute(insert(Setting).values(name="root", value=self._keys.seal(str(root))))

    def remember(self, indexing: LastIndexing) -> None:
        """Store an indexing's digest, sealed, so that the database confirms no guess about the folder's contents."""
        self._connection.execute(delete(Setting).where(Setting.name == "tree"))
        self._connection.execute(insert(Setting).values(name="tree", value=self._keys.seal(":".join(indexing))))

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files that vanished or are read again."""
        sealed = [{"sealed": self._keys.seal(path)} for path in paths]
        if not sealed:
            return
        if self._connection.scalar(select(Slice.key).limit(1)) is not None:
            withdraw(self._connection, series_of(self._connection, (one["sealed"] for one in sealed)))
        for table in (ImageFile, RejectedFile, Slice):
            name = table.__tablename__
            self._connection.execute(text(f"DELETE FROM {name} WHERE path = :sealed"), sealed)

    def add(self, entries: Sequence[tuple[FileStamp, DicomFacts | Rejected]]) -> None:
        """Store what was read from files; an image that is already stored is rejected as a duplicate.

        Slices are kept for `judge_series`.
        """
        rejected = [(stamp, fact) for stamp, fact in entries if isinstance(fact, Rejected)]
        facts = [(stamp, fact) for stamp, fact in entries if isinstance(fact, DicomFacts)]
        images: dict[str, dict[str, Any]] = {}
        patients: dict[str, str | None] = {}
        exams: dict[str, dict[str, Any]] = {}
        series: dict[str, dict[str, Any]] = {}
        slices: dict[str, dict[str, Any]] = {}
        keys = [self._keys.image(fact.sop_uid) for _, fact in facts]
        existing = self._there(ImageFile.key, keys) | self._there(Slice.key, keys)
        for key, (stamp, fact) in zip(keys, facts, strict=True):
            if key in existing or key in images or key in slices:
                rejected.append((stamp, Rejected(Reason.DUPLICATE_IMAGE, fact.modality, fact.manufacturer)))
                continue
            patient = self._keys.patient(fact.patient_id)
            exam = self._keys.exam(patient, fact.study_uid)
            if fact.series_uid is not None:
                series_key = self._keys.series(exam, fact.series_uid)
                series.setdefault(series_key, self._series(series_key, exam, patient, fact))
                slices[key] = self._slice(key, series_key, stamp, fact) | self._person(patient, fact)
                continue
            patients[patient] = patients.get(patient) or fact.sex
            exams.setdefault(exam, self._exam(exam, patient, fact))
            images[key] = self._image(key, exam, stamp, fact) | self._person(patient, fact)
        self._add_exams(patients, exams)
        self._insert(ImageFile, list(images.values()))
        self._insert(RejectedFile, [self._rejected(stamp, fact) for stamp, fact in rejected])
        self._add_slices(series, slices)

    def judge_series(self, *, limit: int = 500) -> bool:
        """Make images of the next series that have changed, or reject their files; whether there were any."""
        rows = judge_series(self._connection, self._keys, limit=limit)
        if rows is None:
            return False
        self._add_exams(rows.patients, rows.exams)
        self._insert(ImageFile, rows.images)
        self._insert(RejectedFile, rows.rejected)
        return True

    def prune(self) -> None:
        """Drop exams without images, patients without exams and series without slices."""
        self._connection.execute(delete(Series).where(Series.key.not_in(select(Slice.series))))
        self._connection.execute(delete(Exam).where(Exam.key.not_in(select(ImageFile.exam))))
        self._connection.execute(delete(Patient).where(Patient.key.not_in(select(Exam.patient))))

    def replace_outcomes(self, values: Mapping[str, Mapping[str, float]], words: Mapping[str, Collection[str]]) -> int:
        """Replace all stored outcomes.

        Parameters
        ----------
        values
            By identifier and column.
        words
            By identifier, the columns in which the patient has a word that no mapping explains.

        Returns
        -------
        int
            The number of unknown patients.
        """
        by_key = {self._keys.patient(patient_id): columns for patient_id, columns in values.items()}
        known = self._there(Patient.key, by_key)
        self._connection.execute(delete(Outcome))
        self._insert(
            Outcome,
            [
                {"patient": key, "column": column, "value": value}
                for key, columns in by_key.items()
                if key in known
                for column, value in columns.items()
            ],
        )
        words_by_key = ((self._keys.patient(patient_id), columns) for patient_id, columns in words.items())
        self._connection.execute(delete(OutcomeWord))
        self._insert(
            OutcomeWord,
            [{"patient": key, "column": column} for key, columns in words_by_key if key in known for column in columns],
        )
        self._connection.execute(delete(Setting).where(Setting.name == WITHOUT_WORDS))
        return len(by_key) - len(known)

    def replace_table(
        self,
        patients: Sequence[str],
        columns: Iterable[Mapping[str, Any]],
        *,
        rejected: Mapping[str, int],
        about: str,
    ) -> None:
        """Replace the stored table.

        Parameters
        ----------
        patients
            Keyed hashes, a row each.
        columns
            Rows of `TableColumn`, without their positions.
        rejected
            Rows and cells set aside, by reason.
        about
            What the table was read from and how; sealed.
        """
        for table in (TablePatient, TableColumn, TableRejected):
            self._connection.execute(delete(table))
        self._insert(TablePatient, [{"position": row, "key": key} for row, key in enumerate(patients)])
        self._insert(TableColumn, [{"position": at, **column} for at, column in enumerate(columns)])
        self._insert(TableRejected, [{"reason": code, "count": count} for code, count in rejected.items()])
        self._connection.execute(delete(Setting).where(Setting.name == "table"))
        if about:
            self._connection.execute(insert(Setting).values(name="table", value=self._keys.seal(about)))

    def _add_exams(self, sexes: Mapping[str, str | None], exams: Mapping[str, dict[str, Any]]) -> None:
        self._add_patients(sexes)
        existing = self._there(Exam.key, exams)
        self._insert(Exam, [row for key, row in exams.items() if key not in existing])

    def _add_slices(self, series: Mapping[str, dict[str, Any]], slices: Mapping[str, dict[str, Any]]) -> None:
        if not slices:
            return
        existing = self._there(Series.key, series)
        withdraw(self._connection, existing)
        self._insert(Series, [row for key, row in series.items() if key not in existing])
        self._insert(Slice, list(slices.values()))

    def _add_patients(self, sexes: Mapping[str, str | None]) -> None:
        existing = self._there(Patient.key, sexes)
        self._insert(Patient, [{"key": key, "sex": sex} for key, sex in sexes.items() if key not in existing])
        for key in existing:
            if sexes[key] is not None:
                unknown = update(Patient).where(Patient.key == key, Patient.sex.is_(None))
                self._connection.execute(unknown.values(sex=sexes[key]))

    def _there(self, column: Any, keys: Iterable[str]) -> set[str]:
        """Which of the keys the table holds; one parameter, however many keys there are."""
        values = select(func.json_each(bindparam("keys")).table_valued("value").c.value)
        return set(self._connection.scalars(select(column).where(column.in_(values)), {"keys": json.dumps(list(keys))}))

    def _insert(self, table: type[Base], rows: list[dict[str, Any]]) -> None:
        """Rows of the same columns; past SQLAlchemy's processing of each value, which takes half the time."""
        if rows:
            names = list(rows[0])
            marks, columns = ", ".join("?" * len(names)), ", ".join(f'"{name}"' for name in names)
            statement = f'INSERT INTO "{table.__tablename__}" ({columns}) VALUES ({marks})'
            self._connection.exec_driver_sql(statement, [tuple(row[name] for name in names) for row in rows])

    def _stamp(self, stamp: FileStamp) -> dict[str, Any]:
        return {"path": self._keys.seal(stamp.path), "mtime_ns": stamp.mtime_ns, "size": stamp.size}

    def _rejected(self, stamp: FileStamp, fact: Rejected) -> dict[str, Any]:
        labels = {"reason": str(fact.code), "modality": fact.modality, "manufacturer": fact.manufacturer}
        return self._stamp(stamp) | labels

    def _exam(self, key: str, patient: str, fact: DicomFacts) -> dict[str, Any]:
        return {
            "key": key,
            "patient": patient,
            "age_years": fact.age.years,
            "age_source": str(fact.age.source),
            "age_capped": fact.age.capped,
            "shifted_day": None if fact.exam_day is None else self._keys.shifted_day(patient, fact.exam_day),
            "manufacturer": fact.manufacturer,
        }

    def _person(self, patient: str, fact: DicomFacts) -> dict[str, Any]:
        """What a file says of whose image it is, by which files are compared (`one_person`)."""
        age_from_years, age_until_years = age_limits_years(fact.age)
        is_day_known = fact.is_day_real and fact.exam_day is not None
        return {
            "study": self._keys.study(fact.own_study_uid) if fact.own_study_uid else "",
            "sex": fact.sex,
            "age_from_years": age_from_years,
            "age_until_years": age_until_years,
            "real_day": self._keys.shifted_day(patient, fact.exam_day or 0) if is_day_known else None,
            "is_placeholder_id": fact.is_placeholder_id,
        }

    def _series(self, key: str, exam: str, patient: str, fact: DicomFacts) -> dict[str, Any]:
        of_exam = self._exam(key, patient, fact)  # with the series' key
        return of_exam | {"exam": exam, "sex": fact.sex, "modality": fact.modality, "judged": False}

    def _slice(self, key: str, series: str, stamp: FileStamp, fact: DicomFacts) -> dict[str, Any]:
        of_image = {name: getattr(fact, name) for name in _OF_SLICE}
        return self._stamp(stamp) | {"key": key, "series": series, "place": fact.place} | of_image

    def _image(self, key: str, exam: str, stamp: FileStamp, fact: DicomFacts) -> dict[str, Any]:
        of_image = {name: getattr(fact, name) for name in _OF_IMAGE}
        of_volume = {name: getattr(fact, name, flat) for name, flat in _OF_VOLUME.items()}
        return self._stamp(stamp) | {"key": key, "exam": exam} | of_image | of_volume


_OF_SLICE = ("view", "laterality", "rows", "columns", "photometric", "transfer_syntax", "spacing_known", "burned_in")
_OF_IMAGE = ("modality", "frames", "body_part", "intent", "special", *_OF_SLICE)
_OF_VOLUME = {"slices": 1, "voxel_mm": "", "orientation": ""}
"""Fields of volumes, with their values for a flat image."""
