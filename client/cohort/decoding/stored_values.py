"""From the decoded words of one frame to its stored values: unused bits removed, padding pixels marked.

PS3.5 section 8.1.1: a stored value occupies `BitsStored` bits of a word, the highest of which is bit `HighBit`; a sound
file has HighBit = BitsStored − 1. Where values lie higher (HighBit 15, BitsStored 12) they are shifted right. The other
bits of a word are unused or hold an overlay (PS3.5 section 8.1.2). What contradicts this is refused, because masking or
shifting would read other values than the scanner wrote.

PS3.3 section C.7.5.1.1.2: pixels of the value PixelPaddingValue, or between it and PixelPaddingRangeLimit (either may
be the larger one), are outside the image. They are compared before any look-up table or rescale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

from fedage.common.preprocessing.image import SampleRefused

Mask = NDArray[np.bool_]

_RIGHT_ALIGNED = frozenset((*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes))
"""Codestreams that state their own precision: the decoder's values are the stored ones."""
_OVERLAY_GROUPS = range(0x6000, 0x6100, 2)
_OVERLAY_POSITION = 0x0102


@dataclass(frozen=True)
class StoredValues:
    """One frame.

    Parameters
    ----------
    values
        (H, W) integers of `BitsStored` bits, or floating-point numbers.
    is_padding
        (H, W), true outside the image; None where the file declares no padding value.
    """

    values: NDArray[Any] = field(repr=False)
    is_padding: Mask | None = field(default=None, repr=False)


def stored_values(words: NDArray[Any], header: Dataset) -> StoredValues:
    """The stored values of a frame.

    Parameters
    ----------
    words
        (H, W) as the decoder gives them, unused bits included.
    header
        The file's data set, without or with its pixels.

    Raises
    ------
    SampleRefused
        `contradictory-bits` if bits are set where the header leaves none.
    """
    if words.dtype.kind not in "iu" or int(header.BitsAllocated) < 8:
        return StoredValues(words)
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    values, cleared = words, words
    if header.file_meta.TransferSyntaxUID not in _RIGHT_ALIGNED:
        values, cleared = _align_values(words, header)
    is_padding = _padding_mask(values, cleared, header)
    if values is not words:
        _check_unused(cleared, header, is_padding=is_padding)
    return StoredValues(values, is_padding)


def with_background(pixels: NDArray[Any], is_padding: Mask | None) -> NDArray[Any]:
    """Set padding pixels to the lowest value inside the image, which is its background where brighter is denser.

    Parameters
    ----------
    pixels
        Any shape, on the scale that an estimator gets.
    is_padding
        The same shape, or None.

    Raises
    ------
    SampleRefused
        `only-padding` if no pixel is inside the image.
    """
    if is_padding is None or not is_padding.any():
        return pixels
    if is_padding.all():
        raise SampleRefused("only-padding", "every pixel has the padding value")
    return np.where(is_padding, pixels[~is_padding].min(), pixels)


def _align_values(words: NDArray[Any], header: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values of `BitsStored` bits shifted to bit 0, sign extended; and the words without declared overlay bits."""
    stored, shift = int(header.BitsStored), _shift(header)
    width = 8 * words.dtype.itemsize
    unsigned = words.view(f"u{words.dtype.itemsize}")
    overlays = sum(1 << bit for bit in _overlay_bits(header) if not shift <= bit < shift + stored)
    cleared = (unsigned & unsigned.dtype.type((1 << width) - 1 - overlays)).view(words.dtype)
    # To the top of the word and back down: arithmetic for signed words, which extends the sign.
    up = width - stored - shift
    return (words << words.dtype.type(up)) >> words.dtype.type(width - stored), cleared


def _shift(header: Dataset) -> int:
    """Position of a value's lowest bit; the index has refused files where it is below 0."""
    stored, high = int(header.BitsStored), header.get("HighBit")
    shift = 0 if high is None else int(high) + 1 - stored
    if not 0 <= shift <= int(header.BitsAllocated) - stored:
        raise SampleRefused("contradictory-bits", f"BitsStored {stored} does not fit HighBit {high}")
    return shift


def _check_unused(cleared: NDArray[Any], header: Dataset, *, is_padding: Mask | None) -> None:
    """Refuse bits outside the stored ones that are neither overlay nor sign nor of padding."""
    stored, shift = int(header.BitsStored), _shift(header)
    inside = cleared if is_padding is None else cleared[~is_padding]
    if shift and (inside & inside.dtype.type((1 << shift) - 1)).any():
        raise SampleRefused("contradictory-bits", f"bits below the lowest of {stored} stored bits are set")
    if 8 * inside.dtype.itemsize == stored + shift:
        return
    high = inside >> inside.dtype.type(stored + shift)
    is_sign = np.zeros(inside.shape, dtype=bool)
    if inside.dtype.kind == "i":
        negative = (inside >> inside.dtype.type(stored + shift - 1)) & inside.dtype.type(1)
        is_sign = (high == -1) & (negative == 1)
    if ((high != 0) & ~is_sign).any():
        raise SampleRefused("contradictory-bits", f"bits above the highest of {stored} stored bits are set")


def _overlay_bits(header: Dataset) -> list[int]:
    """Bits of a word that the header says hold an overlay."""
    tags = ((group, _OVERLAY_POSITION) for group in _OVERLAY_GROUPS)
    positions = (_integer(header[tag].value) for tag in tags if tag in header)
    return [bit for bit in positions if bit is not None]


def _padding_mask(values: NDArray[Any], cleared: NDArray[Any], header: Dataset) -> Mask | None:
    first = _integer(header.get("PixelPaddingValue"))
    if first is None:
        return None
    limit = _integer(header.get("PixelPaddingRangeLimit"))
    bounds = sorted(_as_stored(bound, header) for bound in (first, first if limit is None else limit))
    is_padding = (values >= bounds[0]) & (values <= bounds[1])
    lowest, highest = stored_range(header)
    if (
        bounds[0] < lowest or bounds[1] > highest
    ):  # of the whole word, not of its stored bits: CT writes 63536 in 12 bits
        is_padding |= (cleared >= bounds[0]) & (cleared <= bounds[1])
    return np.asarray(is_padding, dtype=np.bool_)


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _as_stored(bound: int, header: Dataset) -> int:
    """A padding value on the scale of the words, also where its VR (US or SS) contradicts PixelRepresentation."""
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    signed = header.get("PixelRepresentation", 0) == 1
    if not signed:
        return bound % (1 << allocated) if bound < 0 else bound
    word = bound
    if stored < allocated and 1 << (stored - 1) <= word < 1 << stored:
        return word - (1 << stored)  # the pattern of the stored bits alone
    return word - (1 << allocated) if word >= 1 << (allocated - 1) else word


def stored_range(header: Dataset) -> tuple[int, int]:
    """Lowest and highest value that the stored bits can hold."""
    bits = int(header.BitsStored)
    if header.get("PixelRepresentation", 0) == 1:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1
