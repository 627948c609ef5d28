"""One patient's exam for an estimator: its images read, volumes turned to the same axes, and made into named arrays.

Volumes have the axes nearest to the patient's right, front and up (RAS+), whether they come from NIfTI, from an
enhanced DICOM object or from a series of slices; nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from fedage.client.cohort.bids.label_maps import VIEW
from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.decoding.nifti import SUFFIXES, load_volume
from fedage.client.cohort.decoding.stacks import Volume, load_enhanced, load_series
from fedage.client.cohort.store.query import EligibleImage
from fedage.common.estimators.base import ROW, Estimator
from fedage.common.estimators.inputs import image_inputs
from fedage.common.preprocessing.image import Exam, FloatImage, Image, SampleRefused

_RAS_OF_DICOM = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient coordinates go to the left and to the back."""


def load_eligible(eligible: EligibleImage, *, root: Path) -> Image:
    """The image or volume that the index found.

    Raises
    ------
    SampleRefused
        As the reader of its kind.
    """
    path = root / eligible.path
    labels = {"modality": eligible.modality, "view": eligible.view, "laterality": eligible.laterality}
    if eligible.path.endswith(SUFFIXES):
        volume = load_volume(path)
        if eligible.view.startswith(VIEW) and not np.array_equal(volume.pixels, np.rint(volume.pixels)):
            raise SampleRefused("not-a-label-map", "it is named as a label map and has values between whole numbers")
        return Image(pixels=volume.pixels, spacing_mm=volume.spacing_mm, orientation="RAS", **labels)
    if eligible.rank == 3:
        stack = load_series([root / file for file in eligible.files]) if eligible.files else load_enhanced(path)
        return _to_ras(stack, labels)
    image = load_image(path)
    return Image(pixels=image.pixels, spacing_mm=image.spacing_mm, **{**labels, "view": image.view or eligible.view})


def arrays_of(
    images: Mapping[str, tuple[EligibleImage, ...]], estimator: Estimator, *, root: Path
) -> tuple[Mapping[str, FloatImage] | None, list[str]]:
    """The arrays of an exam, None if it gives none, and the codes of images refused on the way.

    Of each input the first image that can be read is taken; where the estimator refuses it, the next one. An optional
    input whose images are all refused counts as missing.
    """
    codes: list[str] = []
    inputs = image_inputs(estimator)
    ranks = {one.name: one.rank for one in inputs}
    remaining: dict[str, Iterator[EligibleImage]] = {}
    for name, images_of_input in images.items():
        fitting = [image for image in images_of_input if ranks.get(name, 0) in (0, image.rank)]
        codes += ["not-a-volume" if ranks.get(name) == 3 else "multi-frame"] * (len(images_of_input) - len(fitting))
        remaining[name] = iter(fitting)
    optional = {one.name for one in inputs if one.optional}
    exam: dict[str, Image] = {}
    for name in images:
        if not _load_next(name, remaining, exam, codes, root=root) and name not in optional:
            return None, codes
    while exam:
        try:
            return _checked(estimator, Exam(dict(exam))), codes
        except SampleRefused as refused:
            codes.append(refused.code)
            name = refused.input or (next(iter(exam)) if len(inputs) == 1 else "")
            if name not in exam or (not _load_next(name, remaining, exam, codes, root=root) and name not in optional):
                return None, codes
    return None, codes


def _load_next(
    name: str, remaining: Mapping[str, Iterator[EligibleImage]], exam: dict[str, Image], codes: list[str], *, root: Path
) -> bool:
    """Put an input's next readable image into the exam; whether there was one."""
    exam.pop(name, None)
    for eligible in remaining[name]:
        try:
            exam[name] = load_eligible(eligible, root=root)
        except SampleRefused as refused:
            codes.append(refused.code)
        else:
            return True
    return False


def _checked(estimator: Estimator, exam: Exam) -> Mapping[str, FloatImage]:
    try:
        arrays = estimator.preprocess(exam)
    except SampleRefused:
        raise
    except Exception as error:  # noqa: BLE001 (one odd image must not end a site's campaign)
        raise SampleRefused("preprocessing-failed", type(error).__name__) from None
    shapes = {name: shape for name, shape in estimator.shapes().items() if name != ROW}
    may_lack = any(one.optional for one in image_inputs(estimator))
    if not arrays or not set(arrays) <= set(shapes) or (set(arrays) != set(shapes) and not may_lack):
        raise SampleRefused("wrong-arrays", f"{sorted(arrays)}")
    for name, array in arrays.items():
        if array.shape != tuple(shapes[name]):
            raise SampleRefused("wrong-sample-shape", f"{array.shape}")
        if not np.all(np.isfinite(array)):
            raise SampleRefused("not-finite", "a sample with NaN or infinity")
    return arrays


def _to_ras(volume: Volume, labels: Mapping[str, str]) -> Image:
    affine = _RAS_OF_DICOM @ volume.stack.affine
    turn = io_orientation(affine)
    pixels = np.ascontiguousarray(apply_orientation(volume.voxels, turn), dtype=np.float32)
    i, j, k = (float(length) for length in voxel_sizes(affine @ inv_ornt_aff(turn, volume.voxels.shape)))
    return Image(pixels=pixels, spacing_mm=(i, j, k), orientation="RAS", **labels)
