"""Why a file is not in the cohort: codes that may be counted and reported, each with a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of rejected files. A modality that a campaign does not want is no reason: campaigns choose."""

    NOT_DICOM = "not-dicom"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NO_PIXELS = "no-pixels"
    TOO_LARGE = "too-large"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    NO_IDENTITY = "no-image-identity"
    NO_PATIENT_ID = "no-patient-id"
    NO_AGE = "no-age"
    IMPLAUSIBLE_AGE = "implausible-age"
    DUPLICATE_IMAGE = "duplicate-image"

    @property
    def sentence(self) -> str:
        """What is wrong with the file, and what would mend it."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NOT_DICOM: "is no DICOM file (no DICM prefix); take it out of the folder or export it again",
    Reason.UNREADABLE: "cannot be opened, or its header breaks DICOM's rules; look at its permissions, export it again",
    Reason.TRUNCATED: "ends before its header or its pixels do; copy it again from the archive",
    Reason.NO_PIXELS: "holds no image (a report, a directory, a presentation state); nothing to mend",
    Reason.TOO_LARGE: "has more pixels in a frame than are ever decoded; nothing to mend",
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: "has a transfer syntax that no installed decoder reads; install one and index",
    Reason.NO_IDENTITY: "has no SOPInstanceUID; export it again",
    Reason.NO_PATIENT_ID: "has no PatientID; export it with a (pseudonymous) identifier",
    Reason.NO_AGE: "has neither birth and study dates nor PatientAge; export it with dates, or with the age",
    Reason.IMPLAUSIBLE_AGE: "gives an age below 0 or above 120 years; correct its dates",
    Reason.DUPLICATE_IMAGE: "is the same image as another file (same SOPInstanceUID); remove one of them",
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is out."""

    code: Reason
