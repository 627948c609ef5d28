"""The elements of a header that describe what a radiograph shows, as texts; `content` interprets them together."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from pydicom.charset import convert_encodings, decode_bytes

from fedage.client.cohort.dicom import tags
from fedage.client.cohort.dicom.content import Code, HeaderText, derive_content, view_from_text
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.descriptions import fold_text
from fedage.client.cohort.dicom.header import EndsEarly, Header, Malformed, sequence_items
from fedage.common.estimators.takes import Content

_IMAGE_TYPE, _INTENT, _SERIES_DESCRIPTION = 0x00080008, 0x00080068, 0x0008103E
_BODY_PART, _MAGNIFICATION, _PADDLE, _PROCESSING = 0x00180015, 0x00181114, 0x001811A4, 0x00181400
_VIEW_POSITION, _QUALITY_CONTROL, _PARTIAL_VIEW = 0x00185101, 0x00280300, 0x00281350
_CONTAINER, _PROTOCOL, _STUDY_DESCRIPTION, _PATIENT_ORIENTATION = 0x00400512, 0x00181030, 0x00081030, 0x00200020
_REQUESTED_PROCEDURE, _PERFORMED_STEP = 0x00321060, 0x00400254
_BREAST_IMPLANT, _CONTRAST_AGENT = 0x00281300, 0x00180010
_TO_DETECTOR, _TO_PATIENT = 0x00181110, 0x00181111
TAGS = frozenset(
    [
        *(_IMAGE_TYPE, tags.SOP_CLASS, _INTENT, _SERIES_DESCRIPTION, _BODY_PART, _MAGNIFICATION, _PADDLE, _PROCESSING),
        *(_VIEW_POSITION, _QUALITY_CONTROL, _PARTIAL_VIEW, _CONTAINER, _PROTOCOL),
        *(_STUDY_DESCRIPTION, _REQUESTED_PROCEDURE, _PERFORMED_STEP),
        *(_PATIENT_ORIENTATION, _BREAST_IMPLANT, tags.CHARSET),
        *(_CONTRAST_AGENT, _TO_DETECTOR, _TO_PATIENT, tags.IMAGE_LATERALITY, tags.LATERALITY),
    ]
)
_REGIONS, _BIOPSY_TARGET, _SPECIMEN, _VIEWS, _MODIFIERS = 0x00082218, 0x00182041, 0x00400560, 0x00540220, 0x00540222
SEQUENCES = frozenset([_REGIONS, _BIOPSY_TARGET, _SPECIMEN, _VIEWS])
_TAGS, _SEQUENCES = tuple(sorted(TAGS)), tuple(sorted(SEQUENCES))
_MEANING, _LONG_CODE_VALUE = 0x00080104, 0x00080119
_NOT_READ, _ESCAPE = "\ufffd", b"\x1b"
_OF_CODE = frozenset([tags.CODE_VALUE, _MEANING, _LONG_CODE_VALUE])


def read_content(header: Header, *, modality: str, view: str = "") -> Content:
    """What an image shows.

    Parameters
    ----------
    header
        Read with `TAGS` and `SEQUENCES`.
    modality
        Its modality.
    view
        What a data set's own table says of the view, which stands over the file's own.
    """
    raw = _Raw(
        tuple(header.values.get(tag, b"") for tag in _TAGS),
        tuple(header.sequences.get(tag, b"") for tag in _SEQUENCES),
        header.implicit,
        header.little_endian,
    )
    content = _content(raw, modality)
    return replace(content, view=view_from_text(view)) if view else content


class _Raw(NamedTuple):
    """What a header has at `_TAGS` and `_SEQUENCES`: the same in most files of a scanner."""

    values: tuple[bytes, ...]
    sequences: tuple[bytes, ...]
    implicit: bool
    little_endian: bool


@lru_cache(maxsize=256)
def _content(header: _Raw, modality: str) -> Content:
    views = _items(header, _VIEWS)
    return derive_content(
        HeaderText(
            modality=modality,
            sop_class=_text(header, tags.SOP_CLASS),
            view_position=_text(header, _VIEW_POSITION),
            views=[code for item in views if (code := _code(header, item)) is not None],
            view_modifiers=[
                code
                for item in views
                for modifier in _nested(header, item.get(_MODIFIERS, b""))
                if (code := _code(header, modifier)) is not None
            ],
            body_part=_text(header, _BODY_PART),
            regions=[code for item in _items(header, _REGIONS) if (code := _code(header, item)) is not None],
            intent=_text(header, _INTENT),
            image_type=_texts(header, _IMAGE_TYPE),
            quality_control=_text(header, _QUALITY_CONTROL),
            partial_view=_text(header, _PARTIAL_VIEW),
            breast_implant=_text(header, _BREAST_IMPLANT),
            descriptions=[_text(header, tag) for tag in (_SERIES_DESCRIPTION, _PROTOCOL, _PROCESSING, _PADDLE)],
            study=_study(header),
            orientation=_texts(header, _PATIENT_ORIENTATION),
            lateralities=[_text(header, tag) for tag in (tags.IMAGE_LATERALITY, tags.LATERALITY)],
            magnification=_number(header, _MAGNIFICATION) or _magnification(header),
            contrast_agent=_text(header, _CONTRAST_AGENT),
            has_specimen=bool(header.sequences[_SEQUENCES.index(_SPECIMEN)]) or bool(_text(header, _CONTAINER)),
            has_biopsy_target=bool(header.sequences[_SEQUENCES.index(_BIOPSY_TARGET)]),
        )
    )


def _texts(header: _Raw, tag: int) -> list[str]:
    """All values of an element of characters, in capitals and without accents."""
    return [part.strip(" \0\t\r\n") for part in _folded(header, header.values[_TAGS.index(tag)]).split("\\")]


def _folded(header: _Raw, raw: bytes) -> str:
    """A text in the file's character set, else in UTF-8 or Latin-1, folded."""
    if raw.isascii() and _ESCAPE not in raw:
        return raw.decode("ascii").upper()
    charset = header.values[_TAGS.index(tags.CHARSET)].decode("ascii", "replace").strip(" \0")
    text = _NOT_READ
    if charset:
        silence_decoders()
        with contextlib.suppress(LookupError, ValueError):
            text = decode_bytes(raw, convert_encodings(charset.split("\\")), set())
    if _NOT_READ in text:  # no character set named, or a wrong one
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    return fold_text(text)


