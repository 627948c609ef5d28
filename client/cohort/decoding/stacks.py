"""A volume from the slices of an enhanced object, or of a series of single files.

Estimators whose input is a volume get it turned to the axes of the patient (`exams`). Indexing has judged by the
headers alone what is put together here; `CohortStore.slices` has the files of a series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from fedage.client.cohort.decoding.archive import open_image
from fedage.client.cohort.decoding.decoder_messages import ENHANCED, SLICE
from fedage.client.cohort.decoding.decoder_pool import MAX_ARRAY_VALUES, decode_array
from fedage.client.cohort.decoding.images import stored_frame
from fedage.client.cohort.decoding.stored_values import StoredValues, stored_values, with_background
from fedage.client.cohort.dicom.dataset import frames_stack, parse
from fedage.client.cohort.dicom.decoder_logs import silence_decoders
from fedage.client.cohort.dicom.geometry import Stack, build_stack
from fedage.client.cohort.dicom.pixel_checks import MAX_FRAME_SAMPLES
from fedage.client.cohort.reasons import Reason
from fedage.common.preprocessing.image import SampleRefused

MAX_VOLUME_SAMPLES = MAX_ARRAY_VALUES


@dataclass(frozen=True)
class Volume:
    """A stack of slices.

    Parameters
    ----------
    voxels
        (F, H, W) float32 on the modality's scale, slices along the normal.
    stack
        Where they lie.
    """

    voxels: NDArray[np.float32]
    stack: Stack


def load_enhanced(path: Path) -> Volume:
    """The volume of an enhanced MR, CT or PET file, decoded in a process of its own.

    Raises
    ------
    SampleRefused
        With the reason code of what is wrong with the stack, `too-large`, `undecodable` or `decoder-failed`. Never any
        other exception.
    """
    silence_decoders()
    with _as_refusals():
        with open_image(path) as stream:
            stack = _even(frames_stack(stream))
        return _volume(decode_array(ENHANCED, path)[0], stack)


def load_series(paths: Sequence[Path]) -> Volume:
    """The volume of a series of single files, in any order; each is decoded by itself, in a process of its own.

    Raises
    ------
    SampleRefused
        As `load_enhanced`.
    """
    silence_decoders()
    with _as_refusals():
        headers = [_header(path) for path in paths]
        stack = _even(_stack(headers))
        _check_size(len(paths), headers[0].Rows, headers[0].Columns)
        return _volume(np.stack([decode_array(SLICE, paths[index])[0] for index in stack.order]), stack)


def decode_enhanced(path: Path, *, on_size: Callable[[int], None]) -> NDArray[np.float32]:
    """The voxels (F, H, W) of an enhanced file along the normal, NaN for padding; what the decoder's process does.

    Raises
    ------
    SampleRefused
        As `load_enhanced`.
    """
    silence_decoders()
    with _as_refusals(), open_image(path) as stream:
        stack = _even(frames_stack(stream))
        header = parse(stream, pixels=False)
        _check_size(len(stack.order), header.Rows, header.Columns)
        on_size(len(stack.order) * int(header.Rows) * int(header.Columns))
        frames = pixel_array(parse(stream, pixels=True), correct_unused_bits=False)
        if len(frames) != len(stack.order):
            raise SampleRefused(Reason.NO_GEOMETRY, "the functional groups are not one a frame")
        voxels = np.empty((len(stack.order), int(header.Rows), int(header.Columns)), dtype=np.float32)
        for place, index in enumerate(stack.order):
            stored = stored_values(frames[index], header)
            voxels[place] = _without_padding(_rescaled(stored.values, header, index), stored)
        return voxels


def decode_slice(path: Path, *, on_size: Callable[[int], None]) -> NDArray[np.float32]:
    """The voxels (H, W) of one file of a series, NaN for padding; what the decoder's process does.

    Raises
    ------
    SampleRefused
        As `load_enhanced`.
    """
    silence_decoders()
    with _as_refusals(), open_image(path) as stream:
        header = parse(stream, pixels=False)
        _check_size(1, header.Rows, header.Columns)
        on_size(int(header.Rows) * int(header.Columns))
        stored = stored_frame(stream, header)
        return _without_padding(apply_modality_lut(stored.values, header).astype(np.float32), stored)


@contextmanager
def _as_refusals() -> Iterator[None]:
    """Whatever goes wrong as a `SampleRefused`."""
    try:
        yield
    except SampleRefused:
        raise
    except MemoryError:
        raise SampleRefused(Reason.DECODER_FAILED, "it needs more memory than an image of its size") from None
    except Exception as error:  # noqa: BLE001 (what hostile files raise in decoders cannot be listed)
        raise SampleRefused("undecodable", type(error).__name__) from None


def _volume(voxels: NDArray[np.float32], stack: Stack) -> Volume:
    """The volume of voxels (F, H, W) that are NaN where padding is."""
    if voxels.ndim != 3 or len(voxels) != len(stack.order):
        raise SampleRefused(Reason.NO_GEOMETRY, "the functional groups are not one a frame")
    return Volume(with_background(voxels, np.isnan(voxels)), stack)


def _without_padding(values: NDArray[np.float32], stored: StoredValues) -> NDArray[np.float32]:
    if stored.is_padding is not None:
        values[stored.is_padding] = np.nan
    return values


def _header(path: Path) -> Dataset:
    with open_image(path) as stream:
        return parse(stream, pixels=False)


def _stack(headers: Sequence[Dataset]) -> Stack | Reason:
    try:
        return build_stack(
            np.array([[float(part) for part in header.ImagePositionPatient] for header in headers]),
            np.array([[float(part) for part in header.ImageOrientationPatient] for header in headers]),
            np.array([[float(part) for part in header.PixelSpacing] for header in headers]),
        )
    except (AttributeError, ValueError, TypeError):
        return Reason.NO_GEOMETRY


def _even(stack: Stack | Reason) -> Stack:
    if isinstance(stack, Reason):
        raise SampleRefused(stack, stack.description)
    return stack


def _check_size(slices: int, rows: int, columns: int) -> None:
    if rows * columns > MAX_FRAME_SAMPLES or slices * rows * columns > MAX_VOLUME_SAMPLES:
        raise SampleRefused("too-large", f"more than {MAX_VOLUME_SAMPLES} voxels")


def _rescaled(frame: NDArray[np.generic], header: Dataset, index: int) -> NDArray[np.float32]:
    """A frame through its own rescale of the functional groups (PixelValueTransformationSequence)."""
    values = frame.astype(np.float32)
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    for groups in (header.PerFrameFunctionalGroupsSequence[index], shared[0]):
        if groups is not None and (transform := groups.get("PixelValueTransformationSequence")):
            return values * np.float32(transform[0].RescaleSlope) + np.float32(transform[0].RescaleIntercept)
    return values
