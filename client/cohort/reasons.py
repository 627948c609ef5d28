"""Reason codes of files that are not in the cohort, each with a description and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of rejected files. A modality that a campaign does not want is no reason: campaigns choose."""

    NOT_DICOM = "not-dicom"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NO_PIXELS = "no-pixels"
    NOT_AN_IMAGE = "not-an-image"
    DERIVED_OBJECT = "derived-object"
    COLOUR = "colour"
    BURNED_IN = "burned-in-annotation"
    MULTI_FRAME = "multi-frame"
    NO_GEOMETRY = "no-geometry"
    MIXED_ORIENTATION = "mixed-orientation"
    REPEATED_POSITIONS = "repeated-positions"
    VARIABLE_GAPS = "variable-slice-gaps"
    MISSING_SLICES = "missing-slices"
    TOO_LARGE = "too-large"
    DECODER_FAILED = "decoder-failed"
    CONTRADICTORY_BITS = "contradictory-bits"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    NO_IDENTITY = "no-image-identity"
    NO_PATIENT_ID = "no-patient-id"
    NO_AGE = "no-age"
    UNREADABLE_AGE = "unreadable-age"
    IMPLAUSIBLE_AGE = "implausible-age"
    CONTRADICTORY_AGE = "contradictory-age"
    UNRELIABLE_DATES = "unreliable-dates"
    DUPLICATE_IMAGE = "duplicate-image"
    DIRECTORY = "dicomdir"
    MISSING_FILE = "missing-file"
    ENCRYPTED = "encrypted-archive"
    BROKEN_ARCHIVE = "broken-archive"
    ARCHIVE_TOO_LARGE = "archive-too-large"
    NESTED_ARCHIVE = "nested-archive"
    REPEATED_NAME = "repeated-name"
    NOT_NIFTI = "not-nifti"
    NOT_PACKED = "not-packed"
    PACKED_OTHERWISE = "packed-otherwise"
    PACKED_TWICE = "packed-twice"
    POINTER = "content-not-fetched"
    DAMAGED = "damaged"
    NOT_3D = "not-3d"
    NOT_GREY = "not-grey-values"
    BAD_AFFINE = "bad-affine"
    OTHER_GRID = "other-grid"
    NOT_FINITE = "not-finite"
    NO_CONTRAST = "no-contrast"
    NOT_IN_TABLE = "not-in-table"
    ZEROS_DIFFER = "leading-zeros-differ"
    UNREADABLE_TABLE = "unreadable-table"
    NO_AGE_OF_SESSION = "no-age-of-session"
    SEVERAL_AGES = "several-ages"
    MISNAMED = "misnamed"
    SEVERAL_PEOPLE = "several-people"
    QUALITY_CONTROL = "quality-control"
    ANIMAL = "animal"
    ZERO_AGE = "zero-age"

    @property
    def description(self) -> str:
        """What is wrong with the file, to be read after "the file"."""
        return _TEXTS[self][0]

    @property
    def remedy(self) -> str:
        """What the hospital can do about it."""
        return _TEXTS[self][1]

    @property
    def sentence(self) -> str:
        """Description and remedy in one sentence."""
        return f"{self.description}; {self.remedy}"


