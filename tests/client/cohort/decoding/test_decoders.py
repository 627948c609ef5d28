"""Files that end a decoder, or would take all memory or time, cost themselves and nothing else."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from fedage.client.cohort.decoding import decoder_pool
from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.decoding.nifti import load_volume, read_volume
from fedage.client.cohort.dicom.facts import read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.common.preprocessing.image import SampleRefused
from tests.client.cohort.dicoms import write
from tests.client.cohort.encoded import smooth, write_encoded

CASES = Path(__file__).parents[5] / "shared/cases/decoders"
CHILD_MB = 1500
"""More than a decoder takes by itself with the limit for a small image."""
OWN_MB = 400
"""What the process that asks may grow by, whatever a file says."""


@pytest.fixture(autouse=True)
def no_decoders_left():
    yield
    decoder_pool.close_decoders()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_encoded(tmp_path / "good.dcm", JPEG2000Lossless, smooth())
    return tmp_path / "good.dcm"


def children_mb() -> float:
    """Greatest memory of any child of this process that has ended, those of other tests among them, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def refusal(path: Path) -> str:
    with pytest.raises(SampleRefused) as refused:
        load_image(path)
    return refused.value.code


def restreamed(path: Path, syntax: str, change) -> None:
    """An image of a syntax whose compressed stream, and nothing of its header, is changed."""
    write_encoded(path, syntax, smooth())
    ds = dcmread(path)
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([change(frame)])
    ds.save_as(path)


def sized(marker: bytes, at: int, *, width: int, height: int, form: str = ">HH"):
    """Write another size behind a marker of the stream; JPEG has the height first."""

    def change(frame: bytes) -> bytes:
        start = frame.index(marker) + at
        size = struct.pack(form, height, width)
        return frame[:start] + size + frame[start + len(size) :]

    return change


def jpeg2000_sized(width: int, height: int):
    def change(frame: bytes) -> bytes:
        at = frame.index(b"\xff\x51") + 6
        size = struct.pack(">II", width, height)
        tile = at + 16
        return frame[:at] + size + frame[at + 8 : tile] + size + frame[tile + 8 :]

    return change


def rle(offsets: list[int], body: bytes):
    header = struct.pack("<16L", len(offsets), *offsets, *([0] * (15 - len(offsets))))
    return lambda _frame: header + body


