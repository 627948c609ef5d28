"""Three hospitals' phantom heads: a DICOM series a patient at one, BIDS data sets of NIfTI at two, from one seed.

Not patients: volumes drawn from a biological age = Ω + gap, gap ~ N(0, σ²), with follow-up from a planted hazard ratio
per year of true gap, as the chest phantoms have. Voxels are large, so that two cores render and learn them in minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scipy.ndimage import gaussian_filter

from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.demo.dicom import IMAGE_COMMENTS, Exam
from fedage.deploy.demo.follow_up import simulate_follow_up
from fedage.deploy.demo.heads import BrainSigns, FloatVolume, Head, ThickSlices, render, render_slices
from fedage.deploy.demo.phantoms import (
    DAYS_PER_YEAR,
    HEALTHY_FRACTION,
    IMAGES_FOLDER,
    OUTCOMES_FILE,
    Planted,
    Truth,
    drawn_exams,
    generator_of,
    planted,
    write_outcomes,
)

GAP_SD_YEARS = 3.5


@dataclass(frozen=True)
class MRScanner:
    """One MR system: everything about a volume that is not the patient.

    Parameters
    ----------
    manufacturer
        As in the header.
    writes
        `dicom` (a series of slices) or `bids` (NIfTI with tables).
    shape, spacing_mm
        Voxels to the right, front and up, and their side.
    up_mm
        Distance of voxels along up, if another.
    slice_mm
        Thickness of axial slices `up_mm` apart, of a clinical 2D protocol; none for a volume.
    axes
        Where the stored axes point, e.g. `PSR`; of a BIDS volume.
    gain
        Stored value of a signal of 1.
    gamma
        Exponent of the receiver on the signal.
    noise_sd
        Of the receiver, as part of a signal of 1.
    blur_mm
        SD of the point spread.
    """

    manufacturer: str
    writes: Literal["dicom", "bids"]
    shape: tuple[int, int, int]
    spacing_mm: float
    axes: str
    gain: float
    gamma: float
    noise_sd: float
    blur_mm: float
    up_mm: float | None = None
    slice_mm: float | None = None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Distances of voxels to the right, front and up."""
        return self.spacing_mm, self.spacing_mm, self.up_mm or self.spacing_mm


@dataclass(frozen=True)
class BrainHospital:
    """One site. Ages at exam are uniform between the two bounds."""

    name: str
    title: str
    age_min_years: float
    age_max_years: float
    patient_prefix: str
    scanner: MRScanner


BRAIN_HOSPITALS: tuple[BrainHospital, ...] = (
    BrainHospital(
        name="harbour",
        title="Harbour Clinic",
        age_min_years=45.0,
        age_max_years=85.0,
        patient_prefix="HC",
        scanner=MRScanner("Phantom Imaging", "dicom", (38, 46, 38), 5.0, "RAS", 900.0, 1.0, 0.015, 1.5),
    ),
    BrainHospital(
        name="north",
        title="North County Hospital",
        age_min_years=40.0,
        age_max_years=80.0,
        patient_prefix="NCH",
        scanner=MRScanner("Phantom Magnets", "bids", (36, 42, 36), 5.5, "PSR", 350.0, 0.9, 0.025, 2.0),
    ),
    BrainHospital(
        name="valley",
        title="Valley University Hospital",
        age_min_years=45.0,
        age_max_years=85.0,
        patient_prefix="V",
        scanner=MRScanner("Phantom Resonance", "bids", (38, 46, 40), 5.0, "LAS", 2500.0, 1.1, 0.02, 1.0),
    ),
)
"""In the order of their names, which is the order in which everything is summed."""


def planted_in_brains(hospitals: Sequence[BrainHospital] = BRAIN_HOSPITALS) -> Planted:
    """What the phantoms of these hospitals are rendered with."""
    return planted(hospitals, gap_sd_years=GAP_SD_YEARS)


def render_brains(
    out_dir: Path,
    *,
    seed: int,
    patients_per_site: int,
    hospitals: Sequence[BrainHospital] = BRAIN_HOSPITALS,
) -> Planted:
    """Render every hospital into `out_dir/<name>/` and say what was planted."""
    for hospital in hospitals:
        render_brain_hospital(hospital, out_dir=out_dir / hospital.name, seed=seed, patients=patients_per_site)
    return planted_in_brains(hospitals)


