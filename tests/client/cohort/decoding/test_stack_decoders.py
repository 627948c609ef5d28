"""Slices and frames whose compressed stream lies about its size end a decoder's process, not the one that asks."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import EnhancedMRImageStorage, JPEG2000Lossless, JPEGLSLossless, MRImageStorage, RLELossless

from fedage.client.cohort.decoding import decoder_pool, images, stacks
from fedage.client.cohort.decoding.stacks import load_enhanced, load_series
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.decoding.test_decoders import CHILD_MB, OWN_MB, STREAMS, children_mb
from tests.client.cohort.decoding.test_stacks import groups
from tests.client.cohort.dicoms import write
from tests.client.cohort.encoded import smooth, write_encoded

AXIAL = [1.0, 0, 0, 0, 1, 0]
DEPTHS = [0.0, 3.0, 6.0]
HOSTILE = {
    "jpeg-ls 65000": "jpeg-ls 65000",
    "jpeg 2000 60000": "jpeg 2000 60000",
    "rle runs too many": "rle runs too many",
    "rle 15 segments": "rle 15 segments",
    "jpeg 2000 2^31": "jpeg 2000 2^31",
    "jpeg lossless 65500": "jpeg lossless 65500",
}


@pytest.fixture(autouse=True)
def no_decoders_left() -> Any:
    yield
    decoder_pool.close_decoders()


@pytest.fixture
def nothing_is_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that asks must not come near a decoder."""

    def decoded(*_: Any, **__: Any) -> Any:
        raise AssertionError("decoded in the process that asks")

    monkeypatch.setattr(stacks, "pixel_array", decoded)
    monkeypatch.setattr(images, "pixel_array", decoded)


def streamed(path: Path, syntax: str, change: Any = None) -> bytes:
    """The compressed stream of a good image, changed."""
    write_encoded(path, syntax, smooth())
    (frame,) = generate_frames(dcmread(path).PixelData, number_of_frames=1)
    return frame if change is None else change(frame)


def enhanced(path: Path, syntax: str, frames: list[bytes]) -> Path:
    """An enhanced object of frames that are compressed already."""
    write(
        path,
        pixels=np.stack([smooth()] * len(frames)),
        **groups([3.0 * k for k in range(len(frames))]) | {"SOPClassUID": EnhancedMRImageStorage},
    )
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds.save_as(path)
    return path


def series(folder: Path, syntax: str, frames: list[bytes]) -> list[Path]:
    """Single files of slices that are compressed already."""
    paths = []
    for number, frame in enumerate(frames):
        paths.append(folder / f"slice-{number}.dcm")
        place = {"ImagePositionPatient": [0, 0, 3 * number], "ImageOrientationPatient": AXIAL, "PixelSpacing": [1, 1]}
        write(paths[-1], pixels=smooth(), SOPClassUID=MRImageStorage, Modality="MR", **place)
        ds = dcmread(paths[-1])
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR = "OB"
        ds.save_as(paths[-1])
    return paths


@pytest.mark.parametrize("kind", ["enhanced", "series"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_stack_with_a_stream_that_lies_is_one_reason(
    tmp_path: Path, name: str, kind: str, nothing_is_decoded_here: None
) -> None:
    syntax, change = STREAMS[HOSTILE[name]]
    good, bad = streamed(tmp_path / "good.dcm", syntax), streamed(tmp_path / "bad.dcm", syntax, change)
    before, children_before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children_mb()
    for frames in ([good, bad, good], [bad, bad, bad]):
        if kind == "enhanced":
            load, stack = load_enhanced, enhanced(tmp_path / "stack.dcm", syntax, frames)
        else:
            load, stack = load_series, series(tmp_path, syntax, frames)
        with pytest.raises(SampleRefused) as refused:
            load(stack)
        assert refused.value.code in ("undecodable", "decoder-failed")
    decoder_pool.close_decoders()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < OWN_MB
    assert children_mb() <= max(CHILD_MB, children_before_mb)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_good_stacks_come_through(tmp_path: Path, syntax: str, nothing_is_decoded_here: None) -> None:
    good = streamed(tmp_path / "good.dcm", syntax)
    volume = load_enhanced(enhanced(tmp_path / "stack.dcm", syntax, [good] * 3))
    expected = np.stack([2.0 * smooth() + index for index in range(3)]).astype(np.float32)
    assert np.array_equal(volume.voxels, expected)
    voxels = load_series(series(tmp_path, syntax, [good] * 3)).voxels
    assert np.array_equal(voxels, np.stack([smooth()] * 3).astype(np.float32))
