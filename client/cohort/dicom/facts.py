"""From a DICOM file's header to the facts a cohort keeps, or to the reason why the file is out. No pixel is decoded."""

from __future__ import annotations

import io
import math
import os
import struct
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGExtended12Bit, RLELossless

from fedage.client.cohort.ages import Age, age_at_exam, exam_date, parse_date
from fedage.client.cohort.dicom.content_tags import SEQUENCES, read_content
from fedage.client.cohort.dicom.content_tags import TAGS as CONTENT_TAGS
from fedage.client.cohort.dicom.dataset import frames_stack
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.geometry import Stack
from fedage.client.cohort.dicom.header import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    EndsEarly,
    Header,
    Malformed,
    NotDicom,
    PixelElement,
    TooLarge,
    read_header,
    sequence_items,
)
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.sop_classes import (
    CROSS_SECTIONAL,
    DICOMDIR,
    RADIOGRAPHS,
    is_derived,
    is_stack,
    is_without_image,
    normalise_modality,
)
from fedage.client.cohort.table_facts import NO_FACTS, TableFacts

MAX_FRAME_SAMPLES = 150_000_000
"""Most values of one frame that are ever decoded: six times the largest mammogram."""

_CHARSET = 0x00080005
_SOP_CLASS, _SOP_UID, _MODALITY, _MANUFACTURER = 0x00080016, 0x00080018, 0x00080060, 0x00080070
_STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE, _CONTENT_DATE = 0x00080020, 0x00080021, 0x00080022, 0x00080023
_DATES_MODIFIED = 0x00280303
_DEIDENTIFIED_BY = 0x00120064
_CODE_VALUE = 0x00080100
_MODIFIED_DATES = b"113107"
"""Retain Longitudinal Temporal Information Modified Dates Option (PS3.16 CID 7050)."""
_PATIENT_ID, _BIRTH_DATE, _SEX, _AGE = 0x00100020, 0x00100030, 0x00100040, 0x00101010
_STUDY_UID = 0x0020000D
_LATERALITY, _IMAGE_LATERALITY = 0x00200060, 0x00200062
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _BURNED_IN = 0x00280100, 0x00280101, 0x00280102, 0x00280301
_PIXEL_SPACING, _IMAGER_SPACING, _SCANNED_SPACING = 0x00280030, 0x00181164, 0x00182010
_SERIES_UID, _POSITION, _ORIENTATION = 0x0020000E, 0x00200032, 0x00200037
_WANTED = frozenset(
    (
        *(_CHARSET, _SOP_CLASS, _SOP_UID, _MODALITY, _MANUFACTURER, _PATIENT_ID, _BIRTH_DATE, _SEX),
        *(_AGE, _STUDY_UID, _LATERALITY, _IMAGE_LATERALITY, _SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS),
        *(_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _BURNED_IN, _PIXEL_SPACING, _IMAGER_SPACING, _SCANNED_SPACING),
        *(_SERIES_UID, _POSITION, _ORIENTATION, _STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE, _CONTENT_DATE),
        _DATES_MODIFIED,
        *CONTENT_TAGS,
    )
)
_UNCOMPRESSED = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_MAX_FRAGMENTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFacts:
    """What a cohort wants to know of one image. Identifiers and dates are on their way to the store's keyed hash."""

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
        header = read_header(stream, size=size, wanted=_WANTED, sequences=SEQUENCES | {_DEIDENTIFIED_BY})
        facts: DicomFacts | Reason = _kind_problem(header) or _pixel_problem(header) or _facts(header, table_facts)
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
    return Rejected(facts, modality=_modality(header), manufacturer=_text(header, _MANUFACTURER)[:64])