def render_brain_hospital(hospital: BrainHospital, *, out_dir: Path, seed: int, patients: int) -> list[Truth]:
    """Write one hospital's volumes to `out_dir/images` and their outcomes to `out_dir/outcomes.csv`.

    Returns
    -------
    The truth behind every patient, in the order of the table.
    """
    images = out_dir / IMAGES_FOLDER
    exams, gap_years, volumes = draw_patients(hospital, seed=seed, patients=patients)
    people = generator_of(seed, hospital, "healthy")
    healthy = people.random(patients) < HEALTHY_FRACTION
    ages = np.array([exam.age_days / DAYS_PER_YEAR for exam in exams], dtype=np.float64)
    follow_up = simulate_follow_up(ages, gap_years, rng=generator_of(seed, hospital, "follow-up"))
    truths = []
    for i, exam in enumerate(exams):
        stored = volumes(i)
        if hospital.scanner.writes == "dicom":
            patient, path = exam.patient_id, images / f"ST{i:06d}"
            write_series(path, stored, exam=exam, hospital=hospital)
        else:
            patient = f"sub-{exam.patient_id}"
            path = images / patient / "anat" / f"{patient}_T1w.nii.gz"
            write_nifti(path, stored, scanner=hospital.scanner)
        truths.append(
            Truth(
                patient_id=patient,
                age_years=float(ages[i]),
                true_gap_years=float(gap_years[i]),
                is_male=exam.is_male,
                healthy=bool(healthy[i]),
                time_years=float(follow_up.time_years[i]),
                event=bool(follow_up.event[i]),
                image=path,
            )
        )
    if hospital.scanner.writes == "bids":
        _write_bids_tables(images, truths, scanner=hospital.scanner)
    write_outcomes(out_dir / OUTCOMES_FILE, truths)
    return truths


def draw_patients(
    hospital: BrainHospital, *, seed: int, patients: int
) -> tuple[list[Exam], FloatArray, Callable[[int], NDArray[np.uint16]]]:
    """Exams, true gaps (n,) in years, and what the scanner stores of a patient by number, (I, J, K) in RAS+."""
    people = generator_of(seed, hospital, "people")
    exams = drawn_exams(hospital, patients, seed=seed, rng=people)
    gap_years = GAP_SD_YEARS * people.standard_normal(patients)

    def volume(i: int) -> NDArray[np.uint16]:
        rng = generator_of(seed, hospital, f"head {i}")
        signs = BrainSigns.of(exams[i].age_days / DAYS_PER_YEAR + float(gap_years[i]), rng=rng)
        head = Head.of(is_male=exams[i].is_male, rng=rng)
        return receive(_signal(signs, head, scanner=hospital.scanner, rng=rng), scanner=hospital.scanner, rng=rng)

    return exams, gap_years, volume


def _signal(signs: BrainSigns, head: Head, *, scanner: MRScanner, rng: np.random.Generator) -> FloatVolume:
    """(I, J, K); a stack of thick slices lies anywhere within ± half their distance."""
    shape, spacing_mm, between_mm = scanner.shape, scanner.spacing_mm, scanner.voxel_mm[2]
    if scanner.slice_mm is not None:
        slices = ThickSlices(thickness_mm=scanner.slice_mm, apart_mm=between_mm)
        phase = float(rng.uniform(-0.5, 0.5))
        return render_slices(signs, head, shape=shape, spacing_mm=spacing_mm, slices=slices, phase=phase)
    if scanner.up_mm is None:
        return render(signs, head, shape=shape, spacing_mm=spacing_mm)
    up_mm = (np.arange(shape[2]) - (shape[2] - 1) / 2) * between_mm
    return render(signs, head, shape=shape, spacing_mm=spacing_mm, up_mm=up_mm)


def receive(signal: FloatVolume, *, scanner: MRScanner, rng: np.random.Generator) -> NDArray[np.uint16]:
    """What the scanner stores of a signal (I, J, K): blur, characteristic curve, Rician noise, gain of ±15 %."""
    # A thick slice's own profile is all the blur along up.
    sides = [*scanner.voxel_mm[:2], np.inf if scanner.slice_mm else scanner.voxel_mm[2]]
    blurred = gaussian_filter(signal, [scanner.blur_mm / side for side in sides]) ** scanner.gamma
    real, imaginary = scanner.noise_sd * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(blurred + real, imaginary)
    gain = scanner.gain * np.exp(0.15 * rng.standard_normal())
    return np.asarray(np.clip(np.rint(gain * magnitude), 0, 32767), dtype=np.uint16)