_NOTHING = "nothing to mend"
_TEXTS = {
    Reason.NOT_DICOM: (
        "is no DICOM file (neither the DICM prefix nor a data set without one)",
        "remove it from the folder or export it again",
    ),
    Reason.UNREADABLE: (
        "cannot be opened, or its header breaks its format's rules",
        "check its permissions, then export it again; unreadable files are tried again at every indexing",
    ),
    Reason.TRUNCATED: ("ends before its header or its pixels do", "copy it again from the archive"),
    Reason.NO_PIXELS: ("is of an image's class and holds no pixels", "export it with its pixels"),
    Reason.NOT_AN_IMAGE: (
        "is a report, a presentation state, a document or another object without an image",
        _NOTHING,
    ),
    Reason.DERIVED_OBJECT: ("is a segmentation, a dose or a map drawn from images, not an exam's image", _NOTHING),
    Reason.COLOUR: ("is a colour image, and every estimator reads grey values", "export the original, not a rendering"),
    Reason.BURNED_IN: (
        "says that text is burned into its pixels, which may name the patient",
        "export the original without the annotation; a wrong flag is mended at its source",
    ),
    Reason.MULTI_FRAME: (
        "holds several frames that are no stack of slices (a cine, a tomosynthesis)",
        "export the projection or the synthetic view, if there is one",
    ),
    Reason.NO_GEOMETRY: (
        "holds, or belongs to a series of, slices without position, orientation or spacing",
        "export it with its positions (ImagePositionPatient, or its functional groups)",
    ),
    Reason.MIXED_ORIENTATION: (
        "holds, or belongs to a series of, slices that are not of one size, parallel and stacked along their normal "
        "(a localiser, a tilted gantry)",
        "export the series alone, or resampled",
    ),
    Reason.REPEATED_POSITIONS: (
        "holds several slices at one place (echoes, phases, diffusion directions)",
        "export one volume a file, or a series",
    ),
    Reason.VARIABLE_GAPS: (
        "holds, or belongs to a series of, slices at uneven distances",
        "export the series with even spacing",
    ),
    Reason.MISSING_SLICES: (
        "lacks slices within its stack, or its series does",
        "send the whole series again from the archive",
    ),
    Reason.TOO_LARGE: ("has more pixels in a frame, or more bytes when unpacked, than the limit", _NOTHING),
    Reason.DECODER_FAILED: (
        "makes its decoder fail, or take more memory or time than an image of its size can need",
        "export it again; if that does not help, remove it: it may be malicious",
    ),
    Reason.CONTRADICTORY_BITS: (
        "has BitsAllocated, BitsStored and HighBit that contradict each other",
        "export it again; if they are wrong in the archive, ask the manufacturer to correct them",
    ),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: (
        "has a transfer syntax that no installed decoder reads",
        "export it uncompressed or as JPEG 2000, or install a decoder (12-bit JPEG: pylibjpeg-libjpeg, GPL)",
    ),
    Reason.NO_IDENTITY: ("has no SOPInstanceUID", "export it again"),
    Reason.NO_PATIENT_ID: ("has no PatientID", "export it with a (pseudonymous) identifier"),
    Reason.NO_AGE: (
        "has neither whole birth and study dates nor PatientAge, or its participant has no age in the table",
        "export it with dates or with the age, or fill the table's cell",
    ),
    Reason.UNREADABLE_AGE: (
        "gives an age that cannot be read",
        "in DICOM write three digits and a unit (045Y, 018M); in a table one number for each person "
        "(45, 45.3, 89+), no range (18-38) and no comma",
    ),
    Reason.IMPLAUSIBLE_AGE: ("gives an age below 0 or above 120 years", "correct its dates"),
    Reason.CONTRADICTORY_AGE: (
        "gives one age by its dates and another by PatientAge, further apart than one unit of PatientAge",
        "correct the wrong one, or export the file without it",
    ),
    Reason.UNRELIABLE_DATES: (
        "has dates that give no age (marked as modified, contradicting each other, an exam in the future, or a "
        "placeholder for the birth date, or 1970-01-01 and the like) and no PatientAge that is independent of them, or "
        "confirms them",
        "export it with the age",
    ),
    Reason.DUPLICATE_IMAGE: ("is the same image as another file (same SOPInstanceUID)", "remove one of them"),
    Reason.DIRECTORY: ("is a DICOMDIR", "nothing to mend: the files it names are read like all others"),
    Reason.MISSING_FILE: ("is named by a DICOMDIR and is not there", "copy the medium again, whole"),
    Reason.ENCRYPTED: ("lies in an archive behind a password", "unpack it, or pack it without a password"),
    Reason.BROKEN_ARCHIVE: (
        "is an archive, or lies in one, that cannot be unpacked (damaged, empty or of an unknown method)",
        "pack it again as a plain zip",
    ),
    Reason.ARCHIVE_TOO_LARGE: (
        "is an archive that would unpack to far more than it weighs, or holds too many files",
        "unpack it into the folder if it can be trusted",
    ),
    Reason.REPEATED_NAME: (
        "lies in an archive that holds a later file of the same name, which is the one that is read",
        "pack the files again under different names",
    ),
    Reason.NESTED_ARCHIVE: ("is an archive within an archive", "unpack the outer one"),
    Reason.NOT_NIFTI: ("is no NIfTI file of its own (.nii or .nii.gz)", "convert it again"),
    Reason.NOT_PACKED: ("is called .nii.gz and is not packed", "call it .nii, or pack it with gzip"),
    Reason.PACKED_OTHERWISE: (
        "is packed with gzip and called .nii, or packed with another program (zip, bzip2, xz, zstd, 7z)",
        "call it .nii.gz if gzip packed it; else unpack it",
    ),
    Reason.PACKED_TWICE: ("is packed with gzip twice", "unpack it once"),
    Reason.POINTER: (
        "is the small text that git-lfs or git-annex keeps in a large file's place, not the file",
        "fetch the contents of the data set (git lfs pull, git annex get, datalad get)",
    ),
    Reason.DAMAGED: (
        "does not unpack, or not to what was packed, or its header says that the voxels begin inside it",
        "copy it again, or pack it again",
    ),
    Reason.NOT_3D: (
        "is no single volume: fewer than three dimensions, several volumes, or less than two voxels along an axis",
        "keep one volume a file",
    ),
    Reason.NOT_GREY: (
        "holds colours, labels of regions, complex numbers or one part of these (phase, real, imaginary), not grey "
        "values",
        "convert it again, to the magnitude; name a segmentation as one (_dseg)",
    ),
    Reason.BAD_AFFINE: (
        "does not say where its voxels lie (no form code, a matrix without an inverse, skewed axes, lengths outside "
        "0.05-20 mm, or two matrices of the scanner that differ)",
        "convert it again from the DICOM files",
    ),
    Reason.OTHER_GRID: (
        "is derived, and not on the grid of the volume it was made of, or of the others in its template's space",
        "make it again from the volume beside which it lies",
    ),
    Reason.NOT_FINITE: ("holds NaN or infinite voxels", "convert it again, or set them to the background"),
    Reason.NO_CONTRAST: ("has the same value everywhere", "copy it again"),
    Reason.UNREADABLE_TABLE: (
        "is of a participant whose own table (sessions.tsv, scans.tsv), or the JSON beside it, cannot be read, has a "
        "column twice, rows of too few or too many cells, or ages in an unknown unit",
        "save it as UTF-8 with tabs, each column once, a cell for each column; correct the JSON's Units",
    ),
    Reason.NO_AGE_OF_SESSION: (
        "is of a session that no table gives an age for: which session the participant's one age belongs to, or how "
        "long after it this one was, is not known",
        "give each session's age (session_id and age in participants.tsv or sub-*_sessions.tsv) or its acq_time, the "
        "session named as its folder is, zeros included",
    ),
    Reason.SEVERAL_AGES: (
        "is of somebody whom the table gives several ages for, and nothing says which of them belongs to its session",
        "name each row's session_id, or drop the rows that are too many",
    ),
    Reason.MISNAMED: (
        "is a T1-weighted volume by the end of its name, and the rest is that of no volume of its folder's participant "
        "and session",
        "name it and place it as BIDS does: sub-A/anat/sub-A_T1w.nii.gz, or sub-A/ses-B/anat/sub-A_ses-B_T1w.nii.gz "
        "where the participant has folders of sessions",
    ),
    Reason.ZEROS_DIFFER: (
        "is of somebody whose identifier differs from one in the data set's table in leading zeros only (as sub-00010 "
        "and 10 do)",
        "write the identifier in the table as the folder has it, and keep the column as text when a spreadsheet opens "
        "it",
    ),
    Reason.QUALITY_CONTROL: (
        "is of a phantom, by QualityControlSubject, QualityControlImage, PatientName or PatientID",
        "nothing to mend; where it is a patient's, give it a name and an identifier that do not say so",
    ),
    Reason.ANIMAL: ("is of an animal, by its species, its breed, or the owner it names", _NOTHING),
    Reason.ZERO_AGE: (
        "gives PatientAge as zero (000Y, 000M, 000D), as programs do where they know none, and has no dates that "
        "confirm it; or a table gives 0 and nobody in it is younger than two",
        "export it with whole birth and study dates, or the age of a newborn in days or weeks from 1 on",
    ),
    Reason.SEVERAL_PEOPLE: (
        "belongs to a series whose slices give different sexes or ages",
        "correct what is wrong, or give each patient's images a SeriesInstanceUID of their own",
    ),
    Reason.NOT_IN_TABLE: (
        "is of somebody, or is an image, that the data set's table has no row for",
        "add the row, or write its identifier as the folder does, capitals and zeros included",
    ),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is out; its modality and manufacturer as far as they were read."""

    code: Reason
    modality: str = ""
    manufacturer: str = ""