STREAMS = {
    "jpeg-ls 65000": (JPEGLSLossless, sized(b"\xff\xf7", 5, width=65000, height=65000)),
    "jpeg-ls 1 x 65535": (JPEGLSLossless, sized(b"\xff\xf7", 5, width=1, height=65535)),
    "jpeg lossless 65500": (JPEGLosslessSV1, sized(b"\xff\xc3", 5, width=65500, height=65500)),
    "jpeg 2000 60000": (JPEG2000Lossless, jpeg2000_sized(60000, 60000)),
    "jpeg 2000 2^31": (JPEG2000Lossless, jpeg2000_sized(2**31 - 1, 2**31 - 1)),
    "rle offsets beyond": (RLELossless, rle([64, 2**31], b"\x00" * 64)),
    "rle offsets backwards": (RLELossless, rle([2**20, 64], b"\x7f" * 64)),
    "rle runs too many": (RLELossless, rle([64, 96], b"\x81\x00" * 32 + b"\x81\x07" * 64)),
    "rle 15 segments": (RLELossless, rle([64] * 15, b"\x81\x00" * 64)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_lies_about_its_size_is_one_reason(tmp_path: Path, good: Path, name: str) -> None:
    syntax, change = STREAMS[name]
    restreamed(tmp_path / "bad.dcm", syntax, change)
    before, children_before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children_mb()
    began = time.monotonic()
    assert refusal(tmp_path / "bad.dcm") in ("undecodable", "decoder-failed")
    assert time.monotonic() - began < decoder_pool.TIME_LIMIT_S
    decoder_pool.close_decoders()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < OWN_MB
    assert children_mb() <= max(CHILD_MB, children_before_mb)
    assert load_image(good).pixels.shape == smooth().shape


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases/decoders is not beside the repository")
@pytest.mark.parametrize("name", ["jpegls-stream-65000.dcm", "jpeg2000-stream-60000.dcm", "rle-one-run-too-many.dcm"])
def test_files_that_stopped_a_site_are_one_reason(good: Path, name: str) -> None:
    assert refusal(CASES / name) in ("undecodable", "decoder-failed")
    assert load_image(good).pixels.shape == smooth().shape


def test_the_rest_goes_on_while_decoders_end(tmp_path: Path, good: Path) -> None:
    restreamed(tmp_path / "bad.dcm", *STREAMS["jpeg-ls 65000"])
    paths = [good, tmp_path / "bad.dcm"] * 3
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(_code, paths))
    assert codes == ["", "decoder-failed"] * 3


def _code(path: Path) -> str:
    try:
        load_image(path)
    except SampleRefused as refused:
        return refused.code
    return ""


def test_a_decoder_that_hangs_is_ended_at_its_time(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_image(good)
    (decoder,) = decoder_pool._pool().idle
    os.kill(decoder.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder_pool, "TIME_LIMIT_S", 1)
    assert refusal(good) == "decoder-failed"
    monkeypatch.undo()
    assert not Path(f"/proc/{decoder.pid}").exists()
    assert load_image(good).pixels.shape == smooth().shape


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_is_gone_is_started_again(good: Path, number: signal.Signals) -> None:
    load_image(good)
    (decoder,) = decoder_pool._pool().idle
    os.kill(decoder.pid, number)
    assert _code(good) in ("", "decoder-failed")  # the second if it was asked before it was gone
    assert load_image(good).pixels.shape == smooth().shape


def test_a_decoder_is_used_again_and_holds_nothing_of_the_process_that_asks(good: Path) -> None:
    os.environ["FEDAGE_TEST_SECRET"] = "not for decoders"
    try:
        load_image(good)
        (first,) = decoder_pool._pool().idle
        load_image(good)
        (second,) = decoder_pool._pool().idle
        assert first.pid == second.pid
        process = Path(f"/proc/{first.pid}")
        assert b"not for decoders" not in (process / "environ").read_bytes()
        open_files = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
        assert all(name.startswith("pipe:") or name == "/dev/null" for name in open_files), open_files
        assert "torch" not in (process / "maps").read_text()
    finally:
        del os.environ["FEDAGE_TEST_SECRET"]


def test_decoders_end_with_the_process_that_started_them(good: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from fedage.client.cohort.decoding import decoder_pool, images\n"
        "images.load_image(pathlib.Path(sys.argv[1]))\n"
        "print(decoder_pool._pool().idle[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(good)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def volume(path: Path, shape: tuple[int, ...], *, content: bytes, dtype: str = "<f8", cut: int = 0) -> Path:
    """A .nii.gz whose header says this shape and whose voxels are repeated bytes."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(shape)
    header.set_zooms((1.0,) * len(shape))
    header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1\0", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    left = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize - cut
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(header.binaryblock + bytes(4))
        piece = content * (2**20 // len(content))
        while left > 0:
            left -= stream.write(piece[: min(len(piece), left)])
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "content"),
    [
        ((1024, 512, 256), "<f8", bytes(8)),
        ((600, 600, 300), "<f4", b"\0\0\x80\x3f"),
        ((2000, 2000, 60), "<i2", b"\1\0"),
    ],
)
def test_a_volume_that_unpacks_to_far_more_than_it_weighs(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, content: bytes
) -> None:
    path = volume(tmp_path / "bomb.nii.gz", shape, content=content, dtype=dtype)
    before, children_before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children_mb()
    found = read_volume(path)
    assert isinstance(found, Rejected)
    assert found.code is Reason.TOO_LARGE
    with pytest.raises(SampleRefused, match="too-large"):
        load_volume(path)
    decoder_pool.close_decoders()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < OWN_MB
    assert children_mb() <= max(CHILD_MB, children_before_mb)


@pytest.mark.parametrize("cut", [1, 1000, 40_000])
def test_a_volume_cut_off_is_truncated(tmp_path: Path, cut: int) -> None:
    found = read_volume(volume(tmp_path / "a.nii.gz", (30, 30, 30), content=bytes(range(8)), dtype="<i2", cut=cut))
    assert isinstance(found, Rejected)
    assert found.code in (Reason.TRUNCATED, Reason.DAMAGED)


def test_a_volume_comes_through_as_it_is(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(20, 30, 25)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 1.0, 3.0, 1.0])), tmp_path / "a.nii.gz")
    found = load_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(found.pixels, voxels)
    assert found.spacing_mm == (2.0, 1.0, 3.0)


def deflated_bomb(path: Path, *, element: bytes, size: int) -> None:
    write(path, syntax=DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflater.compress(element)
    for _ in range(size // 2**20):
        body += deflater.compress(bytes(2**20))
    path.write_bytes(content[:start] + body + deflater.flush())


@pytest.mark.parametrize(
    "element",
    [
        b"\x09\x00\x10\x00OB\x00\x00\xff\xff\xff\x7f",
        b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\x7f",
        b"\x09\x00\x10\x00SQ\x00\x00\xff\xff\xff\xff",
    ],
    ids=["private value", "pixels", "sequence"],
)
def test_four_deflated_bombs_at_once_take_little(tmp_path: Path, element: bytes) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in range(4)]
    deflated_bomb(paths[0], element=element, size=500 * 2**20)
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    assert paths[0].stat().st_size < 600_000
    code = (
        "import sys, resource, pathlib, concurrent.futures as futures\n"
        "from fedage.client.cohort.dicom.facts import read_facts\n"
        "with futures.ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(read_facts, map(pathlib.Path, sys.argv[1:])))\n"
        "print(*(each.code for each in found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    *codes, peak_mb = done.stdout.split()
    assert codes == ["too-large"] * 4
    assert int(peak_mb) < 1300
    assert isinstance(read_facts(paths[0]), Rejected)
    assert refusal(paths[0]) in ("undecodable", "decoder-failed")


def test_a_process_with_many_open_files_decodes_too(good: Path) -> None:
    """An agent holds databases and samples of every data set open; a new pipe's number may be above 1023."""
    decoder_pool.close_decoders()
    with good.open("rb") as stream:
        taken = [os.dup(stream.fileno()) for _ in range(1100)]
    try:
        assert min(load_image(good).pixels.shape) > 1
        assert decoder_pool._pool().idle
    finally:
        for descriptor in taken:
            os.close(descriptor)
        decoder_pool.close_decoders()


def test_many_threads_share_few_decoders(good: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(load_image, [good] * 24))
    assert len(found) == 24
    assert threading.active_count() < 50
    assert len(decoder_pool._pool().idle) <= (os.cpu_count() or 1)
