"""Decode one image: pixels on the modality's scale, brighter is denser, with their spacing.

`load_image` has it done in a process of its own (`decoder_pool`), `decode_image` is what that process does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from fedage.client.cohort.decoding.archive import open_image
from fedage.client.cohort.decoding.decoder_messages import IMAGE
from fedage.client.cohort.decoding.decoder_pool import decode_array
from fedage.client.cohort.decoding.stored_values import StoredValues, stored_range, stored_values, with_background
from fedage.client.cohort.dicom.dataset import parse
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.pixel_checks import MAX_FRAME_SAMPLES
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.sop_classes import normalise_modality
from fedage.client.cohort.store.series import is_volume
from fedage.common.preprocessing.image import Image, SampleRefused

UNKNOWN_SPACING_MM = (1.0, 1.0)
_SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_FEWEST_SHADES = 0.05
"""Of the pixels, between the darkest and the brightest; collimated films have a quarter."""
_PROJECTIONS = frozenset(["CR", "DX", "MG", "IO", "PX", "RG", "RF", "XA"])
"""Modalities whose values mean little before the VOI LUT; elsewhere it is one of many ways to view an image."""


def load_image(path: Path) -> Image:
    """Decode a DICOM file of one grey frame, in a folder or in an archive, in a process of its own.

    Raises
    ------
    SampleRefused
        As `decode_image`, or `decoder-failed`: the decoder needed more memory or time than an image of this size may,
        or failed in a way of its own. Never any other exception.
    """
    pixels, about = decode_array(IMAGE, path)
    row, column = about["spacing_mm"]
    return Image(
        pixels=pixels,
        spacing_mm=(float(row), float(column)),
        modality=str(about["modality"]),
        view=str(about["view"]),
    )


def decode_image(path: Path, *, on_size: Callable[[int], None] | None = None) -> Image:
    """Decode a DICOM file of one grey frame here; `on_size` is told of the values in its frame before they are.

    The modality LUT or rescale is applied, for projections the first VOI LUT or window too. MONOCHROME1 is turned
    round on the scale that its stored bits span, not the values that happen to occur, so that the same tissue gives
    the same value in every image of a scanner. Padding pixels get the lowest
    value inside the image. Where no spacing is given it is (1, 1) mm; the store's `spacing_known` says so.

    Raises
    ------
    SampleRefused
        With the code `undecodable`, `too-large`, `colour`, `multi-frame`, `contradictory-bits`, `only-padding`,
        `bad-voi-lut`, `contradictory-polarity` or, where memory is limited and it needs more, `decoder-failed`. Never
        any other exception.
    """
    silence_decoders()
    if is_volume(path.name):
        raise SampleRefused("multi-frame", "a series of slices; one image is read")
    try:
        with open_image(path) as stream:
            header = parse(stream, pixels=False)
            _require_readable(header)
            if on_size is not None:
                on_size(int(header.Rows) * int(header.Columns))
            stored = stored_frame(stream, header)
            pixels = _grey(stored.values, header)
            if _modality(header) in _PROJECTIONS:
                _require_one_polarity(header)
                if _has_voi(header):
                    _require_shades(pixels, stored.values)
            pixels = with_background(pixels, stored.is_padding)
        return Image(
            pixels=np.ascontiguousarray(pixels, dtype=np.float32),
            spacing_mm=_spacing_mm(header),
            modality=_modality(header),
            view=str(header.get("ViewPosition", "") or "").upper(),
        )
    except SampleRefused:
        raise
    except MemoryError:
        raise SampleRefused(Reason.DECODER_FAILED, "it needs more memory than an image of its size") from None
    except Exception as error:  # noqa: BLE001 (what hostile files raise in decoders cannot be listed)
        raise SampleRefused("undecodable", type(error).__name__) from None


def stored_frame(stream: BinaryIO, header: Dataset, *, index: int = 0) -> StoredValues:
    """The stored values (H, W) of one frame."""
    # All bits of a word: pydicom would drop the upper ones whatever HighBit says, and with them the mark of padding.
    words = pixel_array(parse(stream, pixels=True), index=index, correct_unused_bits=False)
    return stored_values(words, header)


def _require_readable(header: Dataset) -> None:
    samples = header.get("SamplesPerPixel", 1)
    if header.Rows * header.Columns * samples > MAX_FRAME_SAMPLES:
        raise SampleRefused("too-large", f"more than {MAX_FRAME_SAMPLES} values in a frame")
    if samples != 1 or not str(header.PhotometricInterpretation).startswith("MONOCHROME"):
        raise SampleRefused("colour", "a colour image; grey values are read")
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise SampleRefused("multi-frame", "several frames; one is read")


def _grey(stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    pixels = _apply_luts(stored, header)
    if str(header.PhotometricInterpretation) == "MONOCHROME1":
        lowest, highest = _apply_luts(np.array(stored_range(header)), header).astype(np.float64)
        pixels = (lowest + highest) - pixels
    return pixels


def _apply_luts(stored: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Stored values through the modality LUT and, for projections, the first VOI LUT (PS3.3 section C.11.2)."""
    values: NDArray[Any] = apply_modality_lut(stored, header)
    if _modality(header) not in _PROJECTIONS or not _has_voi(header):
        return values
    try:
        displayed: NDArray[Any] = apply_voi_lut(values, header)
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
        raise SampleRefused("bad-voi-lut", type(error).__name__) from None
    return displayed


