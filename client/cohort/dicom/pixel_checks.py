"""Why a DICOM file's pixels cannot be used, judged by its header and lengths alone; nothing is decoded."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import BinaryIO

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGExtended12Bit, RLELossless

from fedage.client.cohort.dicom import tags
from fedage.client.cohort.dicom.dataset import frames_stack
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.geometry import Stack
from fedage.client.cohort.dicom.header import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Header,
    PixelElement,
)
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.sop_classes import DICOMDIR, is_derived, is_stack, is_without_image, normalise_modality

MAX_FRAME_SAMPLES = 150_000_000
"""Most values of one frame that are ever decoded: six times the largest mammogram."""
_UNCOMPRESSED = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_MAX_FRAGMENTS = 100_000


def modality_of(header: Header) -> str:
    """The image's modality."""
    return normalise_modality(header.text(tags.MODALITY))


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


def kind_problem(header: Header) -> Reason | None:
    """Why an object of this kind is no image for an age model."""
    sop_class = header.text(tags.SOP_CLASS) or header.media_class
    if DICOMDIR in (sop_class, header.media_class):
        return Reason.DIRECTORY
    if is_derived(sop_class):
        return Reason.DERIVED_OBJECT
    if header.pixels is None or header.pixels.length == 0:
        return Reason.NOT_AN_IMAGE if is_without_image(sop_class, modality_of(header)) else Reason.NO_PIXELS
    return None


def pixel_problem(header: Header) -> Reason | None:
    """Why the pixels cannot be used, as far as header and lengths tell."""
    if not decodable(header.transfer_syntax, bits=header.unsigned_short(tags.BITS_ALLOCATED)):
        return Reason.UNSUPPORTED_TRANSFER_SYNTAX
    pixels, rows, columns, frames = (
        header.pixels,
        header.unsigned_short(tags.ROWS),
        header.unsigned_short(tags.COLUMNS),
        frame_count(header),
    )
    if pixels is None or not rows or not columns:
        return Reason.NO_PIXELS
    if frames is None:
        return Reason.UNREADABLE
    samples = header.unsigned_short(tags.SAMPLES) or 1
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
    stored = header.unsigned_short(tags.BITS_STORED)
    if pixels.tag in _FLOAT_BITS or not stored:
        return False
    allocated = header.unsigned_short(tags.BITS_ALLOCATED)
    high = header.unsigned_short(tags.HIGH_BIT) if tags.HIGH_BIT in header.values else stored - 1
    lowest = high + 1 - stored
    is_word_aligned = header.transfer_syntax in (*_UNCOMPRESSED, RLELossless)
    return not 0 <= lowest <= (allocated - stored if is_word_aligned else 0)


def _content_problem(header: Header, *, samples: int, frames: int) -> Reason | None:
    """Why whole pixels show what no model here reads."""
    if samples != 1 or not header.text(tags.PHOTOMETRIC).upper().startswith("MONOCHROME"):
        return Reason.COLOUR
    if header.text(tags.BURNED_IN).upper() == "YES":
        return Reason.BURNED_IN
    if frames == 1:
        return None
    if not is_stack(header.text(tags.SOP_CLASS)):
        return Reason.MULTI_FRAME
    silence_decoders()
    stack = frames_stack(header.stream)
    if isinstance(stack, Stack):
        return None if len(stack.order) == frames else Reason.NO_GEOMETRY
    return stack


def _native_length_problem(header: Header, pixels: PixelElement, *, frame: int, frames: int) -> Reason | None:
    """Compare with the length that PS3.5 section 8.1.1 implies: values of a frame × frames × bits, in bytes."""
    bits = _FLOAT_BITS.get(pixels.tag) or header.unsigned_short(tags.BITS_ALLOCATED)
    if bits not in (1, 8, 16, 32, 64) or pixels.length == UNDEFINED:
        return Reason.UNREADABLE
    expected = math.ceil(frame * frames * bits / 8)
    if header.text(tags.PHOTOMETRIC) == "YBR_FULL_422":
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


def frame_count(header: Header) -> int | None:
    """Number of frames, 1 where the file does not say; None if it is no number."""
    text = header.text(tags.FRAMES) or "1"
    return max(int(text), 1) if text.isascii() and text.isdigit() else None
