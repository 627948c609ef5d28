"""Changes of a cohort store: files forgotten and added, outcomes replaced; identifiers are hashed on the way in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fedage.client.cohort.ages import age_limits_years
from fedage.client.cohort.dicom.facts import DicomFacts
from fedage.client.cohort.keys import Keys
from fedage.client.cohort.paths import FileStamp
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.schema import WITHOUT_WORDS
from fedage.client.cohort.store.series import judge_series, series_of, withdraw
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.sqlite import Connection, insert, insert_all, placed, scalar, scalars

READER_VERSION = "14"
"""Increased when files are read differently; the next indexing then reads all of them again."""


class LastIndexing(NamedTuple):
    """The last complete indexing: version of the reader, and digest of the folder. Empty if there was none."""

    reader: str = ""
    tree: str = ""

    @classmethod
    def read(cls, store: CohortStore) -> LastIndexing:
        """Read it from a store."""
        sealed = store.setting("tree")
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
        self._set("root", self._keys.seal(str(root)))

    def remember(self, indexing: LastIndexing) -> None:
        """Store an indexing's digest, sealed, so that the database confirms no guess about the folder's contents."""
        self._set("tree", self._keys.seal(":".join(indexing)))

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files that vanished or are read again."""
        sealed = [self._keys.seal(path) for path in paths]
        if not sealed:
            return
        if scalar(self._connection, "SELECT key FROM slices LIMIT 1") is not None:
            withdraw(self._connection, series_of(self._connection, sealed))
        for table in ("images", "rejected_files", "slices"):
            self._connection.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in sealed])

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
        existing = self._there("images", keys) | self._there("slices", keys)
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
        insert_all(self._connection, "images", list(images.values()))
        insert_all(self._connection, "rejected_files", [self._rejected(stamp, fact) for stamp, fact in rejected])
        self._add_slices(series, slices)

    def judge_series(self, *, limit: int = 500) -> bool:
        """Make images of the next series that have changed, or reject their files; whether there were any."""
        rows = judge_series(self._connection, self._keys, limit=limit)
        if rows is None:
            return False
        self._add_exams(rows.patients, rows.exams)
        insert_all(self._connection, "images", rows.images)
        insert_all(self._connection, "rejected_files", rows.rejected)
        return True

    def prune(self) -> None:
        """Drop exams without images, patients without exams and series without slices."""
        for statement in (
            "DELETE FROM series WHERE key NOT IN (SELECT series FROM slices)",
            "DELETE FROM exams WHERE key NOT IN (SELECT exam FROM images)",
            "DELETE FROM patients WHERE key NOT IN (SELECT patient FROM exams)",
        ):
            self._connection.execute(statement)

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
        known = self._there("patients", by_key)
        self._connection.execute("DELETE FROM outcomes")
        insert_all(
            self._connection,
            "outcomes",
            [
                {"patient": key, "column": column, "value": value}
                for key, columns in by_key.items()
                if key in known
                for column, value in columns.items()
            ],
        )
        words_by_key = ((self._keys.patient(patient_id), columns) for patient_id, columns in words.items())
        self._connection.execute("DELETE FROM outcome_words")
        insert_all(
            self._connection,
            "outcome_words",
            [{"patient": key, "column": column} for key, columns in words_by_key if key in known for column in columns],
        )
        self._set(WITHOUT_WORDS, None)
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
            Rows of `table_columns`, without their positions.
        rejected
            Rows and cells set aside, by reason.
        about
            What the table was read from and how; sealed.
        """
        rows_by_table: dict[str, list[dict[str, Any]]] = {
            "table_patients": [{"position": row, "key": key} for row, key in enumerate(patients)],
            "table_columns": [{"position": at, **column} for at, column in enumerate(columns)],
            "table_rejected": [{"reason": code, "count": count} for code, count in rejected.items()],
        }
        for table, rows in rows_by_table.items():
            self._connection.execute(f"DELETE FROM {table}")
            insert_all(self._connection, table, rows)
        self._set("table", self._keys.seal(about) if about else None)

    def _add_exams(self, sexes: Mapping[str, str | None], exams: Mapping[str, dict[str, Any]]) -> None:
        self._add_patients(sexes)
        existing = self._there("exams", exams)
        insert_all(self._connection, "exams", [row for key, row in exams.items() if key not in existing])

    def _add_slices(self, series: Mapping[str, dict[str, Any]], slices: Mapping[str, dict[str, Any]]) -> None:
        if not slices:
            return
        existing = self._there("series", series)
        withdraw(self._connection, existing)
        insert_all(self._connection, "series", [row for key, row in series.items() if key not in existing])
        insert_all(self._connection, "slices", list(slices.values()))

    def _add_patients(self, sexes: Mapping[str, str | None]) -> None:
        existing = self._there("patients", sexes)
        new = [{"key": key, "sex": sex} for key, sex in sexes.items() if key not in existing]
        insert_all(self._connection, "patients", new)
        said = [(sexes[key], key) for key in existing if sexes[key] is not None]
        self._connection.executemany("UPDATE patients SET sex = ? WHERE key = ? AND sex IS NULL", said)

    def _there(self, table: str, keys: Iterable[str]) -> set[str]:
        """Which of the keys the table holds."""
        these = f"SELECT key FROM {table} WHERE key IN (SELECT value FROM json_each(?))"
        return set(scalars(self._connection, these, (placed(keys),)))

    def _set(self, name: str, value: bytes | None) -> None:
        """Write a property of the store down, or take it out."""
        self._connection.execute("DELETE FROM settings WHERE name = ?", (name,))
        if value is not None:
            insert(self._connection, "settings", {"name": name, "value": value})

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
        of_image = {name: getattr(fact, name) for name in (*_OF_SLICE, "body_part", "special")}
        return self._stamp(stamp) | {"key": key, "series": series, "place": fact.place} | of_image

    def _image(self, key: str, exam: str, stamp: FileStamp, fact: DicomFacts) -> dict[str, Any]:
        of_image = {name: getattr(fact, name) for name in _OF_IMAGE}
        of_volume = {name: getattr(fact, name, flat) for name, flat in _OF_VOLUME.items()}
        return self._stamp(stamp) | {"key": key, "exam": exam} | of_image | of_volume


_OF_SLICE = ("view", "laterality", "rows", "columns", "photometric", "transfer_syntax", "spacing_known", "burned_in")
_OF_IMAGE = ("modality", "frames", "body_part", "intent", "special", *_OF_SLICE)
_OF_VOLUME = {"slices": 1, "voxel_mm": "", "orientation": ""}
"""Fields of volumes, with their values for a flat image."""