def open_nonblocking(path: str, flags: int) -> int:
    """An opener that neither waits nor follows a link."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


@lru_cache(maxsize=256)
def decodable(transfer_syntax: str, *, bits: int = 8) -> bool:
    """Whether an installed decoder reads this transfer syntax with so many bits allocated."""
    if transfer_syntax in _UNCOMPRESSED:
        return True
    silence_decoders()
    try:
        plugins = get_decoder(transfer_syntax).available_plugins
    except NotImplementedError:
        return False
    if transfer_syntax == JPEGExtended12Bit and bits > 8:
        return "pylibjpeg" in plugins  # the others stop at 8 bits
    return bool(plugins)


def _kind_problem(header: Header) -> Reason | None:
    """Why an object of this kind is no image for an age model."""
    sop_class = _text(header, _SOP_CLASS) or header.media_class
    if DICOMDIR in (sop_class, header.media_class):
        return Reason.DIRECTORY
    if is_derived(sop_class):
        return Reason.DERIVED_OBJECT
    if header.pixels is None or header.pixels.length == 0:
        return Reason.NOT_AN_IMAGE if is_without_image(sop_class, _modality(header)) else Reason.NO_PIXELS
    return None


def _pixel_problem(header: Header) -> Reason | None:
    """Why the pixels cannot be used, as far as header and lengths tell."""
    if not decodable(header.transfer_syntax, bits=_short(header, _BITS_ALLOCATED)):
        return Reason.UNSUPPORTED_TRANSFER_SYNTAX
    pixels, rows, columns, frames = header.pixels, _short(header, _ROWS), _short(header, _COLUMNS), _frames(header)
    if pixels is None or not rows or not columns:
        return Reason.NO_PIXELS
    if frames is None:
        return Reason.UNREADABLE
    samples = _short(header, _SAMPLES) or 1
    if rows * columns * samples > MAX_FRAME_SAMPLES:
        return Reason.TOO_LARGE
    if _bits_contradict(header, pixels):
        return Reason.CONTRADICTORY_BITS
    if header.transfer_syntax in _UNCOMPRESSED:
        reason = _native_length_problem(header, pixels, frame=rows * columns * samples, frames=frames)
    else:
        reason = _fragment_problem(header.body, pixels, size=header.body_bytes)
    return reason or _content_problem(header, samples=samples, frames=frames)


def _bits_contradict(header: Header, pixels: PixelElement) -> bool:
    """Whether the stored bits do not lie inside the word (PS3.5 section 8.1.1), as far as the header says anything.

    In words a value may lie above bit 0 and is shifted when it is read; in a codestream of the JPEG family it cannot.
    """
    stored = _short(header, _BITS_STORED)
    if pixels.tag in _FLOAT_BITS or not stored:
        return False
    allocated = _short(header, _BITS_ALLOCATED)
    high = _short(header, _HIGH_BIT) if _HIGH_BIT in header.values else stored - 1
    lowest = high + 1 - stored
    is_word_aligned = header.transfer_syntax in (*_UNCOMPRESSED, RLELossless)
    return not 0 <= lowest <= (allocated - stored if is_word_aligned else 0)


def _content_problem(header: Header, *, samples: int, frames: int) -> Reason | None:
    """Why whole pixels show what no model here reads."""
    if samples != 1 or not _text(header, _PHOTOMETRIC).upper().startswith("MONOCHROME"):
        return Reason.COLOUR
    if _text(header, _BURNED_IN).upper() == "YES":
        return Reason.BURNED_IN
    if frames == 1:
        return None
    if not is_stack(_text(header, _SOP_CLASS)):
        return Reason.MULTI_FRAME
    silence_decoders()
    stack = frames_stack(header.stream)
    if isinstance(stack, Stack):
        return None if len(stack.order) == frames else Reason.NO_GEOMETRY
    return stack


def _native_length_problem(header: Header, pixels: PixelElement, *, frame: int, frames: int) -> Reason | None:
    """Compare with the length that PS3.5 section 8.1.1 implies: values of a frame × frames × bits, in bytes."""
    bits = _FLOAT_BITS.get(pixels.tag) or _short(header, _BITS_ALLOCATED)
    if bits not in (1, 8, 16, 32, 64) or pixels.length == UNDEFINED:
        return Reason.UNREADABLE
    expected = math.ceil(frame * frames * bits / 8)
    if _text(header, _PHOTOMETRIC) == "YBR_FULL_422":
        expected = expected * 2 // 3
    whole = expected <= pixels.length <= header.body_bytes - pixels.offset
    return None if whole else Reason.TRUNCATED


def _fragment_problem(stream: BinaryIO, pixels: PixelElement, *, size: int) -> Reason | None:
    """Step over the encapsulated fragments (PS3.5 section A.4); whether they decode shows when samples are made."""
    if pixels.length != UNDEFINED:
        return Reason.UNREADABLE
    stream.seek(pixels.offset)
    for _ in range(_MAX_FRAGMENTS):
        head = stream.read(8)
        if len(head) < 8:
            return Reason.TRUNCATED
        if head[:4] == b"\xfe\xff\xdd\xe0":
            return None
        end = stream.tell() + int.from_bytes(head[4:], "little")
        if head[:4] != b"\xfe\xff\x00\xe0":
            return Reason.UNREADABLE
        if end > size:
            return Reason.TRUNCATED
        stream.seek(end)
    return None


def _facts(header: Header, table_facts: TableFacts) -> DicomFacts | Reason:
    patient_id = table_facts.patient_id or _patient_id(header)
    if not patient_id:
        return Reason.NO_PATIENT_ID
    sop_uid = _text(header, _SOP_UID)
    if not sop_uid:
        return Reason.NO_IDENTITY
    exam, agreed = _exam_date(header)
    age_text = _text(header, _AGE)
    age = table_facts.age or age_at_exam(
        birth=_date(header, _BIRTH_DATE),
        exam=exam,
        age_string=f"{age_text}Y" if table_facts.bare_age_years and age_text.isdigit() else age_text,
        trusted=agreed and not _are_dates_modified(header),
    )
    if isinstance(age, Reason):
        return age
    sex = table_facts.sex or _text(header, _SEX).upper()
    modality, frames = table_facts.modality or _modality(header), _frames(header)
    content = read_content(header, modality=modality, view=table_facts.view)
    is_assumed = not content.view and modality in RADIOGRAPHS
    of_series = modality in CROSS_SECTIONAL and frames == 1 and not is_stack(_text(header, _SOP_CLASS))
    return DicomFacts(
        patient_id=patient_id,
        study_uid=table_facts.study_uid or _text(header, _STUDY_UID) or sop_uid,
        sop_uid=sop_uid,
        exam_day=exam.toordinal() if exam and agreed else None,
        sex=sex if sex in ("M", "F") else None,
        age=age,
        manufacturer=(table_facts.manufacturer or _text(header, _MANUFACTURER))[:64],
        modality=modality,
        view=table_facts.view_if_unknown if is_assumed else content.view,
        body_part=content.body_part,
        intent=content.intent,
        special=content.special,
        laterality=(table_facts.laterality or _text(header, _IMAGE_LATERALITY) or _text(header, _LATERALITY)).upper()[
            :1
        ],
        rows=_short(header, _ROWS),
        columns=_short(header, _COLUMNS),
        photometric=_text(header, _PHOTOMETRIC).upper()[:32],
        transfer_syntax=header.transfer_syntax[:64],
        frames=frames or 1,
        burned_in=_text(header, _BURNED_IN).upper()[:3],
        spacing_known=frames != 1  # a stack, which has its spacing or would be out
        or any(_is_spacing(header, tag) for tag in (_PIXEL_SPACING, _IMAGER_SPACING, _SCANNED_SPACING)),
        series_uid=_text(header, _SERIES_UID) if of_series else None,
        place=_place(header) if of_series else b"",
    )


def _text(header: Header, tag: int) -> str:
    """The first value of an element of plain characters; empty if it is missing."""
    raw = header.values.get(tag, b"").split(b"\\")[0]
    return raw.decode("ascii", "replace").strip(" \0\t\r\n")


def _date(header: Header, tag: int) -> date | None:
    return parse_date(_text(header, tag))


def _exam_date(header: Header) -> tuple[date | None, bool]:
    """The exam's date, and whether the header's dates agree; the content's counts where there is no other."""
    day, agreed = exam_date(
        study=_date(header, _STUDY_DATE),
        acquisition=_date(header, _ACQUISITION_DATE),
        series=_date(header, _SERIES_DATE),
    )
    return day or _date(header, _CONTENT_DATE), agreed


