"""One phantom picture as a DICOM file, the way its hospital's scanner would write it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from fedage.deploy.demo.hospitals import Hospital

IMAGE_COMMENTS = "phantom rendered by FedAge, not a patient"


@dataclass(frozen=True)
class Exam:
    """What the header says of one exam. `entropy` makes its identifiers: the same words, the same UIDs."""

    patient_id: str
    birth_date: datetime.date
    study_date: datetime.date
    study_time: datetime.time
    is_male: bool
    entropy: tuple[str, ...]

    @property
    def age_days(self) -> int:
        """Age at exam."""
        return (self.study_date - self.birth_date).days

    @property
    def whole_years(self) -> int:
        """Age at exam in completed years, as `PatientAge` holds it."""
        before_birthday = (self.study_date.month, self.study_date.day) < (self.birth_date.month, self.birth_date.day)
        return self.study_date.year - self.birth_date.year - before_birthday

    def uid(self, what: str) -> UID:
        """A UID of this exam's `what` (study, series, instance)."""
        return generate_uid(entropy_srcs=[*self.entropy, what])


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the header says of one picture of an exam; `name` tells its pictures apart."""

    study: str = "Chest PA (phantom)"
    body_part: str = "CHEST"
    view: str = "PA"
    laterality: str = "U"
    orientation: tuple[str, str] = ("L", "F")
    name: str = ""
    number: int = 1


_CLASSES = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
}


def write_dicom(
    path: Path, *, stored: NDArray[np.uint16], exam: Exam, hospital: Hospital, picture: Picture | None = None
) -> None:
    """Write stored values (H, W) and the exam's header to `path`, encoded as the hospital's scanner does."""
    picture = picture or Picture()
    dataset = _patient_and_study(exam, hospital, picture)
    _pixels(dataset, stored, hospital, picture)
    scanner = hospital.scanner
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = scanner.transfer_syntax
    if scanner.transfer_syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # as the pixels stand before they are encoded
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True, overwrite=True)


def _patient_and_study(exam: Exam, hospital: Hospital, picture: Picture) -> Dataset:
    scanner = hospital.scanner
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = _CLASSES[scanner.modality]
    ds.SOPInstanceUID = exam.uid(f"instance {picture.name}".strip())
    ds.StudyInstanceUID = exam.uid("study")
    ds.SeriesInstanceUID = exam.uid("series")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = exam.study_date.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = exam.study_time.strftime("%H%M%S")
    ds.AccessionNumber = ""
    ds.StudyID = "1"
    ds.SeriesNumber, ds.InstanceNumber = 1, picture.number
    ds.Modality = scanner.modality
    ds.Manufacturer = scanner.manufacturer
    ds.ManufacturerModelName = scanner.model
    ds.InstitutionName = hospital.title
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = picture.study
    ds.PatientName = f"Simulated^{exam.patient_id}"
    ds.PatientID = exam.patient_id
    ds.PatientBirthDate = exam.birth_date.strftime("%Y%m%d")
    ds.PatientSex = "M" if exam.is_male else "F"
    if scanner.writes_patient_age:
        ds.PatientAge = f"{exam.whole_years:03d}Y"
    ds.BodyPartExamined = picture.body_part
    ds.ViewPosition = picture.view
    ds.PatientOrientation = list(picture.orientation)
    ds.ImageComments = IMAGE_COMMENTS
    return ds


def _pixels(ds: Dataset, stored: NDArray[np.uint16], hospital: Hospital, picture: Picture) -> None:
    scanner = hospital.scanner
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = scanner.photometric
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = 16
    ds.BitsStored = scanner.bits_stored
    ds.HighBit = scanner.bits_stored - 1
    ds.PixelRepresentation = 0
    ds.ImagerPixelSpacing = [scanner.spacing_mm, scanner.spacing_mm]
    ds.BurnedInAnnotation = "NO"
    if scanner.modality != "CR":
        ds.ImageLaterality = picture.laterality
        ds.DetectorType = "SCINTILLATOR"
        ds.PresentationIntentType = "FOR PRESENTATION"
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = -1 if scanner.photometric == "MONOCHROME2" else 1
        ds.PresentationLUTShape = "IDENTITY" if scanner.photometric == "MONOCHROME2" else "INVERSE"
        ds.LossyImageCompression = "00"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    else:
        ds.Laterality = ""
        ds.PixelSpacing = [scanner.spacing_mm, scanner.spacing_mm]
    low, high = (int(v) for v in np.percentile(stored, (0.5, 99.5)))
    ds.WindowCenter, ds.WindowWidth = (low + high) // 2, max(high - low, 1)
    ds.PixelData = stored.astype("<u2").tobytes()
