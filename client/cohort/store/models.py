"""The tables of a cohort store. No column holds an identifier, a date or a readable path.

A change of these tables raises `SCHEMA_VERSION` and adds a step to `migrations.py`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 7
WITHOUT_WORDS = "outcomes-without-words"
"""Setting of a store whose outcomes were read before cells with words were marked."""


class Base(DeclarativeBase):
    """Base of all tables."""


class Setting(Base):
    """Properties of the store: the check value of its key, the sealed root folder."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


class Patient(Base):
    """A person, by keyed hash."""

    __tablename__ = "patients"

    key: Mapped[str] = mapped_column(primary_key=True)
    sex: Mapped[str | None] = mapped_column(doc="M, F or unknown")


class Exam(Base):
    """One study of one patient."""

    __tablename__ = "exams"

    key: Mapped[str] = mapped_column(primary_key=True)
    patient: Mapped[str] = mapped_column(ForeignKey("patients.key", ondelete="CASCADE"), index=True)
    age_years: Mapped[float]
    age_source: Mapped[str] = mapped_column(doc="an AgeSource")
    age_capped: Mapped[bool] = mapped_column(doc="PatientAge 089Y or 090Y: at least this old")
    shifted_day: Mapped[int | None] = mapped_column(doc="orders a patient's exams; see Keys.shifted_day")
    manufacturer: Mapped[str]


class ImageFile(Base):
    """One image that is in."""

    __tablename__ = "images"

    key: Mapped[str] = mapped_column(primary_key=True)
    exam: Mapped[str] = mapped_column(ForeignKey("exams.key", ondelete="CASCADE"), index=True)
    path: Mapped[bytes] = mapped_column(LargeBinary, unique=True, doc="sealed, relative to the root")
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger, doc="bytes")
    modality: Mapped[str] = mapped_column(index=True)
    view: Mapped[str]
    laterality: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[int]
    photometric: Mapped[str]
    transfer_syntax: Mapped[str]
    spacing_known: Mapped[bool]
    burned_in: Mapped[str] = mapped_column(server_default="", doc="BurnedInAnnotation: YES, NO or nothing said")
    frames: Mapped[int] = mapped_column(server_default="1")
    slices: Mapped[int] = mapped_column(server_default="1", doc="of a volume, along its third axis")
    voxel_mm: Mapped[str] = mapped_column(server_default="", doc="of a volume: three lengths, blanks between")
    orientation: Mapped[str] = mapped_column(
        server_default="", doc="of a volume: where its axes point, e.g. RAS; and whether oblique"
    )
    body_part: Mapped[str] = mapped_column(server_default="", doc="of a radiograph, see takes.Content")
    intent: Mapped[str] = mapped_column(server_default="", doc="PRESENTATION, PROCESSING or nothing said")
    special: Mapped[str] = mapped_column(server_default="", doc="what makes it no ordinary view; blanks between")
    study: Mapped[str] = mapped_column(server_default="", doc="hash of its own StudyInstanceUID; empty if none")
    sex: Mapped[str | None] = mapped_column(doc="as this file says")
    age_from_years: Mapped[float | None] = mapped_column(doc="of the interval that this file's age stands for")
    age_until_years: Mapped[float | None]
    real_day: Mapped[int | None] = mapped_column(doc="shifted, where nothing says that the day was changed")
    is_placeholder_id: Mapped[bool] = mapped_column(server_default="0", doc="whether its PatientID names nobody")


class Series(Base):
    """A series of slices in single files, complete or not, with the fields of its exam."""

    __tablename__ = "series"

    key: Mapped[str] = mapped_column(primary_key=True, doc="hash of exam and SeriesInstanceUID; a volume's image key")
    exam: Mapped[str] = mapped_column(doc="keyed hash; a row of exams while the series is in")
    patient: Mapped[str]
    sex: Mapped[str | None]
    age_years: Mapped[float]
    age_source: Mapped[str]
    age_capped: Mapped[bool]
    shifted_day: Mapped[int | None]
    manufacturer: Mapped[str]
    modality: Mapped[str]
    judged: Mapped[bool] = mapped_column(index=True, doc="whether images and rejected_files say what it is now")


class Slice(Base):
    """One file of a series; counted with its series' image or among the rejected files."""

    __tablename__ = "slices"

    key: Mapped[str] = mapped_column(primary_key=True)
    series: Mapped[str] = mapped_column(ForeignKey("series.key", ondelete="CASCADE"), index=True)
    path: Mapped[bytes] = mapped_column(LargeBinary, unique=True, doc="sealed, relative to the root")
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger, doc="bytes")
    place: Mapped[bytes] = mapped_column(LargeBinary, doc="11 float64, see dicom.Place; empty if it does not say")
    view: Mapped[str]
    laterality: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[int]
    photometric: Mapped[str]
    transfer_syntax: Mapped[str]
    spacing_known: Mapped[bool]
    burned_in: Mapped[str]
    study: Mapped[str] = mapped_column(server_default="", doc="hash of its own StudyInstanceUID; empty if none")
    sex: Mapped[str | None] = mapped_column(doc="as this file says")
    age_from_years: Mapped[float | None] = mapped_column(doc="of the interval that this file's age stands for")
    age_until_years: Mapped[float | None]
    real_day: Mapped[int | None] = mapped_column(doc="shifted, where nothing says that the day was changed")
    is_placeholder_id: Mapped[bool] = mapped_column(server_default="0", doc="whether its PatientID names nobody")


class RejectedFile(Base):
    """One file that is out, and why."""

    __tablename__ = "rejected_files"

    path: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(index=True, doc="a Reason")
    modality: Mapped[str] = mapped_column(server_default="")
    manufacturer: Mapped[str] = mapped_column(server_default="")


class Outcome(Base):
    """One number of a patient from the hospital's table; a missing value has no row."""

    __tablename__ = "outcomes"

    patient: Mapped[str] = mapped_column(ForeignKey("patients.key", ondelete="CASCADE"), primary_key=True)
    column: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class OutcomeWord(Base):
    """Marks that a patient has an unexplained word in a column of outcomes; the word is not stored."""

    __tablename__ = "outcome_words"

    patient: Mapped[str] = mapped_column(ForeignKey("patients.key", ondelete="CASCADE"), primary_key=True)
    column: Mapped[str] = mapped_column(primary_key=True)


class TablePatient(Base):
    """The patient of one row of the site's own table."""

    __tablename__ = "table_patients"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(unique=True)


class TableColumn(Base):
    """One column of the site's own table, a value for each row; text is not stored."""

    __tablename__ = "table_columns"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    numbers: Mapped[bytes] = mapped_column(LargeBinary, doc="float64, little-endian, NaN where there is no number")
    odd: Mapped[bytes | None] = mapped_column(LargeBinary, doc="a byte a row: 1 a word, 2 one that no mapping names")
    words: Mapped[bytes | None] = mapped_column(LargeBinary, doc="a byte a row: 2 male, 1 female, 0 no such word")


class TableRejected(Base):
    """How many rows or cells of the site's own table are out, by reason."""

    __tablename__ = "table_rejected"

    reason: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
