"""The tables of a cohort store. No column holds an identifier, a date or a readable path.

A change of these tables raises `SCHEMA_VERSION` and adds a step to `migrations.py`.
"""

from __future__ import annotations

from fedage.client.site.sqlite import Tables

SCHEMA_VERSION = 8
WITHOUT_WORDS = "outcomes-without-words"
"""Setting of a store whose outcomes were read before cells with words were marked."""

_FILE = (
    "path BLOB NOT NULL",  # sealed, relative to the root
    "mtime_ns BIGINT NOT NULL",
    "size BIGINT NOT NULL",  # bytes
)
_PIXELS = (
    '"view" VARCHAR NOT NULL',
    "laterality VARCHAR NOT NULL",
    "rows INTEGER NOT NULL",
    "columns INTEGER NOT NULL",
    "photometric VARCHAR NOT NULL",
    "transfer_syntax VARCHAR NOT NULL",
    "spacing_known BOOLEAN NOT NULL",
)
_PERSON = (
    "study VARCHAR DEFAULT '' NOT NULL",  # hash of its own StudyInstanceUID; empty if none
    "sex VARCHAR",  # as this file says
    "age_from_years DOUBLE",  # of the interval that this file's age stands for
    "age_until_years DOUBLE",
    "real_day INTEGER",  # shifted, where nothing says that the day was changed
    "is_placeholder_id BOOLEAN DEFAULT '0' NOT NULL",  # whether its PatientID names nobody
)
_AGE = (
    "age_years DOUBLE NOT NULL",
    "age_source VARCHAR NOT NULL",  # an AgeSource
    "age_capped BOOLEAN NOT NULL",  # PatientAge 089Y or 090Y: at least this old
    "shifted_day INTEGER",  # orders a patient's exams; see Keys.shifted_day
    "manufacturer VARCHAR NOT NULL",
)
_OF_PATIENT = 'FOREIGN KEY(patient) REFERENCES patients ("key") ON DELETE CASCADE'


def _table(name: str, *columns: str) -> str:
    return f"CREATE TABLE {name} ({', '.join(columns)})"


