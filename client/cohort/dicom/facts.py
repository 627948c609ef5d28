"""Reads from a DICOM header the facts that a cohort needs, or the reason why the file is out. No pixel is decoded."""

from __future__ import annotations

import io
import math
import os
import struct
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import convert_encodings, decode_bytes

from fedage.client.cohort.ages import Age, AgeSource, age_at_exam, exam_date, is_real_day, parse_date
from fedage.client.cohort.dicom import tags
from fedage.client.cohort.dicom.content_tags import SEQUENCES, read_content
from fedage.client.cohort.dicom.content_tags import TAGS as CONTENT_TAGS
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.header import (
    EndsEarly,
    Header,
    Malformed,
    NotDicom,
    TooLarge,
    read_header,
    sequence_items,
)
from fedage.client.cohort.dicom.pixel_checks import frame_count, kind_problem, modality_of, pixel_problem
from fedage.client.cohort.dicom.placeholder_ids import is_placeholder
from fedage.client.cohort.dicom.subject import SEQUENCES as SUBJECT_SEQUENCES
from fedage.client.cohort.dicom.subject import TAGS as SUBJECT_TAGS
from fedage.client.cohort.dicom.subject import why_no_patient
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.sop_classes import (
    CROSS_SECTIONAL,
    RADIOGRAPHS,
    is_stack,
)
from fedage.client.cohort.table_facts import NO_FACTS, TableFacts

_MODIFIED_DATES = b"113107"
"""Retain Longitudinal Temporal Information Modified Dates Option (PS3.16 CID 7050)."""
_WANTED = tags.OF_FACTS | CONTENT_TAGS | SUBJECT_TAGS
_SEQUENCES = SEQUENCES | SUBJECT_SEQUENCES | {tags.DEIDENTIFIED_BY}


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFacts:
    """Facts of one image. Identifiers and dates are in the clear here; the store keeps keyed hashes of them."""

    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    sop_uid: str = field(repr=False)
    exam_day: int | None = field(repr=False)
    """Proleptic ordinal of the exam's date."""
    sex: str | None
    age: Age
    manufacturer: str
    modality: str
    view: str
    """As `takes.Content` has it."""
    laterality: str
    rows: int
    columns: int
    photometric: str
    transfer_syntax: str
    spacing_known: bool
    frames: int = 1
    body_part: str = ""
    intent: str = ""
    special: str = ""
    """As `takes.Content` has them; empty of volumes."""
    burned_in: str = ""
    """BurnedInAnnotation: NO, or empty where the file does not say; with YES it is out."""
    series_uid: str | None = field(default=None, repr=False)
    """SeriesInstanceUID of a slice, perhaps empty; None of an image that stands for itself."""
    own_study_uid: str = field(default="", repr=False)
    """The file's own StudyInstanceUID; empty where it has none, or a table names the study."""
    is_day_real: bool = False
    """Whether the exam was on `exam_day`, which nobody changed as far as the file says."""
    is_placeholder_id: bool = False
    """Whether the identifier is one that programs and people write for none (ANONYMOUS, 0)."""
    place: bytes = field(default=b"", repr=False)
    """Of a slice: position (3), directions of rows and columns (6), distances (2), float64; empty if unknown."""


def read_facts(path: Path, table_facts: TableFacts = NO_FACTS) -> DicomFacts | Rejected:
    """Read one file. Every file gives one or the other; nothing is raised, whatever the file holds."""
    try:
        # A FIFO in the folder must not block: the walk hands over regular files, this holds if one changes meanwhile.
        with open(path, "rb", buffering=0, opener=open_nonblocking) as stream:
            return read_stream(stream, size=os.fstat(stream.fileno()).st_size, table_facts=table_facts)
    except OSError:
        return Rejected(Reason.UNREADABLE)


def read_bytes(content: bytes, table_facts: TableFacts = NO_FACTS) -> DicomFacts | Rejected:
    """Read a file that was taken from an archive."""
    return read_stream(io.BytesIO(content), size=len(content), table_facts=table_facts)


def read_stream(stream: BinaryIO, *, size: int, table_facts: TableFacts = NO_FACTS) -> DicomFacts | Rejected:
    """Read a file of `size` bytes from its beginning; nothing is raised."""
    header = None
    try:
        header = read_header(stream, size=size, wanted=_WANTED, sequences=_SEQUENCES)
        facts: DicomFacts | Reason = (
            kind_problem(header) or why_no_patient(header) or pixel_problem(header) or _facts(header, table_facts)
        )
    except NotDicom:
        facts = Reason.NOT_DICOM
    except EndsEarly:
        facts = Reason.TRUNCATED
    except TooLarge:
        facts = Reason.TOO_LARGE
    except Exception:  # noqa: BLE001 (besides Malformed and OSError, a damaged character set may raise anything)
        facts = Reason.UNREADABLE
    if isinstance(facts, DicomFacts):
        return facts
    if header is None:
        return Rejected(facts)
    return Rejected(facts, modality=modality_of(header), manufacturer=header.text(tags.MANUFACTURER)[:64])


