"""Every transfer syntax: the same facts, the same pixels, and cut files are told from whole ones."""

import os
import zlib
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.dicom import header
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import ramp, write
from tests.client.cohort.encoded import LOSSLESS, smooth, write_encoded, write_jpeg

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"


def code(path: Path) -> Reason:
    found = read_facts(path)
    assert isinstance(found, Rejected), found
    return found.code


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_facts_and_the_stored_pixels(tmp_path: Path, syntax: str) -> None:
    write_encoded(tmp_path / "a.dcm", syntax, smooth(), "P 1")
    found = read_facts(tmp_path / "a.dcm")
    assert isinstance(found, DicomFacts)
    assert (found.patient_id, found.rows, found.columns, found.transfer_syntax) == ("P 1", 32, 40, syntax)
    image = load_image(tmp_path / "a.dcm")
    assert np.array_equal(image.pixels, smooth())
    assert image.spacing_mm == (0.2, 0.3)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_truncated_pixels_have_their_reason_in_every_syntax(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "a.dcm"
    write_encoded(path, syntax, smooth())
    os.truncate(path, path.stat().st_size - 30)
    assert code(path) is Reason.TRUNCATED
    with pytest.raises(SampleRefused, match="undecodable"):
        load_image(path)


def test_jpeg_with_losses_is_near(tmp_path: Path) -> None:
    pixels = (smooth() // 16).astype(np.uint8)
    write_jpeg(tmp_path / "a.dcm", pixels)
    assert isinstance(read_facts(tmp_path / "a.dcm"), DicomFacts)
    assert np.abs(load_image(tmp_path / "a.dcm").pixels - pixels).max() <= 4


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE",
        "MR_small_bigendian",
        "MR_small_expb",
        "MR_small_implicit",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "MR_small_padded",
    ],
)
def test_one_slice_in_other_hands_encodings(name: str) -> None:
    """pydicom's files of one MR slice, each encoded by somebody else's software."""
    assert np.array_equal(load_image(BUNDLED / f"{name}.dcm").pixels, load_image(BUNDLED / "MR_small.dcm").pixels)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("JPEG2000.dcm", -1024, 1024),
        ("JPEGLSNearLossless_08.dcm", 0, 255),
        ("JPEGLSNearLossless_16.dcm", 0, 65535),
        ("image_dfl.dcm", 0, 255),
    ],
)
def test_other_hands_files_with_losses_decode(name: str, lowest: int, highest: int) -> None:
    pixels, ds = load_image(BUNDLED / name).pixels, dcmread(BUNDLED / name, stop_before_pixels=True)
    assert pixels.shape == (ds.Rows, ds.Columns)
    assert lowest <= pixels.min() < pixels.max() <= highest
    assert np.ptp(pixels) > 200


def test_files_without_preamble_or_file_meta(tmp_path: Path) -> None:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        whole = tmp_path / "whole"
        write(whole, "P1", syntax=syntax)
        content = whole.read_bytes()
        length = int.from_bytes(content[140:144], "little")  # group length: of the file meta group after it
        (tmp_path / "no-preamble").write_bytes(content[132:])
        (tmp_path / "no-meta").write_bytes(content[144 + length :])
        for name in ("no-preamble", "no-meta"):
            found = read_facts(tmp_path / name)
            assert isinstance(found, DicomFacts), (name, found)
            assert (found.patient_id, found.transfer_syntax) == ("P1", syntax)
            assert np.array_equal(load_image(tmp_path / name).pixels, ramp())


def test_text_that_begins_like_nothing_in_dicom_is_no_dicom(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for content in (b"PatientID,age\n1,60\n" * 20, b"\x08\x00", b"\x00" * 400, b"GIF89a" + bytes(200), rng.bytes(999)):
        (tmp_path / "a").write_bytes(content)
        assert code(tmp_path / "a") is Reason.NOT_DICOM


def test_a_deflated_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian)
    content = (tmp_path / "a.dcm").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflater.compress(b"\x09\x00\x10\x00OB\x00\x00\xff\xff\xff\x7f" + bytes(30_000_000)) + deflater.flush()
    (tmp_path / "bomb.dcm").write_bytes(content[:start] + body)
    assert (tmp_path / "bomb.dcm").stat().st_size < 40_000
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 20_000_000)
    assert code(tmp_path / "bomb.dcm") is Reason.TOO_LARGE
    with pytest.raises(SampleRefused, match="undecodable"):
        load_image(tmp_path / "bomb.dcm")


def test_wrong_lengths_have_their_reason(tmp_path: Path) -> None:
    write(tmp_path / "odd.dcm")
    content = (tmp_path / "odd.dcm").read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OW") + 8
    for name, length, reason in (("long", 10**9, Reason.TRUNCATED), ("short", 10, Reason.TRUNCATED)):
        (tmp_path / name).write_bytes(content[:at] + length.to_bytes(4, "little") + content[at + 4 :])
        assert code(tmp_path / name) is reason
    # A value whose length runs over the next elements: whatever is met there is no image.
    at = content.index(b"\x10\x00\x20\x00LO") + 6
    (tmp_path / "value").write_bytes(content[:at] + b"\xf0\xff" + content[at + 2 :])
    assert code(tmp_path / "value") is Reason.TRUNCATED
