"""Kinds of DICOM objects, by SOP class (PS3.4 section B.5 and PS3.6 annex A)."""

from __future__ import annotations

DICOMDIR = "1.2.840.10008.1.3.10"
PIXELS_VERSION = "3"
"""Raised when the same file gives other pixels; samples are then made anew."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STACKS = frozenset(_STORAGE + tail for tail in ("4.1", "4.4", "2.1", "2.2", "130", "128.1"))
"""Enhanced and legacy converted enhanced MR, CT and PET: frames with functional groups that place them in space."""
_DERIVED = frozenset(_STORAGE + tail for tail in ("66.4", "66.7", "66.8", "66.10", "30", "481.2", "481.23"))
"""Segmentation, label map, height map, parametric map, dose: pixels that someone drew or computed."""
_WITHOUT_IMAGE = tuple(
    _STORAGE + tail for tail in ("88.", "11.", "104.", "9.", "66", "67", "68.", "78.", "79.", "200.", "481.", "4.2")
)
"""Reports, presentation states, documents, waveforms, raw data, registrations, lens measures, plans, spectra."""
_WITHOUT_IMAGE_MODALITIES = frozenset(
    [
        "SR",
        "PR",
        "KO",
        "DOC",
        "AU",
        "ECG",
        "EPS",
        "HD",
        "REG",
        "FID",
        "RTPLAN",
        "RTSTRUCT",
        "RTRECORD",
        "PLAN",
        "RESP",
        "SMR",
        "RWV",
        "STAIN",
    ]
)
_HANGING_AND_TEMPLATES = ("1.2.840.10008.5.1.4.38.", "1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.34.")


CROSS_SECTIONAL = frozenset(["CT", "MR", "PT"])
"""Modalities whose single files are slices of a series."""


RADIOGRAPHS = frozenset(["CR", "DX"])
"""Modalities of plain projection radiographs."""


def normalise_modality(text: str) -> str:
    """A modality as it is kept: in capitals, and digital radiography as `DX` also where the file calls it `DR`."""
    modality = text.strip().upper()[:16]
    return "DX" if modality == "DR" else modality


def is_stack(sop_class: str) -> bool:
    """Whether several frames of this class may be the slices of a volume."""
    return sop_class in _STACKS


def is_derived(sop_class: str) -> bool:
    """Whether its pixels are not those of an exam."""
    return sop_class in _DERIVED


def is_without_image(sop_class: str, modality: str) -> bool:
    """Whether an object of this class, or of this modality, never holds pixels."""
    return sop_class.startswith((*_WITHOUT_IMAGE, *_HANGING_AND_TEMPLATES)) or modality in _WITHOUT_IMAGE_MODALITIES
