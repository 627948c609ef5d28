"""DICOM headers to facts, DICOM files to images. Every value is a stranger's: nothing here trusts one."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, pixel_array

from fedage.client.cohort.ages import Age, age_at_exam
from fedage.client.cohort.reasons import Reason
from fedage.common.estimators.base import Image

_HEADER_TAGS = [
    "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "SeriesDate", "AcquisitionDate",
    "ContentDate", "StudyInstanceUID", "SOPInstanceUID", "Modality", "Manufacturer", "ViewPosition",
    "ImageLaterality", "Laterality", "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames",
    "PhotometricInterpretation",
]  # fmt: skip
_DEFERRED_BYTES = 1024
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class Facts:
    """What the store keeps of a header; identifiers are still in the clear here and hashed by the caller."""

    patient_id: str
    study_uid: str
    sop_uid: str
    age: Age
    is_male: float | None
    modality: str
    manufacturer: str
    view: str
    laterality: str
    rows: int
    columns: int
    photometric: str
    transfer_syntax: str


class Undecodable(ValueError):
    """A file's pixels cannot be decoded; `.code` may be counted and reported."""

    code = "undecodable"


def quiet() -> None:
    """Silence pydicom for this process: its messages quote header values, which may be identifiers."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\.")


def read_facts(path: Path) -> Facts | Reason:
    """The facts of one file, or why it is set aside. Never raises for what is in the file."""
    quiet()
    try:
        dataset = pydicom.dcmread(path, defer_size=_DEFERRED_BYTES)
        return _facts(dataset, file_bytes=path.stat().st_size)
    except InvalidDicomError:
        return Reason.NOT_DICOM
    except (EOFError, BytesLengthError):
        return Reason.TRUNCATED
    except Exception:  # noqa: BLE001 - a damaged header may raise anything; its text may hold an identifier
        return Reason.UNREADABLE


# pydicom says so in a subclass of ValueError that has moved between releases.
BytesLengthError = getattr(pydicom.errors, "BytesLengthException", EOFError)


def load_image(path: Path) -> Image:
    """Decode one file: modality transform applied, brighter is denser, first frame of several.

    Raises
    ------
    Undecodable
        If the pixels cannot be decoded, whatever the cause; the message names only the kind of error.
    """
    quiet()
    try:
        dataset = pydicom.dcmread(path)
        pixels = pixel_array(dataset, index=0 if int(dataset.get("NumberOfFrames") or 1) > 1 else None)
        grey = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float32)
        if grey.ndim == 3:
            grey = grey.mean(axis=-1)
        if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
            grey = grey.max() + grey.min() - grey
        return Image(
            pixels=grey,
            spacing_mm=_spacing(dataset),
            modality=_text(dataset, "Modality"),
            view=_text(dataset, "ViewPosition"),
        )
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; its text may quote the header
        raise Undecodable(type(error).__name__) from None


def _facts(dataset: Dataset, *, file_bytes: int) -> Facts | Reason:
    if not any(name in dataset for name in _PIXELS):
        return Reason.NO_PIXELS
    sop, patient = _text(dataset, "SOPInstanceUID"), _text(dataset, "PatientID")
    if not sop:
        return Reason.NO_IDENTITY
    if not patient:
        return Reason.NO_PATIENT_ID
    if _too_short(dataset, file_bytes=file_bytes):
        return Reason.TRUNCATED
    dates = tuple(_text(dataset, name) for name in ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate"))
    age = age_at_exam(
        birth=_text(dataset, "PatientBirthDate"), exam_dates=dates, patient_age=_text(dataset, "PatientAge")
    )
    if age is None:
        return Reason.NO_AGE
    if not age.plausible:
        return Reason.IMPLAUSIBLE_AGE
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "")
    return Facts(
        patient_id=patient,
        study_uid=_text(dataset, "StudyInstanceUID") or sop,
        sop_uid=sop,
        age=age,
        is_male={"M": 1.0, "F": 0.0}.get(_text(dataset, "PatientSex").upper()),
        modality=_text(dataset, "Modality").upper(),
        manufacturer=_text(dataset, "Manufacturer")[:64],
        view=_text(dataset, "ViewPosition").upper(),
        laterality=(_text(dataset, "ImageLaterality") or _text(dataset, "Laterality")).upper(),
        rows=_number(dataset, "Rows"),
        columns=_number(dataset, "Columns"),
        photometric=_text(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(syntax),
    )


def _too_short(dataset: Dataset, *, file_bytes: int) -> bool:
    """Whether uncompressed pixels have fewer bytes than their header promises."""
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None or syntax.is_compressed:
        return False
    bits = _number(dataset, "BitsAllocated") or 8
    samples, frames = _number(dataset, "SamplesPerPixel") or 1, _number(dataset, "NumberOfFrames") or 1
    promised = _number(dataset, "Rows") * _number(dataset, "Columns") * samples * frames * bits // 8
    return file_bytes < promised


def _spacing(dataset: Dataset) -> tuple[float, float]:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(name)
        if value is not None and len(value) == 2 and float(value[0]) > 0 and float(value[1]) > 0:
            return float(value[0]), float(value[1])
    return 1.0, 1.0


def _text(dataset: Dataset, name: str) -> str:
    value: Any = dataset.get(name)
    return "" if value is None else str(value).strip()


def _number(dataset: Dataset, name: str) -> int:
    try:
        return int(dataset.get(name) or 0)
    except (TypeError, ValueError):
        return 0