def write_nifti(path: Path, stored: NDArray[np.uint16], *, scanner: MRScanner) -> None:
    """A volume (I, J, K) in RAS+ to a NIfTI file with the scanner's axes, its middle at the origin of the world."""
    affine = ras_affine(stored.shape, scanner.voxel_mm)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(scanner.axes))
    turned = apply_orientation(stored, turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(turned, affine @ inv_ornt_aff(turn, stored.shape))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = IMAGE_COMMENTS
    nib.save(image, path)


def ras_affine(shape: tuple[int, ...], voxel_mm: tuple[float, float, float]) -> FloatArray:
    """Voxel to world, (4, 4) in mm, of a volume whose middle is the origin."""
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = [-side * (count - 1) / 2 for side, count in zip(voxel_mm, shape, strict=True)]
    return affine


def write_series(folder: Path, stored: NDArray[np.uint16], *, exam: Exam, hospital: BrainHospital) -> None:
    """A volume (I, J, K) in RAS+ as a DICOM series of axial slices; DICOM's axes go to the left and to the back."""
    scanner = hospital.scanner
    spacing, _, between = scanner.voxel_mm
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras_affine(stored.shape, scanner.voxel_mm)
    # Rows from front to back, columns from right to left: as radiologists look at them.
    slices = stored[::-1, ::-1].transpose(2, 1, 0)  # (K, J, I)
    corner = affine @ np.array([stored.shape[0] - 1, stored.shape[1] - 1, 0, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in enumerate(slices):
        dataset = _header(exam, hospital)
        dataset.SOPInstanceUID = exam.uid(f"instance {k}")
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [float(corner[0]), float(corner[1]), float(corner[2] + k * between)]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [spacing, spacing]
        dataset.SliceThickness, dataset.SpacingBetweenSlices = scanner.slice_mm or between, between
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = np.ascontiguousarray(pixels).astype("<u2").tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / f"IM{k:04d}.dcm", enforce_file_format=True, overwrite=True)


def _header(exam: Exam, hospital: BrainHospital) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.SOPClassUID = MRImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID = exam.uid("study"), exam.uid("series")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = exam.study_date.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = exam.study_time.strftime("%H%M%S")
    ds.AccessionNumber, ds.ReferringPhysicianName = "", ""
    ds.StudyID, ds.SeriesNumber = "1", 1
    ds.Modality, ds.Manufacturer = "MR", hospital.scanner.manufacturer
    ds.InstitutionName, ds.StudyDescription = hospital.title, "Head (phantom)"
    ds.ScanOptions = ""
    if hospital.scanner.slice_mm is None:
        ds.SeriesDescription = ds.ProtocolName = "T1W 3D rendered"
        ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "GR", "MP", "3D"
        ds.RepetitionTime, ds.EchoTime, ds.InversionTime, ds.FlipAngle = 2300.0, 2.9, 900.0, 9.0
    else:
        ds.SeriesDescription = ds.ProtocolName = "T1W SE TRA rendered"
        ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "SE", "NONE", "2D"
        ds.RepetitionTime, ds.EchoTime, ds.FlipAngle = 550.0, 12.0, 90.0
    ds.PatientName, ds.PatientID = f"Simulated^{exam.patient_id}", exam.patient_id
    ds.PatientBirthDate = exam.birth_date.strftime("%Y%m%d")
    ds.PatientSex = "M" if exam.is_male else "F"
    ds.BodyPartExamined, ds.PatientPosition = "HEAD", "HFS"
    ds.ImageComments, ds.BurnedInAnnotation = IMAGE_COMMENTS, "NO"
    return ds


def _write_bids_tables(folder: Path, truths: Sequence[Truth], *, scanner: MRScanner) -> None:
    about = {"Name": "heads of nobody, rendered by FedAge", "BIDSVersion": "1.9.0"}
    (folder / "dataset_description.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    (folder / "T1w.json").write_text(json.dumps({"Manufacturer": scanner.manufacturer}) + "\n", encoding="utf-8")
    rows = [f"{t.patient_id}\t{t.age_years:.3f}\t{'M' if t.is_male else 'F'}" for t in truths]
    text = "\n".join(["participant_id\tage\tsex", *rows]) + "\n"
    (folder / "participants.tsv").write_text(text, encoding="utf-8")