def _text(header: _Raw, tag: int) -> str:
    return _texts(header, tag)[0]


def _study(header: _Raw) -> str:
    """What the study is called: by its description, else by the procedure that was requested or performed."""
    named = (_text(header, tag) for tag in (_STUDY_DESCRIPTION, _REQUESTED_PROCEDURE, _PERFORMED_STEP))
    return next(filter(None, named), "")


def _number(header: _Raw, tag: int) -> float | None:
    try:
        return float(_text(header, tag))
    except ValueError:
        return None


def _magnification(header: _Raw) -> float | None:
    """Of the plane where the patient lies, by the source's distances; None where they are not given."""
    to_detector, to_patient = _number(header, _TO_DETECTOR), _number(header, _TO_PATIENT)
    return to_detector / to_patient if to_detector and to_patient and to_patient > 0 else None


def _items(header: _Raw, tag: int) -> list[dict[int, bytes]]:
    return _nested(header, header.sequences[_SEQUENCES.index(tag)])


def _nested(header: _Raw, raw: bytes) -> list[dict[int, bytes]]:
    """The items of a sequence of codes; none of one that cannot be read, which then says nothing."""
    try:
        return sequence_items(
            raw,
            implicit=header.implicit,
            little_endian=header.little_endian,
            wanted=_OF_CODE,
            sequences=frozenset([_MODIFIERS]),
        )
    except (Malformed, EndsEarly):
        return []


def _code(header: _Raw, item: dict[int, bytes]) -> Code | None:
    value, long, meaning = (
        _folded(header, item.get(tag, b"")).strip(" \0") for tag in (tags.CODE_VALUE, _LONG_CODE_VALUE, _MEANING)
    )
    return Code(value=value or long, meaning=meaning) if value or long or meaning else None
