"""Pixels by hand: every encoding gives the same image, and brighter is denser."""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fedage.client.cohort.decoding.images import load_image
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import cut, ramp, write


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
def test_stored_values_come_back(tmp_path: Path, syntax: str, signed: bool) -> None:
    pixels = ramp().astype(np.int16) - 100 if signed else ramp()
    write(tmp_path / "a.dcm", syntax=syntax, pixels=pixels)
    image = load_image(tmp_path / "a.dcm")
    assert image.pixels.dtype == np.float32
    assert np.array_equal(image.pixels, pixels)
    assert (image.spacing_mm, image.modality, image.view) == ((0.2, 0.3), "CR", "PA")


def test_monochrome1_is_turned_round_on_the_stored_scale(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(load_image(tmp_path / "a.dcm").pixels, 4095.0 - ramp())
    signed = ramp().astype(np.int16) - 100
    write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", pixels=signed)
    assert np.array_equal(load_image(tmp_path / "b.dcm").pixels, -1.0 - signed)


def test_rescale_is_applied_before_turning(tmp_path: Path) -> None:
    rescale = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "RescaleType": "HU"}
    write(tmp_path / "a.dcm", **rescale)
    assert np.array_equal(load_image(tmp_path / "a.dcm").pixels, 2.0 * ramp() - 1000)
    write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **rescale)
    assert np.array_equal(load_image(tmp_path / "b.dcm").pixels, 2.0 * (4095.0 - ramp()) - 1000)


def test_modality_table_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table["LUTDescriptor"].VR = "US"
    table.LUTData = [65535 - 3 * i for i in range(256)]
    table["LUTData"].VR = "US"
    write(tmp_path / "a.dcm", ModalityLUTSequence=[table])
    assert np.array_equal(load_image(tmp_path / "a.dcm").pixels, 65535.0 - 3 * ramp())


def test_spacing_by_preference_and_unknown(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", PixelSpacing=[0.5, 0.6])
    assert load_image(tmp_path / "a.dcm").spacing_mm == (0.5, 0.6)
    write(tmp_path / "b.dcm", PixelSpacing=[0, 0.6])
    assert load_image(tmp_path / "b.dcm").spacing_mm == (0.2, 0.3)
    write(tmp_path / "c.dcm", ImagerPixelSpacing=None)
    assert load_image(tmp_path / "c.dcm").spacing_mm == (1.0, 1.0)


def refused(path: Path) -> str:
    with pytest.raises(SampleRefused) as caught:
        load_image(path)
    return caught.value.code


def test_what_cannot_be_decoded_is_refused_with_a_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    write(tmp_path / "cut.dcm")
    cut(tmp_path / "cut.dcm", bytes_off=11)
    write(tmp_path / "rle.dcm", syntax=RLELossless)
    cut(tmp_path / "rle.dcm", bytes_off=30)
    (tmp_path / "text.dcm").write_text("Zwyntarow")
    write(tmp_path / "large.dcm", Rows=65535, Columns=65535)
    write(tmp_path / "palette.dcm", PhotometricInterpretation="PALETTE COLOR")
    codes = {path.stem: refused(path) for path in sorted(tmp_path.iterdir())} | {"gone": refused(tmp_path / "gone")}
    undecodable = dict.fromkeys(["cut", "rle", "text", "gone"], "undecodable")
    assert codes == undecodable | {"large": "too-large", "palette": "colour"}
    assert not caplog.records


def test_threads_read_at_once_without_a_warning(tmp_path: Path) -> None:
    """A file that pydicom warns about, read by threads: with warnings as errors one slip would fail the read."""
    write(tmp_path / "a.dcm", Rows=5)
    with pytest.warns(UserWarning, match="excess padding"):
        _ = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    wrong: list[SampleRefused] = []

    def read() -> None:
        try:
            for _ in range(20):
                load_image(tmp_path / "a.dcm")
        except SampleRefused as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def chest() -> np.ndarray:
    """Values of 12 bits in an even spread, as a chest's shades."""
    return np.linspace(400, 3600, 48 * 40).astype(np.uint16).reshape(48, 40)


@pytest.mark.parametrize(
    ("window", "refused"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 1}, True),
        ({"WindowCenter": 2000, "WindowWidth": 20}, True),
        ({"WindowCenter": 127, "WindowWidth": 255}, True),  # of an image of 8 bits
        ({"WindowCenter": 40, "WindowWidth": 400}, True),  # of soft tissue in CT
        ({"WindowCenter": 2000, "WindowWidth": 600}, False),
        ({"WindowCenter": 2000, "WindowWidth": 0}, False),  # none
        ({"WindowCenter": 2048, "WindowWidth": 4096}, False),
    ],
)
def test_a_window_that_leaves_no_shades_is_refused(tmp_path: Path, window: dict[str, float], refused: bool) -> None:
    write(tmp_path / "a.dcm", pixels=chest(), **window)
    if not refused:
        assert np.unique(load_image(tmp_path / "a.dcm").pixels).size > 100
        return
    with pytest.raises(SampleRefused) as no:
        load_image(tmp_path / "a.dcm")
    assert no.value.code == "bad-voi-lut"


RAW = {"PresentationIntentType": "FOR PROCESSING", "Modality": "DX"}


@pytest.mark.parametrize(
    ("elements", "refused"),
    [
        ({"PresentationLUTShape": "INVERSE"}, True),
        ({**RAW, "PixelIntensityRelationshipSign": 1}, True),
        ({**RAW, "PixelIntensityRelationshipSign": -1, "PhotometricInterpretation": "MONOCHROME1"}, True),
        ({**RAW, "PixelIntensityRelationshipSign": -1}, False),
        ({**RAW, "PixelIntensityRelationshipSign": 1, "PhotometricInterpretation": "MONOCHROME1"}, False),
        ({"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}, False),
        ({"PresentationIntentType": "FOR PRESENTATION", "PixelIntensityRelationshipSign": 1}, False),  # shown as is
    ],
)
def test_an_image_that_contradicts_itself_on_what_is_bright_is_refused(
    tmp_path: Path, elements: dict[str, Any], refused: bool
) -> None:
    write(tmp_path / "a.dcm", pixels=chest(), **elements)
    if not refused:
        assert load_image(tmp_path / "a.dcm").pixels.shape == (48, 40)
        return
    with pytest.raises(SampleRefused) as no:
        load_image(tmp_path / "a.dcm")
    assert no.value.code == "contradictory-polarity"


@pytest.mark.parametrize(
    ("ratio", "spacing"), [(["1", "2"], (0.5, 1.0)), (["3", "2"], (1.5, 1.0)), (["1", "0"], (1, 1))]
)
def test_without_a_spacing_the_shape_of_pixels_counts(
    tmp_path: Path, ratio: list[str], spacing: tuple[float, float]
) -> None:
    write(tmp_path / "a.dcm", pixels=chest(), ImagerPixelSpacing=None, PixelAspectRatio=ratio)
    assert load_image(tmp_path / "a.dcm").spacing_mm == spacing
