"""A DICOM file as pydicom's data set, for pixels and functional groups, which `header` does not convert.

A deflated file is inflated within limits first, and a file without a meta group gets its transfer syntax.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fedage.client.cohort.dicom.geometry import Stack, build_stack
from fedage.client.cohort.dicom.header import DEFLATED, inflate, meta_syntax
from fedage.client.cohort.reasons import Reason

_FUNCTIONAL_GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]


def parse(stream: BinaryIO, *, pixels: bool, only: list[str] | None = None) -> Dataset:
    """Read a data set.

    Parameters
    ----------
    stream
        The file, from its beginning or not.
    pixels
        Whether to read the pixel data too.
    only
        Keywords to read; all by default.
    """
    syntax, start = meta_syntax(stream)
    if syntax == DEFLATED:
        body = b"\0" * 128 + b"DICM" + inflate(stream, start=start)  # explicit VR, without a file meta group
        return _completed(_read(io.BytesIO(body), pixels=pixels, only=only), ExplicitVRLittleEndian)
    stream.seek(0)
    ds = _read(stream, pixels=pixels, only=only)
    if syntax:
        return ds
    implicit, little = ds.original_encoding
    if implicit:
        return _completed(ds, ImplicitVRLittleEndian)
    return _completed(ds, ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _read(stream: BinaryIO, *, pixels: bool, only: list[str] | None) -> Dataset:
    specific = None if only is None else list[str | int](only)
    return pydicom.dcmread(stream, force=True, stop_before_pixels=not pixels, specific_tags=specific)  # type: ignore[arg-type]


def _completed(ds: Dataset, syntax: str) -> Dataset:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return ds


def frames_stack(stream: BinaryIO) -> Stack | Reason:
    """The stack that an enhanced object's frames make by their functional groups (PS3.3 section C.7.6.16)."""
    ds = parse(stream, pixels=False, only=_FUNCTIONAL_GROUPS)
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    frames = ds.get("PerFrameFunctionalGroupsSequence") or []

    def values(frame: Dataset, group: str, keyword: str) -> list[float]:
        for groups in (frame, shared[0]):
            if (items := groups.get(group)) and (value := items[0].get(keyword)) is not None:
                return [float(part) for part in value]
        raise LookupError(keyword)

    try:
        return build_stack(
            np.array([values(frame, "PlanePositionSequence", "ImagePositionPatient") for frame in frames]),
            np.array([values(frame, "PlaneOrientationSequence", "ImageOrientationPatient") for frame in frames]),
            np.array([values(frame, "PixelMeasuresSequence", "PixelSpacing") for frame in frames]),
        )
    except (LookupError, ValueError, TypeError, IndexError):
        return Reason.NO_GEOMETRY
