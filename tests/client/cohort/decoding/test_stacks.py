"""Slices in space, by hand: even stacks, oblique ones, uneven and incomplete ones."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.decoding.stacks import load_enhanced, load_series
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.dicom.geometry import Stack, build_stack
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import ramp, write

AXIAL = [1.0, 0, 0, 0, 1, 0]
TILT = math.radians(20)
OBLIQUE = [1.0, 0, 0, 0, math.cos(TILT), math.sin(TILT)]
"""Turned by 20 degrees about x: the normal is (0, −sin, cos)."""


def made(depths: list[float], *, orientation: list[float] = AXIAL, spacing: tuple[float, float] = (0.5, 0.8)) -> Any:
    normal = np.cross(orientation[:3], orientation[3:])
    count = len(depths)
    positions = np.array([-10.0, -20.0, 30.0]) + np.array(depths)[:, None] * normal
    return build_stack(positions, np.array([orientation] * count), np.array([spacing] * count))


def test_an_axial_stack_by_hand() -> None:
    stack = made([0.0, 6.0, 3.0])
    assert isinstance(stack, Stack)
    assert stack.order == (0, 2, 1)
    assert not stack.oblique
    assert stack.spacing_mm == pytest.approx((3.0, 0.5, 0.8))
    # voxel (slice 2, row 4, column 5): x = −10 + 5·0.8, y = −20 + 4·0.5, z = 30 + 2·3
    assert stack.affine @ [2, 4, 5, 1] == pytest.approx([-6.0, -18.0, 36.0, 1.0])


def test_an_oblique_stack_by_hand() -> None:
    stack = made([0.0, 2.0, 4.0], orientation=OBLIQUE)
    assert isinstance(stack, Stack)
    assert stack.oblique
    assert stack.spacing_mm == pytest.approx((2.0, 0.5, 0.8))
    # one slice up is 2 mm along (0, −sin 20°, cos 20°)
    assert stack.affine[:3, 0] == pytest.approx([0, -2 * math.sin(TILT), 2 * math.cos(TILT)])


@pytest.mark.parametrize(
    ("depths", "reason"),
    [
        ([0, 3, 6, 9.01], None),  # rounded in the header
        ([0, 3, 6, 12, 15], Reason.MISSING_SLICES),
        ([0, 3, 6, 10.5], Reason.VARIABLE_GAPS),
        ([0, 3, 3, 6], Reason.REPEATED_POSITIONS),
        ([0, 2, 4, 5], Reason.VARIABLE_GAPS),
        ([0, 3, 9], Reason.MISSING_SLICES),
        ([0, 3, 9, 15], Reason.VARIABLE_GAPS),  # 3 6 6: perhaps some are missing, perhaps one is too many
        ([0, 202.5, 203.75, 205], Reason.MISSING_SLICES),
        ([5, 5, 5], Reason.REPEATED_POSITIONS),
        ([0], Reason.NO_GEOMETRY),
        ([0, math.nan, 3], Reason.NO_GEOMETRY),
    ],
)
def test_gaps(depths: list[float], reason: Reason | None) -> None:
    found = made(depths)
    assert (found if isinstance(found, Reason) else None) is reason
    # where the patient lies changes nothing
    assert isinstance(made(depths, orientation=OBLIQUE), Stack) == isinstance(found, Stack)
    assert made([-depth for depth in depths]) == reason or reason is None


def test_slices_that_are_not_parallel_or_sheared() -> None:
    positions = np.array([[0.0, 0, 3 * index] for index in range(4)])
    spacings = np.full((4, 2), 0.5)
    turned = np.array([AXIAL] * 3 + [OBLIQUE])
    assert build_stack(positions, turned, spacings) is Reason.MIXED_ORIENTATION
    tilted_gantry = positions + np.array([[0, 1.0 * index, 0] for index in range(4)])
    assert build_stack(tilted_gantry, np.array([AXIAL] * 4), spacings) is Reason.MIXED_ORIENTATION
    assert build_stack(positions, np.zeros((4, 6)), spacings) is Reason.NO_GEOMETRY
    assert build_stack(positions, np.array([AXIAL] * 4), np.zeros((4, 2))) is Reason.NO_GEOMETRY


def frames(count: int) -> NDArray[np.uint16]:
    return np.stack([ramp() + np.uint16(100 * index) for index in range(count)])


def groups(depths: list[float], *, orientation: list[float] = AXIAL, **left_out: bool) -> dict[str, Any]:
    """Functional groups with slices at these depths, orientation and spacing shared."""
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.8], 3
    plane.ImageOrientationPatient = orientation
    shared.PlaneOrientationSequence = [plane]
    if not left_out:
        shared.PixelMeasuresSequence = [measures]
    normal, each = np.cross(orientation[:3], orientation[3:]), []
    for index, depth in enumerate(depths):
        frame, position, transform = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(part), 4) for part in depth * normal]
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 2, index, "US"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [transform]
        each.append(frame)
    return {
        "SOPClassUID": EnhancedMRImageStorage,
        "Modality": "MR",
        "NumberOfFrames": len(depths),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": each,
    }


def test_an_enhanced_object_is_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write(path, pixels=frames(3), **groups([0, 6, 3], orientation=OBLIQUE))
    found = read_facts(path)
    assert isinstance(found, DicomFacts)
    assert (found.frames, found.spacing_known, found.modality) == (3, True, "MR")
    volume = load_enhanced(path)
    # frames come in the order of their depth, each through its own rescale 2·v + index
    expected = [2.0 * (ramp() + 100.0 * index) + index for index in (0, 2, 1)]
    assert np.array_equal(volume.voxels, np.stack(expected))
    assert volume.stack.spacing_mm == pytest.approx((3.0, 0.5, 0.8), abs=1e-3)
    with pytest.raises(SampleRefused) as refused:
        load_image(path)
    assert refused.value.code == "multi-frame"


def test_enhanced_objects_that_are_no_even_stack_are_out_with_their_reason(tmp_path: Path) -> None:
    wanted = {
        "gaps": (groups([0, 3, 7.5]), Reason.VARIABLE_GAPS),
        "missing": (groups([0, 3, 9]), Reason.MISSING_SLICES),
        "phases": (groups([0, 3, 3]), Reason.REPEATED_POSITIONS),
        "nowhere": (groups([0, 3, 6]) | {"PerFrameFunctionalGroupsSequence": []}, Reason.NO_GEOMETRY),
        "no-spacing": (groups([0, 3, 6], without_spacing=True), Reason.NO_GEOMETRY),
        "short": (groups([0, 3]) | {"NumberOfFrames": 3}, Reason.NO_GEOMETRY),
    }
    for name, (elements, reason) in wanted.items():
        write(tmp_path / name, pixels=frames(3), **elements)
        assert read_facts(tmp_path / name) == Rejected(reason, "MR", "Phantom Imaging"), name
        with pytest.raises(SampleRefused) as refused:
            load_enhanced(tmp_path / name)
        assert refused.value.code == reason, name


def test_a_series_of_files_is_put_together_or_says_why_not(tmp_path: Path) -> None:
    def series(depths: list[float]) -> list[Path]:
        paths = []
        for index, depth in enumerate(depths):
            paths.append(tmp_path / f"{index}.dcm")
            place = {"ImagePositionPatient": [0, 0, depth], "ImageOrientationPatient": AXIAL, "PixelSpacing": [1, 1]}
            write(paths[-1], pixels=frames(4)[index], SOPClassUID=MRImageStorage, Modality="MR", **place)
        return paths

    assert np.array_equal(load_series(series([6, 0, 3])).voxels, frames(3)[[1, 2, 0]].astype(np.float32))
    for depths, reason in (([0, 3, 9], Reason.MISSING_SLICES), ([0, 3, 7.5], Reason.VARIABLE_GAPS)):
        with pytest.raises(SampleRefused) as refused:
            load_series(series(depths))
        assert refused.value.code == reason