def _are_dates_modified(header: Header) -> bool:
    """Whether the file says so itself, or else names the option of its de-identification that does it."""
    modified = _text(header, _DATES_MODIFIED).upper()
    if modified or _DEIDENTIFIED_BY not in header.sequences:
        return modified in ("MODIFIED", "REMOVED")
    try:
        codes = sequence_items(
            header.sequences[_DEIDENTIFIED_BY],
            implicit=header.implicit,
            little_endian=header.little_endian,
            wanted=frozenset([_CODE_VALUE]),
        )
    except (Malformed, EndsEarly):
        return False
    return any(code.get(_CODE_VALUE, b"").strip(b" \0") == _MODIFIED_DATES for code in codes)


def _modality(header: Header) -> str:
    return normalise_modality(_text(header, _MODALITY))


def _frames(header: Header) -> int | None:
    """Number of frames, 1 where the file does not say; None if it is no number."""
    text = _text(header, _FRAMES) or "1"
    return max(int(text), 1) if text.isascii() and text.isdigit() else None


def _short(header: Header, tag: int) -> int:
    """An unsigned short; 0 if it is missing."""
    return int.from_bytes(header.values.get(tag, b"")[:2], "little" if header.little_endian else "big")


def _place(header: Header) -> bytes:
    """Where a slice lies, see `DicomFacts.place`."""
    numbers: list[float] = []
    for tag, count in ((_POSITION, 3), (_ORIENTATION, 6), (_PIXEL_SPACING, 2)):
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
    raw = header.values.get(_PATIENT_ID, b"")
    if not raw.isascii():
        silence_decoders()
        encodings = convert_encodings(header.values.get(_CHARSET, b"").decode("ascii", "replace").strip().split("\\"))
        return decode_bytes(raw, encodings, set()).strip(" \0\t\r\n")
    return raw.decode("ascii").strip(" \0\t\r\n")
