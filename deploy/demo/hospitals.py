"""The three hospitals of the demo: who comes there, and what their scanner does to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

WITH_DEFAULT_POLICY = frozenset({"valley"})
"""Sites that keep the policy which `fedage site init` writes; the others have a smaller minimum count."""


@dataclass(frozen=True)
class Scanner:
    """One X-ray system: everything about a picture that is not the patient.

    Parameters
    ----------
    manufacturer, model, modality
        As in the DICOM header; `CR` (storage phosphor), `DX` (flat panel) or `MG` (mammography).
    rows, columns, spacing_mm
        Matrix and pixel spacing; the field of view follows.
    bits_stored
        In 16 allocated.
    photometric
        `MONOCHROME2` stores dense as bright, `MONOCHROME1` dense as dark.
    transfer_syntax
        How the pixels are encoded.
    gain, offset
        Stored value = gain · density + offset as parts of the whole stored range, before noise; density is 0-1.
    gamma
        Exponent of the detector's characteristic curve on density.
    noise_sd
        Standard deviation of the detector noise, as part of the whole stored range.
    blur_mm
        Standard deviation of the Gaussian point spread.
    writes_patient_age
        Whether the header has `PatientAge` (whole years, floored) beside the dates.
    """

    manufacturer: str
    model: str
    modality: Literal["CR", "DX", "MG"]
    rows: int
    columns: int
    spacing_mm: float
    bits_stored: int
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    transfer_syntax: UID
    gain: float
    offset: float
    gamma: float
    noise_sd: float
    blur_mm: float
    writes_patient_age: bool


@dataclass(frozen=True)
class Hospital:
    """One site of the demo. Ages at exam are uniform between the two bounds."""

    name: str
    title: str
    age_min_years: float
    age_max_years: float
    patient_prefix: str
    scanner: Scanner


HOSPITALS: tuple[Hospital, ...] = (
    Hospital(
        name="harbour",
        title="Harbour Clinic",
        age_min_years=45.0,
        age_max_years=85.0,
        patient_prefix="HC",
        scanner=Scanner(
            manufacturer="Phantom Imaging",
            model="FlatPanel 14",
            modality="DX",
            rows=264,
            columns=256,
            spacing_mm=1.5,
            bits_stored=14,
            photometric="MONOCHROME2",
            transfer_syntax=ExplicitVRLittleEndian,
            gain=0.55,
            offset=0.20,
            gamma=1.0,
            noise_sd=0.008,
            blur_mm=0.6,
            writes_patient_age=True,
        ),
    ),
    Hospital(
        name="north",
        title="North County Hospital",
        age_min_years=40.0,
        age_max_years=75.0,
        patient_prefix="NCH-",
        scanner=Scanner(
            manufacturer="Phantom Radiography",
            model="PhosphorPlate 10",
            modality="CR",
            rows=256,
            columns=240,
            spacing_mm=1.6,
            bits_stored=10,
            photometric="MONOCHROME1",
            transfer_syntax=ImplicitVRLittleEndian,
            gain=0.75,
            offset=0.10,
            gamma=1.15,
            noise_sd=0.014,
            blur_mm=1.2,
            writes_patient_age=False,
        ),
    ),
    Hospital(
        name="valley",
        title="Valley University Hospital",
        age_min_years=52.0,
        age_max_years=82.0,
        patient_prefix="V",
        scanner=Scanner(
            manufacturer="Phantom Digital",
            model="Detector 12",
            modality="DX",
            rows=288,
            columns=288,
            spacing_mm=1.35,
            bits_stored=12,
            photometric="MONOCHROME2",
            transfer_syntax=RLELossless,
            gain=0.62,
            offset=0.06,
            gamma=0.9,
            noise_sd=0.011,
            blur_mm=0.9,
            writes_patient_age=True,
        ),
    ),
)
"""In the order of their names, which is the order in which everything is summed."""
