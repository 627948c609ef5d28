"""DICOM files of every transfer syntax, made of the same pixels."""

import io
from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.client.cohort.dicoms import write

LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
)
_NATIVE = LOSSLESS[:4]


def smooth(rows: int = 32, columns: int = 40) -> NDArray[np.uint16]:
    """Values of 12 bits that change slowly."""
    row, column = np.mgrid[:rows, :columns]
    return (2000 + 900 * np.sin(row / 5) + 800 * np.cos(column / 7)).astype(np.uint16)


def write_encoded(path: Path, syntax: str, pixels: NDArray[np.uint16], patient: str = "MRN-7714423") -> None:
    """Write an X-ray in a lossless syntax."""
    write(path, patient, pixels=pixels, syntax=syntax if syntax in _NATIVE else ExplicitVRLittleEndian)
    if syntax in (JPEGLSLossless, JPEG2000Lossless, RLELossless):
        ds = dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    elif syntax in (JPEGLossless, JPEGLosslessSV1):
        kinds = {
            JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
            JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        }
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax


def write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an X-ray as JPEG baseline, of 8 bits and with losses."""
    write(path, pixels=pixels, BitsStored=8, HighBit=7)
    ds, stream = dcmread(path), io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=95)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([stream.getvalue()])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