TABLES: Tables = {
    # Properties of the store: the check value of its key, the sealed root folder.
    "settings": (_table("settings", "name VARCHAR NOT NULL", "value BLOB NOT NULL", "PRIMARY KEY (name)"),),
    # A person, by keyed hash; sex is M, F or unknown.
    "patients": (_table("patients", '"key" VARCHAR NOT NULL', "sex VARCHAR", 'PRIMARY KEY ("key")'),),
    # One study of one patient.
    "exams": (
        _table(
            "exams", '"key" VARCHAR NOT NULL', "patient VARCHAR NOT NULL", *_AGE, 'PRIMARY KEY ("key")', _OF_PATIENT
        ),
        "CREATE INDEX ix_exams_patient ON exams (patient)",
    ),
    # One image that is in.
    "images": (
        _table(
            "images",
            '"key" VARCHAR NOT NULL',
            "exam VARCHAR NOT NULL",
            *_FILE,
            "modality VARCHAR NOT NULL",
            *_PIXELS,
            "burned_in VARCHAR DEFAULT '' NOT NULL",  # BurnedInAnnotation: YES, NO or nothing said
            "frames INTEGER DEFAULT '1' NOT NULL",
            "slices INTEGER DEFAULT '1' NOT NULL",  # of a volume, along its third axis
            "voxel_mm VARCHAR DEFAULT '' NOT NULL",  # of a volume: three lengths, blanks between
            "orientation VARCHAR DEFAULT '' NOT NULL",  # of a volume: where its axes point, e.g. RAS; whether oblique
            "body_part VARCHAR DEFAULT '' NOT NULL",  # see takes.Content
            "intent VARCHAR DEFAULT '' NOT NULL",  # PRESENTATION, PROCESSING or nothing said
            "special VARCHAR DEFAULT '' NOT NULL",  # what makes it no ordinary view; blanks between
            *_PERSON,
            'PRIMARY KEY ("key")',
            'FOREIGN KEY(exam) REFERENCES exams ("key") ON DELETE CASCADE',
            "UNIQUE (path)",
        ),
        "CREATE INDEX ix_images_exam ON images (exam)",
        "CREATE INDEX ix_images_modality ON images (modality)",
    ),
    # A series of slices in single files, complete or not, with the fields of its exam.
    "series": (
        _table(
            "series",
            '"key" VARCHAR NOT NULL',  # hash of exam and SeriesInstanceUID; a volume's image key
            "exam VARCHAR NOT NULL",  # keyed hash; a row of exams while the series is in
            "patient VARCHAR NOT NULL",
            "sex VARCHAR",
            *_AGE,
            "modality VARCHAR NOT NULL",
            "judged BOOLEAN NOT NULL",  # whether images and rejected_files say what it is now
            'PRIMARY KEY ("key")',
        ),
        "CREATE INDEX ix_series_judged ON series (judged)",
    ),
    # One file of a series; counted with its series' image or among the rejected files.
    "slices": (
        _table(
            "slices",
            '"key" VARCHAR NOT NULL',
            "series VARCHAR NOT NULL",
            *_FILE,
            "place BLOB NOT NULL",  # 11 float64, see dicom.Place; empty if it does not say
            *_PIXELS,
            "burned_in VARCHAR NOT NULL",
            *_PERSON,
            "body_part VARCHAR DEFAULT '' NOT NULL",
            "special VARCHAR DEFAULT '' NOT NULL",
            'PRIMARY KEY ("key")',
            'FOREIGN KEY(series) REFERENCES series ("key") ON DELETE CASCADE',
            "UNIQUE (path)",
        ),
        "CREATE INDEX ix_slices_series ON slices (series)",
    ),
    # One file that is out, and why (a Reason).
    "rejected_files": (
        _table(
            "rejected_files",
            *_FILE,
            "reason VARCHAR NOT NULL",
            "modality VARCHAR DEFAULT '' NOT NULL",
            "manufacturer VARCHAR DEFAULT '' NOT NULL",
            "PRIMARY KEY (path)",
        ),
        "CREATE INDEX ix_rejected_files_reason ON rejected_files (reason)",
    ),
    # One number of a patient from the hospital's table; a missing value has no row.
    "outcomes": (
        _table(
            "outcomes",
            "patient VARCHAR NOT NULL",
            '"column" VARCHAR NOT NULL',
            "value DOUBLE NOT NULL",
            'PRIMARY KEY (patient, "column")',
            _OF_PATIENT,
        ),
    ),
    # Marks that a patient has an unexplained word in a column of outcomes; the word is not stored.
    "outcome_words": (
        _table(
            "outcome_words",
            "patient VARCHAR NOT NULL",
            '"column" VARCHAR NOT NULL',
            'PRIMARY KEY (patient, "column")',
            _OF_PATIENT,
        ),
    ),
    # The patient of one row of the site's own table.
    "table_patients": (
        _table(
            "table_patients",
            "position INTEGER NOT NULL",
            '"key" VARCHAR NOT NULL',
            "PRIMARY KEY (position)",
            'UNIQUE ("key")',
        ),
    ),
    # One column of the site's own table, a value for each row; text is not stored.
    "table_columns": (
        _table(
            "table_columns",
            "name VARCHAR NOT NULL",
            "position INTEGER NOT NULL",
            "numbers BLOB NOT NULL",  # float64, little-endian, NaN where there is no number
            "odd BLOB",  # a byte a row: 1 a word, 2 one that no mapping names
            "words BLOB",  # a byte a row: 2 male, 1 female, 0 no such word
            "PRIMARY KEY (name)",
        ),
    ),
    # How many rows or cells of the site's own table are out, by reason.
    "table_rejected": (
        _table("table_rejected", "reason VARCHAR NOT NULL", "count INTEGER NOT NULL", "PRIMARY KEY (reason)"),
    ),
}
