"""A volume from the slices of an enhanced object, or of a series of single files.

No estimator reads DICOM volumes yet: campaigns of flat images leave them out. Indexing has judged by the headers alone
what is put together here; `CohortStore.slices` has the files of a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from fedage.client.cohort.archive import open_image
from fedage.client.cohort.dicom import MAX_FRAME_SAMPLES
from fedage.client.cohort.geometry import Stack, stack_of
from fedage.client.cohort.images import stored_frame
from fedage.client.cohort.parsed import frames_stack, parse
from fedage.client.cohort.quiet import quiet_pydicom
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.stored_values import StoredValues, stored_values, with_background
from fedage.common.image import SampleRefused

MAX_VOLUME_SAMPLES = 1_000_000_000


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
    """The volume of an enhanced MR, CT or PET file.

    Raises
    ------
    SampleRefused
        With the reason code of what is wrong with the stack, `too-large` or `undecodable`.
    """
    quiet_pydicom()
    try:
        with open_image(path) as stream:
            stack = _even(frames_stack(stream))
            header = parse(stream, pixels=False)
            _check_size(len(stack.order), header.Rows, header.Columns)
            frames = pixel_array(parse(stream, pixels=True), correct_unused_bits=False)
            if len(frames) != len(stack.order):
                raise SampleRefused(Reason.NO_GEOMETRY, "the functional groups are not one a frame")
            stored = [stored_values(frames[index], header) for index in stack.order]
            scaled = [_rescaled(one.values, header, index) for one, index in zip(stored, stack.order, strict=True)]
            padding = np.stack([_padding_or_none(one) for one in stored])
        return Volume(with_background(np.stack(scaled), padding), stack)
    except SampleRefused:
        raise
    except Exception as error:  # noqa: BLE001 (what hostile files raise in decoders cannot be listed)
        raise SampleRefused("undecodable", type(error).__name__) from None


def load_series(paths: Sequence[Path]) -> Volume:
    """The volume of a series of single files, in any order.

    Raises
    ------
    SampleRefused
        As `load_enhanced`.
    """
    quiet_pydicom()
    try:
        headers = [_header(path) for path in paths]
        stack = _even(_stack(headers))
        _check_size(len(paths), headers[0].Rows, headers[0].Columns)
        slices, padding = [], []
        for index in stack.order:
            with open_image(paths[index]) as stream:
                stored = stored_frame(stream, headers[index])
            slices.append(apply_modality_lut(stored.values, headers[index]).astype(np.float32))
            padding.append(_padding_or_none(stored))
        return Volume(with_background(np.stack(slices), np.stack(padding)), stack)
    except SampleRefused:
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        raise SampleRefused("undecodable", type(error).__name__) from None


def _padding_or_none(stored: StoredValues) -> NDArray[np.bool_]:
    return np.zeros(stored.values.shape, dtype=np.bool_) if stored.is_padding is None else stored.is_padding


def _header(path: Path) -> Dataset:
    with open_image(path) as stream:
        return parse(stream, pixels=False)


def _stack(headers: Sequence[Dataset]) -> Stack | Reason:
    try:
        return stack_of(
            np.array([[float(part) for part in header.ImagePositionPatient] for header in headers]),
            np.array([[float(part) for part in header.ImageOrientationPatient] for header in headers]),
            np.array([[float(part) for part in header.PixelSpacing] for header in headers]),
        )
    except (AttributeError, ValueError, TypeError):
        return Reason.NO_GEOMETRY


def _even(stack: Stack | Reason) -> Stack:
    if isinstance(stack, Reason):
        raise SampleRefused(stack, stack.what)
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
