"""Volumes: nibabel's own test files, and voxels in RAS with their spacing."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.decoding.nifti import VolumeFacts, load_volume, read_volume
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused

NIBABEL = Path(nib.__file__).parent / "tests/data"
IN = {
    "anatomical.nii": VolumeFacts(shape=(33, 41, 25), spacing_mm=(2.0, 2.0, 2.0), orientation="LAS"),
    "reoriented_anat_moved.nii": VolumeFacts(shape=(21, 26, 22), spacing_mm=(4.0, 4.0, 4.0), orientation="RAS"),
    "standard.nii.gz": VolumeFacts(shape=(4, 5, 7), spacing_mm=(1.0, 3.0, 2.0), orientation="RAS"),
}
OUT = {
    "example4d.nii.gz": "not-3d",
    "example_nifti2.nii.gz": "not-3d",
    "functional.nii": "not-3d",
    "resampled_anat_moved.nii": "not-finite",
}
"""Every other file is of another format, or of a surface (`row_major.dconn.nii`)."""


def files() -> list[Path]:
    return sorted(path for path in NIBABEL.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def test_nibabel_brings_its_files() -> None:
    assert len(files()) > 60
    assert IN.keys() | OUT.keys() <= {path.name for path in files()}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_every_file_of_nibabel_is_in_or_out_with_its_reason(path: Path) -> None:
    found = read_volume(path)
    if isinstance(found, Rejected):
        assert str(found.code) == OUT.get(path.name, "not-nifti")
        with pytest.raises(SampleRefused, match=str(found.code)):
            load_volume(path)
    else:
        assert found == IN[path.name]
        volume = load_volume(path)
        assert volume.pixels.dtype == np.float32
        assert sorted(volume.pixels.shape) == sorted(found.shape)


def save(path: Path, data: Any, affine: Any) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def test_axes_are_turned_and_flipped_to_ras_by_hand(tmp_path: Path) -> None:
    """Stored as (back-to-front, top-to-bottom, right-to-left): `ASL` axes to the front, down, and to the left."""
    ras = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    stored = ras.transpose(1, 2, 0)[:, ::-1, ::-1]  # (A, S, R) with S and R reversed
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 3.0, -4.0, -2.0, 1.0  # x is 2 mm, y 3 mm, z 4 mm
    path = save(tmp_path / "a.nii.gz", np.ascontiguousarray(stored), affine)
    assert read_volume(path) == VolumeFacts(shape=(3, 4, 2), spacing_mm=(3.0, 4.0, 2.0), orientation="AIL")
    volume = load_volume(path)
    assert volume.spacing_mm == (2.0, 3.0, 4.0)
    np.testing.assert_array_equal(volume.pixels, ras.astype(np.float32))


def test_scaling_and_units_of_the_header_are_applied(tmp_path: Path) -> None:
    image: Any = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.diag([1e-3, 1e-3, 2e-3, 1]))
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2.0, -1.0)
    nib.save(image, tmp_path / "a.nii")
    volume = load_volume(tmp_path / "a.nii")
    assert volume.spacing_mm == pytest.approx((1.0, 1.0, 2.0))
    assert volume.pixels.ravel().tolist() == [2.0 * value - 1.0 for value in range(8)]


def test_oblique_volumes_keep_their_spacing(tmp_path: Path) -> None:
    turn = np.deg2rad(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.9, 1.1, 1.3])
    path = save(tmp_path / "a.nii", np.arange(60, dtype=np.float32).reshape(3, 4, 5), affine)
    assert load_volume(path).spacing_mm == pytest.approx((0.9, 1.1, 1.3), abs=1e-6)


@pytest.mark.parametrize("at", range(0, 348, 4))
def test_a_damaged_header_never_crashes(tmp_path: Path, at: int) -> None:
    path = save(tmp_path / "a.nii", np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4))
    whole = bytearray(path.read_bytes())
    for value in (0x00, 0x7F, 0xFF):
        whole[at : at + 4] = bytes([value]) * 4
        path.write_bytes(whole)
        assert isinstance(read_volume(path), (VolumeFacts, Rejected))


def test_a_missing_or_closed_file_is_unreadable(tmp_path: Path) -> None:
    found = read_volume(tmp_path / "gone.nii.gz")
    assert isinstance(found, Rejected)
    assert str(found.code) in ("unreadable", "not-nifti")


@pytest.mark.parametrize("ends", [(1,), (1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_series_of_one_volume_is_that_volume(tmp_path: Path, ends: tuple[int, ...], suffix: str) -> None:
    data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    plain = save(tmp_path / f"plain{suffix}", data, affine)
    single = save(tmp_path / f"single{suffix}", data.reshape(2, 3, 4, *ends), affine)
    assert len(nib.load(single).shape) == 3 + len(ends)  # type: ignore[attr-defined]
    assert read_volume(single) == read_volume(plain)
    assert np.array_equal(load_volume(single).pixels, data[::-1])
    assert load_volume(single).spacing_mm == load_volume(plain).spacing_mm == (2.0, 3.0, 4.0)


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (2, 3, 4, 1, 2), (2, 3, 1, 4), (2, 3, 1), (24, 1)])
def test_several_volumes_or_none_are_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4))
    found = read_volume(path)
    assert isinstance(found, Rejected)
    assert str(found.code) == "not-3d"


IXI = Path(__file__).parents[4] / "../shared/data/ixi-t1w/t1w"


@pytest.mark.skipif(not IXI.is_dir(), reason="../shared/data/ixi-t1w is not beside the repository")
def test_a_cut_or_damaged_file_is_called_so_wherever_it_ends(tmp_path: Path) -> None:
    whole = min(IXI.glob("*.nii.gz")).read_bytes()
    plain = gzip.decompress(whole)
    assert isinstance(read_volume(min(IXI.glob("*.nii.gz"))), VolumeFacts)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    cases = {
        **{
            f"{kept}.nii.gz": (whole[:kept], "truncated")
            for kept in (0, 1, 5, 20, 200, 300, 500, 5000, len(whole) // 2)
        },
        **{f"{kept}.nii": (plain[:kept], "truncated") for kept in (0, 100, 347, 400, len(plain) - 1)},
        "start.nii.gz": (whole[:100] + bytes(200) + whole[300:], "damaged"),
        "middle.nii.gz": (bytes(damaged), "damaged"),
        "text.nii.gz": (b"Zwyntarow was here" * 100, "not-nifti"),
        "text.nii": (b"Zwyntarow was here" * 100, "not-nifti"),
        "packed-text.nii.gz": (gzip.compress(b"Zwyntarow was here" * 100), "not-nifti"),
    }
    for name, (content, code) in cases.items():
        (tmp_path / name).write_bytes(content)
        found = read_volume(tmp_path / name)
        assert isinstance(found, Rejected), name
        assert str(found.code) == code, name
        with pytest.raises(SampleRefused, match=code):
            load_volume(tmp_path / name)


def _small(tmp_path: Path) -> bytes:
    values = np.random.default_rng(3).integers(0, 900, (9, 8, 7)).astype(np.int16)
    return save(tmp_path / "whole.nii", values, np.eye(4)).read_bytes()


def _as_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("a.nii", content)
    return stream.getvalue()


POINTERS = {
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9433089\n",
    "git-annex": b"/annex/objects/MD5E-s9433089--0123456789abcdef.nii.gz\n",
    "git-annex up": b"../../.git/annex/objects/Xk/7P/MD5E-s9--01.nii.gz/MD5E-s9--01.nii.gz\n",
}
PACKED: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "not packed": ("a.nii.gz", bytes, "not-packed"),
    "gzip in .nii": ("a.nii", gzip.compress, "packed-otherwise"),
    "zip in .nii": ("a.nii", _as_zip, "packed-otherwise"),
    "zip in .nii.gz": ("a.nii.gz", _as_zip, "packed-otherwise"),
    "bzip2": ("a.nii.gz", bz2.compress, "packed-otherwise"),
    "xz": ("a.nii.gz", lzma.compress, "packed-otherwise"),
    "twice": ("a.nii.gz", lambda content: gzip.compress(gzip.compress(content)), "packed-twice"),
    **{
        f"{kind} for {name}": (name, lambda _, text=text: text, "content-not-fetched")
        for kind, text in POINTERS.items()
        for name in ("a.nii", "a.nii.gz")
    },
    **{
        f"cut after {kept}": ("a.nii.gz", lambda content, kept=kept: gzip.compress(content)[:kept], "truncated")
        for kept in (100, 250, 400, 600, 800)
    },
}


@pytest.mark.parametrize("case", PACKED)
def test_how_a_volume_is_packed_is_named_where_that_is_wrong(tmp_path: Path, case: str) -> None:
    name, pack, code = PACKED[case]
    (tmp_path / name).write_bytes(pack(_small(tmp_path)))

    found = read_volume(tmp_path / name)

    assert isinstance(found, Rejected)
    assert str(found.code) == code
    assert found.code.sentence


def _flipped_qform(image: nib.Nifti1Image) -> None:
    image.set_qform(np.diag([-2.0, 2.0, 2.0, 1.0]), 1)


def _other_lengths(image: nib.Nifti1Image) -> None:
    image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)


def _turned(image: nib.Nifti1Image) -> None:
    image.set_qform(np.array([[0.0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), 1)


def _skewed(image: nib.Nifti1Image) -> None:
    image.set_qform(None, 0)
    image.set_sform(np.array([[2.0, 0.8, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]), 1)


def _registered(image: nib.Nifti1Image) -> None:
    image.set_qform(np.diag([1.9, 2.2, 2.0, 1.0]), 1)
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 4)


def _rounded(image: nib.Nifti1Image) -> None:
    image.set_qform(np.diag([2.0001, 1.9999, 2.0, 1.0]), 1)


@pytest.mark.parametrize(
    ("change", "is_in"),
    [
        (_flipped_qform, False),
        (_other_lengths, False),
        (_turned, False),
        (_skewed, False),
        (_registered, True),
        (_rounded, True),
    ],
)
def test_two_matrices_of_one_scanner_that_differ_and_skewed_axes_are_out(
    tmp_path: Path, change: Callable[[nib.Nifti1Image], None], is_in: bool
) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    change(image)
    nib.save(image, tmp_path / "a.nii")
    found = read_volume(tmp_path / "a.nii")
    assert isinstance(found, VolumeFacts) if is_in else found == Rejected(Reason.BAD_AFFINE, modality="MR")


def _wrong_checksum(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


def _one_byte_changed(packed: bytes) -> bytes:
    """In a block stored as it is: it unpacks, and one voxel is another."""
    place = len(packed) // 2
    return packed[:place] + bytes([packed[place] ^ 0x40]) + packed[place + 1 :]


@pytest.mark.parametrize(
    ("change", "level", "code"),
    [
        (_wrong_checksum, 9, Reason.DAMAGED),
        (_one_byte_changed, 0, Reason.DAMAGED),
        (lambda packed: packed[:-4] + bytes(4), 9, Reason.DAMAGED),  # another length
        (lambda packed: packed[:-3], 9, Reason.TRUNCATED),
        (lambda packed: packed, 9, None),
        (lambda packed: packed + bytes(512), 9, None),  # a tape's blocks
    ],
)
def test_a_packed_volume_is_read_to_its_checksum(
    change: Callable[[bytes], bytes], level: int, code: Reason | None, tmp_path: Path
) -> None:
    data = np.random.default_rng(1).integers(0, 900, (12, 13, 14)).astype(np.int16)
    plain = save(tmp_path / "a.nii", data, np.diag([2.0, 2, 2, 1])).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(change(gzip.compress(plain, level)))
    found = read_volume(tmp_path / "a.nii.gz")
    assert (found.code if isinstance(found, Rejected) else None) == code


def test_a_volume_packed_in_several_members_is_whole(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", np.arange(1000.0).reshape(10, 10, 10), np.diag([2.0, 2, 2, 1])).read_bytes()
    members = gzip.compress(plain[:900]) + gzip.compress(plain[900:2000]) + gzip.compress(plain[2000:])
    (tmp_path / "a.nii.gz").write_bytes(members)
    assert not isinstance(read_volume(tmp_path / "a.nii.gz"), Rejected)
    (tmp_path / "a.nii.gz").write_bytes(_wrong_checksum(members))
    assert isinstance(read_volume(tmp_path / "a.nii.gz"), Rejected)


@pytest.mark.parametrize("offset", [0.0, 1.0, 348.0, 351.0])
def test_a_header_is_not_read_as_voxels(offset: float, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.arange(1000.0).reshape(10, 10, 10), np.diag([2.0, 2, 2, 1]))
    content = bytearray(path.read_bytes())
    content[108:112] = np.array(offset, "<f4").tobytes()
    path.write_bytes(bytes(content))
    assert isinstance(read_volume(path), Rejected)
    with pytest.raises(SampleRefused):
        load_volume(path)
