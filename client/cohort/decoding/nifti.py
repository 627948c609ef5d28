"""One NIfTI volume: what a cohort wants to know of it, or why it is out; and its voxels for an estimator.

World axes are RAS+ (x to the patient's right, y to the front, z up), lengths in millimetres. Shapes (I, J, K).
"""

from __future__ import annotations

import gzip
import logging
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from fedage.client.cohort.decoding.decoder_messages import VOLUME, VOLUME_FACTS
from fedage.client.cohort.decoding.decoder_pool import DecoderFailed, decode, decode_array
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused
from fedage.common.statistics.statistic import FloatArray

MAX_VOXELS = 1 << 28
"""Most voxels of a volume that are ever read: 512 × 512 × 1024, a gigabyte as float32."""
EXPANSION_FREE_BYTES, MAX_EXPANSION = 64 * 2**20, 100
"""What any file may unpack to, and how many times its own size beyond that; heads compress to a half or a tenth."""
SUFFIXES = (".nii", ".nii.gz")
_PIECE_BYTES = 2**20

_MM_PER_UNIT = {"mm": 1.0, "meter": 1e3, "micron": 1e-3, "unknown": 1.0}
_HEADER_SIZES = (348, 540)
"""Bytes of NIfTI-1's and NIfTI-2's headers, which begin with this number."""
_SIZE_FIELDS = frozenset(struct.pack(f"{sign}i", size) for size in _HEADER_SIZES for sign in "<>")
_MOST_OFFSET = 1 << 20
_START_BYTES = 4096
"""More than the 1024 bytes that nibabel tells a format by: of a file that ends within them it says nothing else."""
_GZIP = b"\x1f\x8b"
_OTHER_PACKERS = (b"PK\x03\x04", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c")
_LFS, _ANNEX = b"version https://git-lfs", b"/annex/objects/"
_LEAST_MM, _MOST_MM = 0.05, 20.0
_SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: both codes then stand for the scanner's own coordinates."""
_EVERY_SLICE, _FEWEST_PAIRS, _LABELS_ALIKE = 4, 1000, 0.8
"""Slices looked at for labels, fewest pairs of neighbours that tell, and the share of equal ones from which they do."""
_SAME, _SKEW = 0.1, 0.1
"""How far two affines of one scanner may differ, of the largest entry; and the cosine of axes at right angles."""


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
    """Shape, voxel lengths, where the stored axes point, e.g. `LPS`, and the affine's first three rows, voxel to mm.

    `are_labels` says that the voxels look like labels of regions and not like grey values.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    affine_mm: tuple[float, ...] = field(default=(), compare=False)
    are_labels: bool = field(default=False, compare=False)


class _VolumeRejected(Exception):
    """Why a volume is out."""

    def __init__(self, code: Reason) -> None:
        self.code = code
        super().__init__(str(code))


def read_volume(path: Path) -> VolumeFacts | Rejected:
    """Read one file to its last voxel, in a process of its own. Every file gives one or the other, none raises."""
    try:
        answer = decode(VOLUME_FACTS, path).text
    except DecoderFailed:
        return Rejected(Reason.DECODER_FAILED, modality="MR")
    if "facts" not in answer:
        return Rejected(Reason(str(answer.get("rejected", Reason.UNREADABLE))), modality="MR")
    facts = answer["facts"]
    (i, j, k), (x, y, z) = facts["shape"], facts["spacing_mm"]
    return VolumeFacts(
        shape=(i, j, k),
        spacing_mm=(x, y, z),
        orientation=str(facts["orientation"]),
        affine_mm=tuple(float(number) for number in facts["affine_mm"]),
        are_labels=bool(facts["are_labels"]),
    )


def load_volume(path: Path) -> Volume:
    """The voxels of a file, axes turned and flipped to RAS+ without resampling; read in a process of its own.

    Raises
    ------
    SampleRefused
        With a reason's code. Never any other exception.
    """
    pixels, about = decode_array(VOLUME, path)
    x, y, z = about["spacing_mm"]
    return Volume(pixels, (x, y, z))


def decode_facts(path: Path, *, on_size: Callable[[int], None]) -> VolumeFacts | Rejected:
    """What `read_volume` tells, read here; `on_size` is told of the number of voxels before they are read."""
    try:
        image, facts = _open(path)
        on_size(math.prod(facts.shape))
        facts = replace(facts, are_labels=_are_labels(_voxels(image)))
        _require_whole(path, most_bytes=_most_bytes(path))
    except _VolumeRejected as out:
        return Rejected(out.code, modality="MR")
    except MemoryError:
        return Rejected(Reason.DECODER_FAILED, modality="MR")
    return facts


def decode_volume(path: Path, *, on_size: Callable[[int], None]) -> Volume:
    """What `load_volume` gives, read here.

    Raises
    ------
    SampleRefused
        With a reason's code.
    """
    try:
        image, facts = _open(path)
        on_size(math.prod(facts.shape))
        affine = _affine_mm(image)
        turn = io_orientation(affine)
        pixels = np.ascontiguousarray(apply_orientation(_voxels(image), turn))
        return Volume(pixels, _spacing_mm(affine @ inv_ornt_aff(turn, facts.shape)))
    except _VolumeRejected as out:
        raise SampleRefused(str(out.code), out.code.description) from None
    except MemoryError:
        raise SampleRefused(Reason.DECODER_FAILED, Reason.DECODER_FAILED.description) from None


def _open(path: Path) -> tuple[Any, VolumeFacts]:
    """The image, its voxels not read yet, and its facts."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
    if not path.name.endswith(SUFFIXES):
        raise _VolumeRejected(Reason.NOT_NIFTI)
    try:
        image: Any = nib.load(path)
    except OSError as error:
        raise _VolumeRejected(Reason.UNREADABLE if error.errno else _header_problem(path) or Reason.NOT_NIFTI) from None
    except (EOFError, zlib.error):
        raise _VolumeRejected(_header_problem(path) or Reason.TRUNCATED) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (what hostile headers raise cannot be listed)
        raise _VolumeRejected(_header_problem(path) or Reason.NOT_NIFTI) from None
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise _VolumeRejected(Reason.NOT_NIFTI)
    shape = _without_single_ends(tuple(int(length) for length in image.shape))
    if len(shape) != 3 or min(shape) < 2:
        raise _VolumeRejected(Reason.NOT_3D)
    item_bytes = int(image.get_data_dtype().itemsize)
    if math.prod(shape) > MAX_VOXELS or math.prod(shape) * item_bytes > _most_bytes(path):
        raise _VolumeRejected(Reason.TOO_LARGE)
    if getattr(image.dataobj, "offset", 0) < image.header.single_vox_offset:
        raise _VolumeRejected(Reason.DAMAGED)  # the header itself would be the first voxels
    if image.get_data_dtype().kind not in "iuf":
        raise _VolumeRejected(Reason.NOT_GREY)
    affine = _affine_mm(image)
    orientation = "".join(str(code) for code in aff2axcodes(affine))
    return image, VolumeFacts(
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=_spacing_mm(affine),
        orientation=orientation,
        affine_mm=tuple(float(number) for number in affine[:3].ravel()),
    )


def _most_bytes(path: Path) -> int:
    """What a file may unpack to."""
    return EXPANSION_FREE_BYTES + MAX_EXPANSION * path.stat().st_size


def _require_whole(path: Path, *, most_bytes: int) -> None:
    """Refuse a packed file whose checksum says that it has been changed: nibabel reads no further than its voxels."""
    if not path.name.endswith(".gz"):
        return
    unpacked, rest = 0, b""
    with path.open("rb") as stream:
        while (rest or (rest := stream.read(_PIECE_BYTES))).startswith(_GZIP):
            member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                while not member.eof and rest and unpacked <= most_bytes:
                    unpacked += len(member.decompress(rest, _PIECE_BYTES))
                    rest = member.unconsumed_tail or stream.read(_PIECE_BYTES)
            except zlib.error:
                raise _VolumeRejected(Reason.DAMAGED) from None
            if not member.eof:
                raise _VolumeRejected(Reason.TRUNCATED if unpacked <= most_bytes else Reason.TOO_LARGE)
            rest = member.unused_data


def _without_single_ends(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape (I, J, K, 1, …) as (I, J, K): one volume, written as a series of one."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _header_problem(path: Path) -> Reason | None:
    """Why a file does not give a whole header, where it ends too early or does not unpack; else None."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_START_BYTES)
        if reason := _packing_problem(start, is_named_gz=path.name.endswith(".gz")):
            return reason
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            header = stream.read(_START_BYTES)
            header += stream.read(max(0, _data_offset(header) - len(header)))
    except EOFError:
        return Reason.TRUNCATED
    except zlib.error:
        return Reason.DAMAGED
    except OSError:  # no gzip file, or one whose checksum is wrong
        return None
    if path.name.endswith(".gz") and header.startswith(_GZIP):
        return Reason.PACKED_TWICE
    is_short = header[:4] in _SIZE_FIELDS and len(header) < max(min(_HEADER_SIZES), _data_offset(header))
    return Reason.TRUNCATED if is_short or not header else None


def _packing_problem(start: bytes, *, is_named_gz: bool) -> Reason | None:
    """Whether a file is packed otherwise than its name says, or is none at all, by how it starts."""
    if start.startswith(_LFS) or (len(start) < _START_BYTES and _ANNEX in start):
        return Reason.POINTER
    if start.startswith(_OTHER_PACKERS) or (start.startswith(_GZIP) and not is_named_gz):
        return Reason.PACKED_OTHERWISE
    if is_named_gz and start[:4] in _SIZE_FIELDS:
        return Reason.NOT_PACKED
    return Reason.TRUNCATED if is_named_gz and len(start) < len(_GZIP) else None


def _data_offset(header: bytes) -> int:
    """Where a NIfTI-1 file's voxels begin, after header and extensions; 0 where that is not known."""
    for sign in "<>":
        if len(header) >= 112 and struct.unpack_from(f"{sign}i", header)[0] == min(_HEADER_SIZES):
            offset: float = struct.unpack_from(f"{sign}f", header, 108)[0]
            return int(offset) if 0 <= offset <= _MOST_OFFSET else 0
    return 0


def _affine_mm(image: Any) -> FloatArray:
    """Voxel to world, (4, 4), in millimetres."""
    header = image.header
    # Without either code nothing says where left is: nibabel then makes an affine up.
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise _VolumeRejected(Reason.BAD_AFFINE)
    try:
        scale = _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:
        scale = 1.0
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= scale
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9 or _is_skewed(affine):
        raise _VolumeRejected(Reason.BAD_AFFINE)
    if int(header["sform_code"]) == _SCANNER == int(header["qform_code"]):
        # Of the same scanner, so that they are the same but for rounding; nobody knows which of two is wrong.
        qform = np.array(header.get_qform(), dtype=np.float64)
        qform[:3] *= scale
        if np.abs(qform[:3, :3] - affine[:3, :3]).max() > _SAME * np.abs(affine[:3, :3]).max():
            raise _VolumeRejected(Reason.BAD_AFFINE)
    return affine


def _is_skewed(affine: FloatArray) -> bool:
    """Whether axes are far from right angles, so that no turn and flip of them gives the body's shape."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > _SKEW)


def _spacing_mm(affine: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(length) for length in voxel_sizes(affine))
    if not all(_LEAST_MM <= length <= _MOST_MM for length in (x, y, z)):
        raise _VolumeRejected(Reason.BAD_AFFINE)
    return x, y, z


def _are_labels(voxels: NDArray[np.float32]) -> bool:
    """Whether voxels are whole numbers that are mostly those of their neighbours, as a segmentation's are.

    Neighbours of a head's tissue differ by noise; the background, which is 0 in both, does not count.
    """
    some = voxels[:, :, ::_EVERY_SLICE]
    here, beside = some[:-1], some[1:]
    inside = (here != 0) & (beside != 0)
    pairs = int(np.count_nonzero(inside))
    if pairs < _FEWEST_PAIRS or not np.array_equal(some, np.rint(some)):
        return False
    return int(np.count_nonzero(inside & (here == beside))) > _LABELS_ALIKE * pairs


def _voxels(image: Any) -> NDArray[np.float32]:
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(_without_single_ends(image.shape))
    except (zlib.error, gzip.BadGzipFile):
        raise _VolumeRejected(Reason.DAMAGED) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (truncated, damaged or hostile files raise anything in decoders)
        raise _VolumeRejected(Reason.TRUNCATED) from None
    lowest, highest = float(voxels.min()), float(voxels.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):  # NaN goes through min and max
        raise _VolumeRejected(Reason.NOT_FINITE)
    if lowest == highest:
        raise _VolumeRejected(Reason.NO_CONTRAST)
    return voxels
