"""Small real DICOM files, written by pydicom, for the tests of the cohort store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore

UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
BIRTH_DATE, NAME = "19610317", "Zwyntarow^Quillemina"


def ramp(rows: int = 6, columns: int = 5) -> NDArray[np.uint16]:
    """Values of 12 bits that differ everywhere, in small images."""
    return (np.arange(rows * columns, dtype=np.uint16) * 7 + 3).reshape(rows, columns) & np.uint16(0xFFF)


def dataset(patient: str = "MRN-7714423", *, pixels: NDArray[Any] | None = None, **elements: Any) -> Dataset:
    """An X-ray of one patient; an element given as None is left out."""
    pixels = ramp() if pixels is None else pixels
    ds = Dataset()
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid()
    ds.StudyDate, ds.Modality, ds.Manufacturer = "20210317", "CR", "Phantom Imaging"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = NAME, patient, BIRTH_DATE, "F"
    ds.ViewPosition = "PA"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.dtype.itemsize * 8, 12, 11
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.ImagerPixelSpacing = [0.2, 0.3]
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    ds._stored = pixels
    return ds


def write(
    path: Path,
    patient: str = "MRN-7714423",
    *,
    syntax: str = ExplicitVRLittleEndian,
    add: Dataset | None = None,
    **elements: Any,
) -> Dataset:
    """Write a dataset to `path`, encoded in `syntax`, with the elements of `add` as they are; give it back."""
    ds = dataset(patient, **elements)
    ds.update(add or Dataset())
    pixels: NDArray[Any] = ds._stored
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW"
    if syntax == RLELossless:
        ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return ds


def slice_at(
    depth_mm: float,
    *,
    series: str = "1.2.826.0.1.5",
    study: str = "1.2.826.0.1.4",
    orientation: Sequence[float] = AXIAL,
) -> dict[str, Any]:
    """Elements of an MR slice so far along its normal from (−10, −20, 30), rows 0.5 mm apart, columns 0.8 mm."""
    position = np.array([-10.0, -20.0, 30.0]) + depth_mm * np.cross(orientation[:3], orientation[3:])
    return {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "ViewPosition": None,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "ImagePositionPatient": [round(float(part), 4) for part in position],
        "ImageOrientationPatient": [round(float(part), 6) for part in orientation],
        "PixelSpacing": [0.5, 0.8],
    }


def write_without_pixels(path: Path, patient: str = "MRN-7714423", **elements: Any) -> None:
    """A DICOM file with everything but an image."""
    ds = dataset(patient, **elements)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)


def cut(path: Path, *, bytes_off: int) -> None:
    """Take bytes off the end of a file."""
    path.write_bytes(path.read_bytes()[:-bytes_off])


def all_of(store: CohortStore) -> Selection:
    """Every patient of a store, of any modality and age."""
    return select(store, modalities=(), age_min_years=0, age_max_years=130)
