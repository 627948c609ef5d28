"""Where a value lies in its word, and which pixels are outside the image: by hand, and on a real radiograph."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.decoding.stacks import load_series
from fedage.client.cohort.dicom.facts import read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common import estimators
from fedage.common.preprocessing.image import Exam, SampleRefused
from tests.client.cohort.dicoms import UNCOMPRESSED, ramp, slice_at, write

SHARED = Path(__file__).resolve().parents[5] / "shared/data/nih-cxr"
HIGH: dict[str, Any] = {"BitsStored": 12, "HighBit": 15}


def pixels_of(path: Path) -> np.ndarray:
    return load_image(path).pixels


def refused(path: Path) -> str:
    with pytest.raises(SampleRefused) as caught:
        load_image(path)
    return caught.value.code


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, RLELossless])
@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 13), (10, 15), (14, 14)])
@pytest.mark.parametrize("signed", [False, True])
def test_values_above_bit_0_are_shifted_down(tmp_path: Path, syntax: str, stored: int, high: int, signed: bool) -> None:
    values = ramp().astype(np.int16) - 100 if signed else ramp()
    words = values << (high + 1 - stored)
    write(tmp_path / "a.dcm", syntax=syntax, pixels=words, BitsStored=stored, HighBit=high)
    assert np.array_equal(pixels_of(tmp_path / "a.dcm"), values)
    write(tmp_path / "b.dcm", pixels=words, BitsStored=stored, HighBit=high, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(pixels_of(tmp_path / "b.dcm"), (-1.0 if signed else 2.0**stored - 1) - values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("high", "bit"), [(11, 12), (11, 15), (15, 0), (15, 3)])
def test_a_declared_overlay_in_unused_bits_is_not_of_the_value(
    tmp_path: Path, signed: bool, high: int, bit: int
) -> None:
    values = ramp().astype(np.int16) - 100 if signed else ramp()
    overlay = np.arange(values.size, dtype=np.uint16).reshape(values.shape) % 2
    words = ((values.view(np.uint16) & 0xFFF) << (high - 11) | overlay << bit).view(values.dtype)
    path = tmp_path / "a.dcm"
    write(path, pixels=words, HighBit=high)
    assert refused(path) == "contradictory-bits"
    write_with_overlay(path, words, high=high, bit=bit)
    assert np.array_equal(pixels_of(path), values)


def write_with_overlay(path: Path, words: np.ndarray, *, high: int, bit: int) -> None:
    overlay = Dataset()
    overlay.add_new(0x60000100, "US", 16)
    overlay.add_new(0x60000102, "US", bit)
    write(path, pixels=words, HighBit=high, add=overlay)


@pytest.mark.parametrize(
    ("words", "high"),
    [
        (ramp(), 15),  # right-aligned, whatever HighBit says
        (ramp() + 4096, 11),  # 13 bits used, 12 declared
        ((ramp() << 4) + 1, 15),
        (ramp().astype(np.int16) - 4096 - 100, 11),  # a sign that the stored bits do not have
    ],
)
def test_bits_that_contradict_the_header_are_refused_not_scrambled(
    tmp_path: Path, words: np.ndarray, high: int
) -> None:
    write(tmp_path / "a.dcm", pixels=words, HighBit=high)
    assert refused(tmp_path / "a.dcm") == "contradictory-bits"


@pytest.mark.parametrize(
    "elements",
    [
        {"HighBit": 16},
        {"HighBit": 10},
        {"BitsStored": 17, "HighBit": 16},
        {"BitsStored": 16, "HighBit": 11},
    ],
)
def test_a_header_that_cannot_be_is_out_when_indexed(tmp_path: Path, elements: dict[str, int]) -> None:
    write(tmp_path / "a.dcm", **elements)
    found = read_facts(tmp_path / "a.dcm")
    assert isinstance(found, Rejected)
    assert found.code is Reason.CONTRADICTORY_BITS
    write(tmp_path / "b.dcm", **HIGH)
    assert not isinstance(read_facts(tmp_path / "b.dcm"), Rejected)


def padded(values: np.ndarray, padding: int) -> np.ndarray:
    """Values with padding in the first row."""
    found = values.copy()
    found[0] = np.array(padding).astype(values.dtype)
    return found


SIGNED = ramp().astype(np.int16) - 100


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(
    ("values", "elements"),
    [
        (padded(ramp(), 0), {"PixelPaddingValue": 0}),
        (padded(ramp(), 4095), {"PixelPaddingValue": 4095}),
        (padded(ramp(), 4000), {"PixelPaddingValue": 3990, "PixelPaddingRangeLimit": 4095}),
        (padded(ramp(), 4000), {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 3990}),  # reversed
        (padded(ramp(), 63536), {"PixelPaddingValue": 63536}),  # not of 12 bits
        (padded(ramp(), 63536), {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        (padded(SIGNED, -2000), {"PixelPaddingValue": -2000}),
        (padded(SIGNED, -2048), {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -1024}),
        (padded(SIGNED, -32768), {"PixelPaddingValue": -32768}),  # of the word, not of its 12 bits
    ],
)
def test_padding_is_background(
    tmp_path: Path, values: np.ndarray, elements: dict[str, int], syntax: str, photometric: str
) -> None:
    write(tmp_path / "a.dcm", pixels=values, syntax=syntax, PhotometricInterpretation=photometric, **elements)
    inside = values[1:].astype(np.float64)
    if photometric == "MONOCHROME1":
        inside = (-1.0 if values.dtype == np.int16 else 4095.0) - inside
    found = pixels_of(tmp_path / "a.dcm")
    assert np.array_equal(found[1:], inside)
    assert np.array_equal(found[0], np.full(values.shape[1], inside.min()))


def test_padding_of_the_other_vr_is_known(tmp_path: Path) -> None:
    """63536 as US in a file of signed words is -2000; 2048 in one of 12 signed bits is -2048."""
    for name, stored, written in (("a", -2000, 63536), ("b", -2048, 2048)):
        add = Dataset()
        add.add_new(0x00280120, "US", written)
        write(tmp_path / name, pixels=padded(SIGNED, stored), add=add)
        assert pixels_of(tmp_path / name)[0].tolist() == [SIGNED[1:].min()] * SIGNED.shape[1]
    add = Dataset()
    add.add_new(0x00280120, "SS", -1)
    write(tmp_path / "c", pixels=padded(ramp(), 65535), add=add)
    assert pixels_of(tmp_path / "c")[0].tolist() == [ramp()[1:].min()] * ramp().shape[1]


def test_padding_is_known_before_the_rescale_and_in_shifted_words(tmp_path: Path) -> None:
    rescale = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "RescaleType": "HU"}
    write(tmp_path / "a.dcm", pixels=padded(ramp(), 4000), PixelPaddingValue=4000, **rescale)
    assert pixels_of(tmp_path / "a.dcm")[0, 0] == 2.0 * ramp()[1:].min() - 1000
    write(tmp_path / "b.dcm", pixels=padded(ramp(), 4000) << 4, PixelPaddingValue=4000, **HIGH)
    assert np.array_equal(pixels_of(tmp_path / "b.dcm")[0], np.full(5, ramp()[1:].min()))


def test_nothing_inside_is_refused_and_a_limit_alone_masks_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert refused(tmp_path / "a.dcm") == "only-padding"
    write(tmp_path / "b.dcm", PixelPaddingRangeLimit=4095)
    assert np.array_equal(pixels_of(tmp_path / "b.dcm"), ramp())


def test_a_slice_of_padding_takes_the_background_of_its_volume(tmp_path: Path) -> None:
    series = str(generate_uid())
    for index in range(3):
        values = np.full((6, 5), -2000, dtype=np.int16) if index == 0 else SIGNED
        about = slice_at(2.0 * index, series=series) | {"PixelPaddingValue": -2000}
        write(tmp_path / f"{index}.dcm", pixels=values, **about)
    voxels = load_series(sorted(tmp_path.iterdir())).voxels
    assert np.array_equal(voxels, np.stack([np.full((6, 5), SIGNED.min()), SIGNED, SIGNED]))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the chest radiographs in shared/data/nih-cxr")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_real_radiograph_gives_the_same_sample_however_it_is_stored(tmp_path: Path, photometric: str) -> None:
    """The border is air (0) in the plain file, and padding of the greatest density in the other."""
    grey = np.array(Picture.open(min((SHARED / "images").glob("*.png"))).convert("L")).astype(np.uint16) * 16
    grey[:, :8], grey[:, -8:] = grey.min(), grey.min()
    border = np.zeros(grey.shape, dtype=bool)
    border[:, :8], border[:, -8:] = True, True
    stored = 4095 - grey if photometric == "MONOCHROME1" else grey
    worst = 0 if photometric == "MONOCHROME1" else 4095
    write(tmp_path / "plain.dcm", pixels=stored, PhotometricInterpretation=photometric)
    stored = np.where(border, np.uint16(worst), stored)
    write(
        tmp_path / "padded.dcm",
        pixels=stored << 4,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=worst,
        **HIGH,
    )
    chest: Any = estimators.make("chest-ca", {"image_size": 64})
    plain, same = (
        chest.preprocess(Exam({"image": load_image(tmp_path / f"{name}.dcm")}))["image"] for name in ("plain", "padded")
    )
    assert np.corrcoef(plain.ravel(), same.ravel())[0, 1] > 0.98
