"""One NIfTI volume: what a cohort wants to know of it, or why it is out; and its voxels for an estimator.

World axes are RAS+ (x to the patient's right, y to the front, z up), lengths in millimetres. Shapes (I, J, K).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.estimators.base import SampleRefused
from fedage.common.statistic import FloatArray

MAX_VOXELS = 1 << 28
"""Most voxels of a volume that are ever read: 512 × 512 × 1024, a gigabyte as float32."""
SUFFIXES = (".nii", ".nii.gz")

_MM_PER_UNIT = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}
_LEAST_MM, _MOST_MM = 0.05, 20.0


@dataclass(frozen=True)
class Volume:
    """A volume as an estimator gets it.

    Parameters
    ----------
    pixels
        (I, J, K) float32, scaled as the file says, its axes the nearest ones to right, front and up (RAS+).
    spacing_mm
        Distance of voxels along the three axes.
    """

    pixels: NDArray[np.float32] = field(repr=False)
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class VolumeFacts:
    """Shape, voxel lengths and where the stored axes point, e.g. `LPS`."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str


class _Out(Exception):
    """Why a volume is out."""

    def __init__(self, code: Reason) -> None:
        self.code = code
        super().__init__(str(code))


def read_volume(path: Path) -> VolumeFacts | Rejected:
    """Read one file to its last voxel. Every file gives one or the other; nothing is raised, whatever it holds."""
    try:
        image, facts = _open(path)
        _voxels(image)
    except _Out as out:
        return Rejected(out.code, modality="MR")
    return facts


def load_volume(path: Path) -> Volume:
    """The voxels of a file, axes turned and flipped to RAS+ without resampling.

    Raises
    ------
    SampleRefused
        With a reason's code. Never any other exception.
    """
    try:
        image, _ = _open(path)
        _voxels(image)
        turned = nib.as_closest_canonical(image)
        pixels = np.ascontiguousarray(_voxels(turned))
        return Volume(pixels, _spacing_mm(_affine_mm(turned)))
    except _Out as out:
        raise SampleRefused(str(out.code), out.code.what) from None


def _open(path: Path) -> tuple[Any, VolumeFacts]:
    """The image, its voxels not read yet, and its facts."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    if not path.name.endswith(SUFFIXES):
        raise _Out(Reason.NOT_NIFTI)
    try:
        image: Any = nib.load(path)
    except OSError as error:
        raise _Out(Reason.UNREADABLE if error.errno else Reason.NOT_NIFTI) from None
    except Exception:  # noqa: BLE001 (what hostile headers raise cannot be listed)
        raise _Out(Reason.NOT_NIFTI) from None
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise _Out(Reason.NOT_NIFTI)
    shape = tuple(int(length) for length in image.shape)
    if len(shape) != 3 or min(shape) < 2:
        raise _Out(Reason.NOT_3D)
    if math.prod(shape) > MAX_VOXELS:
        raise _Out(Reason.TOO_LARGE)
    if image.get_data_dtype().kind not in "iuf":
        raise _Out(Reason.NOT_GREY)
    affine = _affine_mm(image)
    orientation = "".join(str(code) for code in aff2axcodes(affine))
    return image, VolumeFacts(
        shape=(shape[0], shape[1], shape[2]), spacing_mm=_spacing_mm(affine), orientation=orientation
    )


def _affine_mm(image: Any) -> FloatArray:
    """Voxel to world, (4, 4), in millimetres."""
    header = image.header
    # Without either code nothing says where left is: nibabel then makes an affine up.
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise _Out(Reason.BAD_AFFINE)
    try:
        scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:
        scale = 1.0
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= scale
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise _Out(Reason.BAD_AFFINE)
    return affine


def _spacing_mm(affine: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(length) for length in voxel_sizes(affine))
    if not all(_LEAST_MM <= length <= _MOST_MM for length in (x, y, z)):
        raise _Out(Reason.BAD_AFFINE)
    return x, y, z


def _voxels(image: Any) -> NDArray[np.float32]:
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except Exception:  # noqa: BLE001 (truncated, damaged or hostile files raise anything in decoders)
        raise _Out(Reason.TRUNCATED) from None
    lowest, highest = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):  # NaN goes through min and max
        raise _Out(Reason.NOT_FINITE)
    if lowest == highest:
        raise _Out(Reason.NO_CONTRAST)
    return voxels
