"""Why a file or a patient does not take part: codes that may be counted and reported, each with a sentence."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A reason code; `sentence` says it to a person."""

    NOT_DICOM = "not-dicom"
    TRUNCATED = "truncated"
    NO_PIXELS = "no-pixels"
    NO_AGE = "no-age"
    IMPLAUSIBLE_AGE = "implausible-age"
    NO_PATIENT_ID = "no-patient-id"
    NO_IDENTITY = "no-image-identity"
    DUPLICATE_IMAGE = "duplicate-image"
    UNREADABLE = "unreadable"

    @property
    def sentence(self) -> str:
        """What is wrong with the file, and what would mend it."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NOT_DICOM: "is not a DICOM file; take it out of the folder or export it again",
    Reason.TRUNCATED: "ends before its pixels do; copy it again from the archive",
    Reason.NO_PIXELS: "has no pixel data (a report or a presentation state); nothing to mend",
    Reason.NO_AGE: "has neither birth and study date nor PatientAge; export with dates, or with the age",
    Reason.IMPLAUSIBLE_AGE: "gives an age below 0 or above 120 years; correct its dates",
    Reason.NO_PATIENT_ID: "has no PatientID; export with a (pseudonymous) identifier",
    Reason.NO_IDENTITY: "has no SOPInstanceUID; export it again",
    Reason.DUPLICATE_IMAGE: "is the same image as another file (same SOPInstanceUID); remove one of them",
    Reason.UNREADABLE: "cannot be read (permissions, or a damaged header)",
}
