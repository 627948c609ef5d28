"""Decode one image: pixels on the modality's scale, brighter is denser, with their spacing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from fedage.client.cohort.dicom import MAX_FRAME_SAMPLES
from fedage.client.cohort.quiet import quiet_pydicom
from fedage.common.estimators.base import Image, SampleRefused

UNKNOWN_SPACING_MM = (1.0, 1.0)
_SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_GREY_OF_RGB = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma


def load_image(path: Path) -> Image:
    """Decode the first frame of a DICOM file.

    The modality LUT or rescale is applied; MONOCHROME1 is turned round on the scale of its stored bits, not of the
    values that happen to occur, so that the same tissue gives the same value in every image of a scanner. A colour
    image becomes its luma. Where no spacing is given it is (1, 1) mm; the store's `spacing_known` says so.

    Raises
    ------
    SampleRefused
        With the code `undecodable`, `too-large` or `unsupported-photometric`. Never any other exception.
    """
    quiet_pydicom()
    try:
        return _load(path)
    except SampleRefused:
        raise
    except Exception as error:  # noqa: BLE001 (what hostile files raise in decoders cannot be listed)
        raise SampleRefused("undecodable", type(error).__name__) from None


def _load(path: Path) -> Image:
    with path.open("rb") as stream:
        header = pydicom.dcmread(stream, stop_before_pixels=True)
        if header.Rows * header.Columns * header.get("SamplesPerPixel", 1) > MAX_FRAME_SAMPLES:
            raise SampleRefused("too-large", f"more than {MAX_FRAME_SAMPLES} values in a frame")
        photometric = str(header.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            raise SampleRefused("unsupported-photometric", "palette colour")
        stream.seek(0)
        stored = pixel_array(stream, index=0)
    if stored.ndim == 3:
        pixels = stored.astype(np.float32) @ _GREY_OF_RGB
    else:
        pixels = _on_modality_scale(stored, header)
        if photometric == "MONOCHROME1":
            lowest, highest = _on_modality_scale(_stored_range(header), header)
            pixels = (lowest + highest) - pixels
    return Image(
        pixels=np.ascontiguousarray(pixels, dtype=np.float32),
        spacing_mm=_spacing_mm(header),
        modality=str(header.get("Modality", "")).upper(),
        view=str(header.get("ViewPosition", "") or "").upper(),
    )


def _on_modality_scale(stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    return apply_modality_lut(stored, header)


def _stored_range(header: Dataset) -> NDArray[np.int64]:
    """Lowest and highest value that the stored bits can hold."""
    bits = int(header.BitsStored)
    if header.get("PixelRepresentation", 0) == 1:
        return np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1])
    return np.array([0, 2**bits - 1])


def _spacing_mm(header: Dataset) -> tuple[float, float]:
    for keyword in _SPACING_KEYWORDS:
        value = header.get(keyword)
        try:
            row, column = (float(part) for part in value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0:
            return row, column
    return UNKNOWN_SPACING_MM