def _require_shades(pixels: NDArray[Any], stored: NDArray[Any]) -> None:
    """Refuse an image that its window made black and white: such windows are placeholders, or another image's."""
    inside = np.mean((pixels > pixels.min()) & (pixels < pixels.max()))
    if inside < _FEWEST_SHADES <= np.mean((stored > stored.min()) & (stored < stored.max())):
        raise SampleRefused("bad-voi-lut", "the window makes nearly all of the image black or white")


def _require_one_polarity(header: Dataset) -> None:
    """Refuse an image of which one element says that brighter is denser and another the opposite.

    MONOCHROME2 goes with the shape IDENTITY, and MONOCHROME1 with INVERSE (PS3.3 section C.8.11.3). Values for
    processing rise with the beam where PixelIntensityRelationshipSign is 1, so that MONOCHROME1 turns them round.
    """
    turned = str(header.PhotometricInterpretation) == "MONOCHROME1"
    shape = str(header.get("PresentationLUTShape", "") or "").upper()
    for_processing = "PROCESSING" in str(header.get("PresentationIntentType", "") or "").upper()
    sign = _first(header.get("PixelIntensityRelationshipSign")) if for_processing else None
    if (shape == "INVERSE" and not turned) or (sign in (-1, 1) and turned != (sign == 1)):
        raise SampleRefused("contradictory-polarity", "whether brighter is denser is said in two ways")


def _has_voi(header: Dataset) -> bool:
    """Whether there is a table, or a window that is more than a placeholder of width 0."""
    if header.get("VOILUTSequence"):
        return True
    centre, width = (_first(header.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction", "") or "LINEAR").upper()
    return centre is not None and width is not None and (width >= 1 if function == "LINEAR" else width > 0)


def _first(value: Any) -> float | None:
    try:
        return float(value if not hasattr(value, "__iter__") or isinstance(value, str) else value[0])
    except (TypeError, ValueError, IndexError):
        return None


def _modality(header: Dataset) -> str:
    return normalise_modality(str(header.get("Modality", "") or ""))


def _spacing_mm(header: Dataset) -> tuple[float, float]:
    for keyword in _SPACING_KEYWORDS:
        value = header.get(keyword)
        try:
            row, column = (float(part) for part in value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0:
            return row, column
    try:  # at least the shape of a pixel
        row, column = (float(part) for part in header.get("PixelAspectRatio"))
        return (row / column, 1.0) if 0.1 < row / column < 10 else UNKNOWN_SPACING_MM
    except (TypeError, ValueError, ZeroDivisionError):
        return UNKNOWN_SPACING_MM
