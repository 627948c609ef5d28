"""What is no image for an age model, each with its reason; and the VOI LUT of what is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import ramp, write, write_without_pixels

COLOURED = np.zeros((6, 5, 3), dtype=np.uint8)


def code(path: Path) -> Reason:
    found = read_facts(path)
    assert isinstance(found, Rejected), found
    return found.code


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
        ({"SOPClassUID": uid.SegmentationStorage}, Reason.DERIVED_OBJECT),
        ({"SOPClassUID": uid.RTDoseStorage, "Modality": "RTDOSE"}, Reason.DERIVED_OBJECT),
        ({"NumberOfFrames": "x"}, Reason.UNREADABLE),
    ],
)
def test_one_element_is_enough_to_be_out(tmp_path: Path, elements: dict[str, Any], reason: Reason) -> None:
    if elements.get("NumberOfFrames") == "x":
        write(tmp_path / "a.dcm", NumberOfFrames=77)
        content = (tmp_path / "a.dcm").read_bytes()
        (tmp_path / "a.dcm").write_bytes(content.replace(b"IS\x02\x0077", b"IS\x02\x007x"))
    else:
        write(tmp_path / "a.dcm", **elements)
    assert code(tmp_path / "a.dcm") is reason


def test_no_annotation_or_nothing_said_is_in(tmp_path: Path) -> None:
    for said in ("NO", None):
        write(tmp_path / "a.dcm", **({} if said is None else {"BurnedInAnnotation": said}))
        found = read_facts(tmp_path / "a.dcm")
        assert isinstance(found, DicomFacts)
        assert found.burned_in == (said or "")


def test_colour_is_out_whatever_it_is_called(tmp_path: Path) -> None:
    for photometric in ("RGB", "YBR_FULL"):
        more: dict[str, Any] = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Rows": 6, "Columns": 5}
        more |= {"PhotometricInterpretation": photometric, "BitsStored": 8, "HighBit": 7}
        write(tmp_path / "a.dcm", pixels=COLOURED, **more)
        assert code(tmp_path / "a.dcm") is Reason.COLOUR
        with pytest.raises(SampleRefused) as refused:
            load_image(tmp_path / "a.dcm")
        assert refused.value.code == "colour"


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (uid.BreastTomosynthesisImageStorage, "MG"),
        (uid.UltrasoundMultiFrameImageStorage, "US"),
        (uid.XRayAngiographicImageStorage, "XA"),
        (uid.ComputedRadiographyImageStorage, "CR"),
    ],
)
def test_several_frames_that_are_no_stack_are_out(tmp_path: Path, sop_class: str, modality: str) -> None:
    frames = np.stack([ramp(), ramp(), ramp()])
    write(tmp_path / "a.dcm", pixels=frames, NumberOfFrames=3, SOPClassUID=sop_class, Modality=modality)
    assert read_facts(tmp_path / "a.dcm") == Rejected(Reason.MULTI_FRAME, modality, "Phantom Imaging")
    write(tmp_path / "b.dcm", NumberOfFrames=1, SOPClassUID=sop_class, Modality=modality)
    assert isinstance(read_facts(tmp_path / "b.dcm"), DicomFacts)


@pytest.mark.parametrize(
    ("sop_class", "modality", "reason"),
    [
        (uid.BasicTextSRStorage, "SR", Reason.NOT_AN_IMAGE),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "PR", Reason.NOT_AN_IMAGE),
        (uid.EncapsulatedPDFStorage, "DOC", Reason.NOT_AN_IMAGE),
        (uid.KeyObjectSelectionDocumentStorage, "KO", Reason.NOT_AN_IMAGE),
        (uid.RawDataStorage, "MR", Reason.NOT_AN_IMAGE),
        (uid.TwelveLeadECGWaveformStorage, "ECG", Reason.NOT_AN_IMAGE),
        (uid.DigitalMammographyXRayImageStorageForPresentation, "MG", Reason.NO_PIXELS),
    ],
)
def test_objects_without_pixels(tmp_path: Path, sop_class: str, modality: str, reason: Reason) -> None:
    write_without_pixels(tmp_path / "a.dcm", SOPClassUID=sop_class, Modality=modality)
    assert code(tmp_path / "a.dcm") is reason


def test_a_window_is_applied_to_projections_only(tmp_path: Path) -> None:
    """The linear function of PS3.3 section C.11.2.1.2: y = ((x − (c − 0.5))/(w − 1) + 0.5)·4095, clamped."""
    window = {"WindowCenter": [100, 7], "WindowWidth": [101, 7]}
    write(tmp_path / "a.dcm", **window)
    x = ramp().astype(np.float64)
    expected = np.clip(((x - 99.5) / 100 + 0.5) * 4095, 0, 4095)
    assert load_image(tmp_path / "a.dcm").pixels == pytest.approx(expected, abs=0.01)
    write(tmp_path / "b.dcm", Modality="CT", **window)
    assert np.array_equal(load_image(tmp_path / "b.dcm").pixels, ramp())
    write(tmp_path / "c.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    assert load_image(tmp_path / "c.dcm").pixels == pytest.approx(4095 - expected, abs=0.01)
    write(tmp_path / "d.dcm", WindowCenter=0, WindowWidth=0)  # a placeholder
    assert np.array_equal(load_image(tmp_path / "d.dcm").pixels, ramp())


def test_a_sigmoid_window_is_applied(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", WindowCenter=100, WindowWidth=80, VOILUTFunction="SIGMOID")
    expected = 4095 / (1 + np.exp(-4 * (ramp().astype(np.float64) - 100) / 80))
    assert load_image(tmp_path / "a.dcm").pixels == pytest.approx(expected, abs=0.01)


def voi_table(*, first: int, values: list[int]) -> list[Dataset]:
    table = Dataset()
    table.LUTDescriptor = [len(values), first, 16]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = values
    table["LUTData"].VR = "US"
    return [table]


def test_a_voi_table_comes_before_the_window(tmp_path: Path) -> None:
    values = [10 * index**2 for index in range(64)]
    window = {"WindowCenter": 100, "WindowWidth": 101}
    write(tmp_path / "a.dcm", VOILUTSequence=voi_table(first=20, values=values), **window)
    # below 20 the first entry, above 83 the last
    expected = np.array(values)[np.clip(ramp().astype(int) - 20, 0, 63)]
    assert np.array_equal(load_image(tmp_path / "a.dcm").pixels, expected)


def test_a_broken_voi_table_has_its_code(tmp_path: Path) -> None:
    table = voi_table(first=0, values=[1, 2, 3])
    table[0].LUTDescriptor = [3, 0, 99]  # entries of 99 bits
    write(tmp_path / "a.dcm", VOILUTSequence=table)
    with pytest.raises(SampleRefused) as refused:
        load_image(tmp_path / "a.dcm")
    assert refused.value.code == "bad-voi-lut"
