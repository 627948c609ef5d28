"""A site's cohort in its own SQLite file: patients, exams, images, outcomes and what was set aside.

No identifier is in it: patients, studies and images are keyed hashes. Paths are relative to the indexed folder and are
never shown or sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from sqlalchemy import Engine, Float, ForeignKey, create_engine, event, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fedage.client.cohort.keys import Hasher, hasher_of
from fedage.common.errors import FedAgeError

SCHEMA_VERSION = 1
FILE = "cohort.db"


class Base(DeclarativeBase):
    """Base of the store's tables."""


class Patient(Base):
    """One patient; `key` is the keyed hash of the identifier, `unit` its place in the split."""

    __tablename__ = "patients"
    key: Mapped[str] = mapped_column(primary_key=True)
    unit: Mapped[float] = mapped_column(Float)
    is_male: Mapped[float | None] = mapped_column(Float)


class Exam(Base):
    """One study of a patient."""

    __tablename__ = "exams"
    key: Mapped[str] = mapped_column(primary_key=True)
    patient: Mapped[str] = mapped_column(ForeignKey("patients.key"), index=True)
    age_years: Mapped[float] = mapped_column(Float)
    age_source: Mapped[str]
    age_capped: Mapped[bool]
    manufacturer: Mapped[str]


class ImageFile(Base):
    """One image file that can take part."""

    __tablename__ = "images"
    path: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    exam: Mapped[str] = mapped_column(ForeignKey("exams.key"), index=True)
    mtime_ns: Mapped[int]
    size_bytes: Mapped[int]
    modality: Mapped[str] = mapped_column(index=True)
    view: Mapped[str]
    laterality: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[int]
    photometric: Mapped[str]
    transfer_syntax: Mapped[str]


class RejectedFile(Base):
    """One file that was set aside, with its reason code."""

    __tablename__ = "rejected"
    path: Mapped[str] = mapped_column(primary_key=True)
    mtime_ns: Mapped[int]
    size_bytes: Mapped[int]
    reason: Mapped[str]


class Outcome(Base):
    """One outcome value of a patient; a missing value has no row."""

    __tablename__ = "outcomes"
    patient: Mapped[str] = mapped_column(primary_key=True)
    column: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class Setting(Base):
    """What the store knows about itself: the indexed folder."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class CohortStore:
    """The store of one site's home; a context manager."""

    def __init__(self, engine: Engine, hasher: Hasher) -> None:
        self.engine = engine
        self.hasher = hasher

    @classmethod
    def open(cls, home: Path | str) -> CohortStore:
        """Open a home's store; it is made if there is none.

        Raises
        ------
        FedAgeError
            If the file was written by another version of the schema.
        """
        home = Path(home)
        path = home / FILE
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

        @event.listens_for(engine, "connect")
        def _pragmas(connection: object, _record: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.close()

        with engine.begin() as connection:
            found = connection.execute(text("PRAGMA user_version")).scalar_one()
            if found not in (0, SCHEMA_VERSION):
                engine.dispose()
                raise FedAgeError(
                    f"{path} has schema {found}, this FedAge reads {SCHEMA_VERSION}; "
                    "install the FedAge that wrote it, or move the file away and index again"
                )
            Base.metadata.create_all(connection)
            connection.execute(text(f"PRAGMA user_version={SCHEMA_VERSION}"))
        path.chmod(0o600)
        return cls(engine, hasher_of(home))

    def __enter__(self) -> CohortStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.dispose()

    @property
    def root(self) -> Path:
        """The indexed folder.

        Raises
        ------
        FedAgeError
            If nothing has been indexed yet.
        """
        with Session(self.engine) as session:
            setting = session.get(Setting, "root")
        if setting is None:
            raise FedAgeError("nothing is indexed yet; run fedage site index")
        return Path(setting.value)

    def rejected_by_reason(self) -> dict[str, int]:
        """Files set aside, by reason code."""
        with Session(self.engine) as session:
            rows = session.execute(select(RejectedFile.reason, func.count()).group_by(RejectedFile.reason)).all()
        return {reason: int(count) for reason, count in sorted(rows)}

    def counts(self) -> Mapping[str, int]:
        """Numbers of patients, exams and images."""
        with Session(self.engine) as session:
            return {
                name: int(session.scalar(select(func.count()).select_from(table)) or 0)
                for name, table in (("patients", Patient), ("exams", Exam), ("images", ImageFile))
            }