def open_nonblocking(path: str, flags: int) -> int:
    """An opener that neither waits nor follows a link."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _facts(header: Header, table_facts: TableFacts) -> DicomFacts | Reason:
    patient_id = table_facts.patient_id or _patient_id(header)
    if not patient_id:
        return Reason.NO_PATIENT_ID
    sop_uid = header.text(tags.SOP_UID)
    if not sop_uid:
        return Reason.NO_IDENTITY
    exam, agreed = _exam_date(header)
    age_text = header.text(tags.AGE)
    is_trusted = agreed and not _are_dates_modified(header)
    age = table_facts.age or age_at_exam(
        birth=_date(header, tags.BIRTH_DATE),
        exam=exam,
        age_string=f"{age_text}Y" if table_facts.bare_age_years and age_text.isdigit() else age_text,
        trusted=is_trusted,
    )
    if isinstance(age, Reason):
        return age
    sex = table_facts.sex or header.text(tags.SEX).upper()
    modality, frames = table_facts.modality or modality_of(header), frame_count(header)
    content = read_content(header, modality=modality, view=table_facts.view)
    stated_side = header.text(tags.IMAGE_LATERALITY) or header.text(tags.LATERALITY)
    of_content = content.laterality if modality == "MG" else stated_side.upper()[:1]
    is_assumed = not content.view and modality in RADIOGRAPHS
    of_series = modality in CROSS_SECTIONAL and frames == 1 and not is_stack(header.text(tags.SOP_CLASS))
    if of_series and "quality-control" in content.special.split():
        return Reason.QUALITY_CONTROL
    return DicomFacts(
        patient_id=patient_id,
        study_uid=table_facts.study_uid or header.text(tags.STUDY_UID) or sop_uid,
        sop_uid=sop_uid,
        own_study_uid="" if table_facts.study_uid else header.text(tags.STUDY_UID),
        is_day_real=is_trusted and (age.source is AgeSource.DATES or is_real_day(exam)),
        is_placeholder_id=not table_facts.patient_id and is_placeholder(patient_id),
        exam_day=exam.toordinal() if exam and agreed else None,
        sex=sex if sex in ("M", "F") else None,
        age=age,
        manufacturer=(table_facts.manufacturer or header.text(tags.MANUFACTURER))[:64],
        modality=modality,
        view=table_facts.view_if_unknown if is_assumed else content.view,
        body_part=content.body_part,
        intent=content.intent,
        special=content.special,
        laterality=table_facts.laterality.upper()[:1] or of_content,
        rows=header.unsigned_short(tags.ROWS),
        columns=header.unsigned_short(tags.COLUMNS),
        photometric=header.text(tags.PHOTOMETRIC).upper()[:32],
        transfer_syntax=header.transfer_syntax[:64],
        frames=frames or 1,
        burned_in=header.text(tags.BURNED_IN).upper()[:3],
        spacing_known=frames != 1  # a stack, which has its spacing or would be out
        or any(_is_spacing(header, tag) for tag in (tags.PIXEL_SPACING, tags.IMAGER_SPACING, tags.SCANNED_SPACING)),
        series_uid=header.text(tags.SERIES_UID) if of_series else None,
        place=_place(header) if of_series else b"",
    )


def _date(header: Header, tag: int) -> date | None:
    return parse_date(header.text(tag))


def _exam_date(header: Header) -> tuple[date | None, bool]:
    """The exam's date, and whether the header's dates agree; the content's counts where there is no other."""
    day, agreed = exam_date(
        study=_date(header, tags.STUDY_DATE),
        acquisition=_date(header, tags.ACQUISITION_DATE),
        series=_date(header, tags.SERIES_DATE),
    )
    return day or _date(header, tags.CONTENT_DATE), agreed


def _are_dates_modified(header: Header) -> bool:
    """Whether the file says so itself, or else names the option of its de-identification that does it."""
    modified = header.text(tags.DATES_MODIFIED).upper()
    if modified or tags.DEIDENTIFIED_BY not in header.sequences:
        return modified in ("MODIFIED", "REMOVED")
    try:
        codes = sequence_items(
            header.sequences[tags.DEIDENTIFIED_BY],
            implicit=header.implicit,
            little_endian=header.little_endian,
            wanted=frozenset([tags.CODE_VALUE]),
        )
    except (Malformed, EndsEarly):
        return False
    return any(code.get(tags.CODE_VALUE, b"").strip(b" \0") == _MODIFIED_DATES for code in codes)


def _place(header: Header) -> bytes:
    """Where a slice lies, see `DicomFacts.place`."""
    numbers: list[float] = []
    for tag, count in ((tags.POSITION, 3), (tags.ORIENTATION, 6), (tags.PIXEL_SPACING, 2)):
        try:
            values = [float(part) for part in header.values.get(tag, b"").decode("ascii").strip(" \0").split("\\")]
        except ValueError:
            return b""
        if len(values) != count:
            return b""
        numbers += values
    return struct.pack("<11d", *numbers)


def _is_spacing(header: Header, tag: int) -> bool:
    try:
        row, column = (float(part) for part in header.values.get(tag, b"").decode("ascii").split("\\"))
    except ValueError:
        return False
    return math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0


def _patient_id(header: Header) -> str:
    """PatientID in the file's own character set, so that it is the one in the hospital's table."""
    raw = header.values.get(tags.PATIENT_ID, b"")
    if not raw.isascii():
        silence_decoders()
        encodings = convert_encodings(
            header.values.get(tags.CHARSET, b"").decode("ascii", "replace").strip().split("\\")
        )
        return decode_bytes(raw, encodings, set()).strip(" \0\t\r\n")
    return raw.decode("ascii").strip(" \0\t\r\n")
