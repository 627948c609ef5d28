"""What a radiograph shows, from all elements of a DICOM header that may state it.

The view stands in ViewPosition or ViewCodeSequence, the body part in BodyPartExamined or AnatomicRegionSequence; where
the two say different things, the answer is `CONTRADICTORY`. Free descriptions (`descriptions`) and PatientOrientation
only keep a radiograph out: they tell a lateral, oblique, lordotic or decubitus view from a frontal one and another
part from the chest. The study's description does so where those of the image itself do not say otherwise. A modifier
of a radiograph's view makes it another one unless it tells only how the patient stood or breathed. Scanners write a
default into ViewPosition or into PatientOrientation alike: where only these two differ, either may be wrong and the
radiograph stays out; where a code or a description says the frontal view as ViewPosition does, that counts. Mammograms
(`mammograms`) and series of slices (`cross_sections`) have rules of their own. Codes are those of PS3.16 CID 4010,
4014, 4015 and 4031, in SNOMED CT and in the older SRT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedage.client.cohort.dicom import cross_sections, heads, mammograms
from fedage.client.cohort.dicom.descriptions import (
    has_lateral,
    is_frontal,
    is_lateral,
    is_quality_control,
    is_subtracted,
    is_with_contrast,
    names_chest,
    other_part,
    unusual_view,
)
from fedage.client.cohort.sop_classes import CROSS_SECTIONAL, RADIOGRAPHS
from fedage.common.estimators.takes import CONTRADICTORY, Content

_UNKNOWN = frozenset(["", "UNKNOWN", "UNK", "OTHER", "NONE", "NA", "DEFAULT", "UNDEFINED", "UNSPECIFIED", "ANY"])
_FRONTAL = frozenset(["PA", "AP", "FRONTAL"])
_LATERAL = frozenset(["LL", "RL", "LATERAL"])
_VIEWS = {
    "PA": ("272479007", "R-10214", "R-40888"),
    "AP": ("399348003", "R-10206"),
    "FRONTAL": ("399033003", "R-10202"),
    "RL": ("399198007", "R-10232"),
    "LL": ("399173006", "R-10236"),
    "LATERAL": ("399067008", "R-102CD"),
    "CC": ("399162004", "R-10242"),
    "MLO": ("399368009", "R-10226"),
    "ML": ("399260004", "R-10224"),
    "LM": ("399352003", "R-10228"),
    "LMO": ("399099002", "R-10230"),
    "FB": ("399196006", "R-10244"),
    "SIO": ("399188001", "R-102D0"),
    "ISO": ("441555000", "R-40AAA"),
    "XCCL": ("399192008", "R-1024A"),
    "XCCM": ("399101009", "R-1024B"),
    "SPECIMEN": ("127457009", "119376003", "G-8310", "G-8300"),
}
_VIEW_OF_CODE = {code: view for view, codes in _VIEWS.items() for code in codes}
_SPELLED = {
    "POSTEROANTERIOR": "PA",
    "POSTEROANT": "PA",
    "ANTEROPOSTERIOR": "AP",
    "CRANIOCAUDAL": "CC",
    "MEDIOLATERALOBLIQUE": "MLO",
    "MEDIOLATERAL": "ML",
    "LATEROMEDIAL": "LM",
    "LATEROMEDIALOBLIQUE": "LMO",
    "LEFTLATERAL": "LL",
    "RIGHTLATERAL": "RL",
    "LAT": "LATERAL",
}
_MAMMOGRAM_OF_SIDE = re.compile(r"(?:R|L|RIGHT|LEFT)[ _-]?(CC|MLO|ML|LM|LMO|XCCL|XCCM)")
_PARTS = {
    "CHEST": ("51185008", "816094009", "43799004", "39607008", "T-D3000", "T-D3200", "T-28000"),
    "BREAST": ("76752008", "T-04000"),
    "HEAD": ("69536005", "T-D1100"),
    "BRAIN": ("12738006", "T-A0100"),
}
_PART_OF_CODE = {code: part for part, codes in _PARTS.items() for code in codes}
_PART_WORDS = {
    "CHEST": frozenset(["CHEST", "THORAX", "LUNG", "LUNGS", "TORAX", "TORACE", "CXR"]),
    "BREAST": frozenset(["BREAST", "BREASTS", "MAMMA", "MAMMO", "MAMMOGRAM", "MAMMOGRAPHY"]),
    "BRAIN": frozenset(["BRAIN", "GEHIRN", "HIRN", "CERVEAU", "CEREBRO", "CERVELLO", "ENCEFALO", "CEREBRUM"]),
    "PHANTOM": frozenset(["PHANTOM"]),
}
_FILLERS = frozenset(
    [
        *("PA", "AP", "FRONTAL", "PORT", "PORTABLE", "MOBILE", "SUPINE", "ERECT", "UPRIGHT", "STANDING", "SITTING"),
        *("ADULT", "PED", "PEDIATRIC", "PAEDIATRIC", "CHILD", "CAVITY", "ENTIRE", "STRUCTURE", "OF", "X", "RAY", "XR"),
        *("INFANT", "NEONATE", "NEONATAL", "NEWBORN", "PEDS", "BED", "BEDSIDE", "ICU"),
        *("LEFT", "RIGHT", "BOTH", "L", "R", "LT", "RT", "LATERAL", "LAT", "VIEW", "VIEWS"),
    ]
)
_HARMLESS_WORDS = frozenset(
    [
        *("ERECT", "UPRIGHT", "STANDING", "SITTING", "SUPINE", "RECUMBENT", "WEIGHT", "BEARING", "PORTABLE", "MOBILE"),
        *("INSPIRATION", "EXPIRATION", "INSPIRATORY", "EXPIRATORY", "FULL", "FRONTAL", "PA", "AP", "GRID", "POSITION"),
        *("POSTERO", "ANTERO", "ANTERIOR", "POSTERIOR", "BILATERAL", "VIEW", "PROJECTION"),
    ]
)
_TOMOSYNTHESIS = frozenset(f"1.2.840.10008.5.1.4.1.1.13.1.{tail}" for tail in (3, 4, 5))
_FOR_PROCESSING = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{tail}" for tail in ("1.1", "2.1", "3.1"))
_FOR_PRESENTATION = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{tail}" for tail in ("1", "2", "3"))
_MOST_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept."""

    value: str
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class HeaderText:
    """A header's texts about the content, in capitals; empty where an element is missing.

    Parameters
    ----------
    descriptions
        SeriesDescription, ProtocolName, AcquisitionDeviceProcessingDescription and PaddleDescription.
    study
        StudyDescription, used where nothing else names a part of the body.
    orientation
        PatientOrientation: where rows and columns point, e.g. `P`, `F`.
    lateralities
        ImageLaterality and Laterality.
    magnification
        EstimatedRadiographicMagnificationFactor, or as distances give it.
    contrast_agent
        ContrastBolusAgent.
    has_specimen, has_biopsy_target
        Whether there is a specimen or its container, or a biopsy's target.
    """

    modality: str
    sop_class: str = ""
    view_position: str = ""
    views: Sequence[Code] = ()
    view_modifiers: Sequence[Code] = ()
    body_part: str = ""
    regions: Sequence[Code] = ()
    intent: str = ""
    image_type: Sequence[str] = ()
    quality_control: str = ""
    partial_view: str = ""
    breast_implant: str = ""
    descriptions: Sequence[str] = ()
    study: str = ""
    orientation: Sequence[str] = ()
    lateralities: Sequence[str] = ()
    magnification: float | None = None
    contrast_agent: str = ""
    has_specimen: bool = False
    has_biopsy_target: bool = False


def derive_content(header: HeaderText) -> Content:
    """What the image shows."""
    view_of_codes = _term_of_codes(header.views, _VIEW_OF_CODE, view_from_text)
    body_part = _combine(
        body_part_from_text(header.body_part),
        _term_of_codes(header.regions, _PART_OF_CODE, body_part_from_text),
        refines=_is_part_of_head,
    )
    view = _combine(view_from_text(header.view_position), view_of_codes, refines=_is_refined)
    if header.modality in RADIOGRAPHS:
        is_seen_from_side = _is_seen_from_side(header.orientation) and not _is_frontal_twice(
            header, view=view, of_codes=view_of_codes
        )
        study_texts = [] if is_frontal(header.descriptions) else [header.study]
        is_described_lateral = any(map(is_lateral, (header.descriptions, [header.body_part], study_texts)))
        if (is_described_lateral or is_seen_from_side) and view not in _LATERAL:
            view = CONTRADICTORY if view in _FRONTAL else view or "LATERAL"
        if (unusual_view_name := unusual_view([*header.descriptions, *study_texts])) and view in ("", *_FRONTAL):
            view = CONTRADICTORY if view else unusual_view_name
        described_part = other_part(header.descriptions) or other_part([*header.descriptions, header.study])
        if described_part and body_part == "CHEST":
            body_part = CONTRADICTORY
        elif not body_part:
            body_part = described_part
    elif header.modality in CROSS_SECTIONAL:
        body_part = heads.body_part_of(body_part, header.descriptions, header.study)
    laterality = ""
    if header.modality == "MG":
        laterality = mammograms.side_of(header.lateralities, texts=[header.view_position, *header.descriptions])
        view = CONTRADICTORY if mammograms.view_contradicts(view, header.descriptions) else view
    elif header.modality == "MR":
        weightings = (cross_sections.weighting([text]) for text in header.descriptions)
        view = view or next(filter(None, weightings), "")
    return Content(
        view=view,
        body_part=body_part,
        intent=_intent(header),
        laterality=laterality,
        special=" ".join(sorted(_special(header, view=view_of_codes, body_part=body_part))),
    )


@lru_cache(maxsize=1024)  # a folder has few of them
def view_from_text(text: str) -> str:
    """A view as people and scanners write it (`PA`, `AP SUPINE`, `Lateral`) as its term; else the text, in capitals."""
    text = text.strip().upper()
    words: list[str] = re.findall("[A-Z]+", text)
    letters = "".join(words)
    if text in _UNKNOWN or letters in _UNKNOWN:
        return ""
    if match := _MAMMOGRAM_OF_SIDE.fullmatch(text):
        return match[1]
    if letters in _SPELLED:
        return _SPELLED[letters]
    full_words = [_SPELLED[word] for word in words if word in ("POSTEROANTERIOR", "ANTEROPOSTERIOR")]
    frontal_words: set[str] = {*full_words, *(word for word in words if word in ("PA", "AP", "FRONTAL"))}
    if len(frontal_words) > 1:
        frontal_words.discard("FRONTAL")
    if frontal_words and has_lateral(text):
        return CONTRADICTORY
    if len(frontal_words) == 1 and not unusual_view([text]):
        return next(iter(frontal_words))
    return CONTRADICTORY if len(frontal_words) > 1 else text[:_MOST_CHARACTERS]


@lru_cache(maxsize=1024)
def body_part_from_text(text: str) -> str:
    """A body part as people and scanners write it (`CHEST`, `Thorax PA`) as its term; else the text, in capitals."""
    text = text.strip().upper()
    words = frozenset(re.findall("[A-Z]+", text))
    if text in _UNKNOWN or not words or words <= _UNKNOWN:
        return ""
    if words & heads.HEAD_WORDS and words <= heads.HEAD_WORDS | _FILLERS | {"NECK", "BRAIN"}:
        return "HEAD"
    for part, part_names in _PART_WORDS.items():
        if part_names & words and (part == "PHANTOM" or words <= part_names | _FILLERS):
            return part
    return text[:_MOST_CHARACTERS]


def _term_of_codes(codes: Sequence[Code], known: Mapping[str, str], of_text: Callable[[str], str]) -> str:
    """The one term that codes stand for; several different ones contradict each other."""
    terms = {known.get(code.value) or of_text(code.meaning or code.value) for code in codes} - {""}
    return CONTRADICTORY if len(terms) > 1 else next(iter(terms), "")


def _combine(of_text: str, of_codes: str, *, refines: Callable[[str, str], bool]) -> str:
    """Combine what text and codes state; `CONTRADICTORY` where they disagree."""
    if not of_text or not of_codes or of_text == of_codes:
        return of_codes or of_text
    if refines(of_text, of_codes):
        return of_codes
    return of_text if refines(of_codes, of_text) else CONTRADICTORY


def _is_refined(coarse: str, fine: str) -> bool:
    """Whether one view is a less exact term for another."""
    pairs = (("FRONTAL", _FRONTAL), ("LATERAL", _LATERAL), ("CC", ("XCCL", "XCCM")))
    return any(coarse == word and fine in finer for word, finer in pairs)


def _is_part_of_head(coarse: str, fine: str) -> bool:
    """Whether two words for the head differ in what they are exact about."""
    return coarse == "HEAD" and fine in ("BRAIN", "SKULL")


def _is_seen_from_side(orientation: Sequence[str]) -> bool:
    """Whether one side of the image runs to the front or back and the other to the feet or head, however it is turned.

    Each value has the letters of the directions, the main one first. `PA` is no direction but a view at the wrong
    place, and so says nothing, as any value with two opposite letters or another one.
    """
    if len(orientation) != 2 or not all(_is_direction(value) for value in orientation):
        return False
    main = {value[0] for value in orientation}
    return bool(main & {"A", "P"}) and bool(main & {"F", "H"})


def _is_direction(value: str) -> bool:
    opposite = (("A", "P"), ("R", "L"), ("F", "H"))
    return bool(re.fullmatch("[APRLFH]{1,3}", value)) and not any(a in value and b in value for a, b in opposite)


def _is_frontal_twice(header: HeaderText, *, view: str, of_codes: str) -> bool:
    """Whether two places say a frontal view: ViewPosition, and the code or a description of this image."""
    view_of_text_value = view_from_text(header.view_position)
    return (
        view in _FRONTAL
        and view_of_text_value in _FRONTAL
        and (of_codes in _FRONTAL or is_frontal(header.descriptions))
    )


def _intent(header: HeaderText) -> str:
    """`PRESENTATION` or `PROCESSING`, by the tag, else by the class."""
    for word in ("PROCESSING", "PRESENTATION"):
        if word in header.intent:
            return word
    if header.sop_class in _FOR_PROCESSING:
        return "PROCESSING"
    return "PRESENTATION" if header.sop_class in _FOR_PRESENTATION else ""


def _special(header: HeaderText, *, view: str, body_part: str) -> set[str]:
    special = set()
    texts = (*header.descriptions, *header.image_type)
    if header.quality_control in ("YES", "BOTH") or body_part == "PHANTOM" or is_quality_control(texts):
        special.add("quality-control")
    if header.has_specimen or view == "SPECIMEN" or "SPECIMEN" in (header.view_position, *header.image_type):
        special.add("specimen")
    if header.has_biopsy_target:
        special.add("biopsy")
    if is_subtracted(texts):
        special.add("subtracted")
    image_types = {value for value in header.image_type if value}
    if image_types & {"GENERATED_2D", "TOMO_2D"}:
        special.add("generated-2d")
    elif header.sop_class in _TOMOSYNTHESIS or any(value.startswith("TOMO") for value in image_types):
        special.add("tomosynthesis")
    of_study = [] if names_chest(header.descriptions) else [header.study]
    if header.modality in RADIOGRAPHS and is_with_contrast([*header.descriptions, header.body_part, *of_study]):
        special.add("contrast-examination")
    if header.modality in RADIOGRAPHS and not all(map(_is_harmless, header.view_modifiers)):
        special.add("modified-view")
    if header.modality in CROSS_SECTIONAL:
        special |= cross_sections.special_words(
            header.image_type, header.descriptions, contrast_agent=header.contrast_agent
        )
    return special | (_special_mammogram(header) if header.modality == "MG" else set())


def _special_mammogram(header: HeaderText) -> set[str]:
    special = mammograms.special_words(
        (header.view_position, *header.descriptions, *header.image_type),
        study=header.study,
        modifiers=[(modifier.value, modifier.meaning) for modifier in header.view_modifiers],
        magnification=header.magnification,
    )
    if header.partial_view == "YES":
        special.add("partial-view")
    if header.breast_implant == "YES":
        special.add("breast-implant")  # the whole breast, with the implant in it
    if header.contrast_agent not in _UNKNOWN:
        special.add("contrast-enhanced")
    return special


def _is_harmless(modifier: Code) -> bool:
    """Whether a modifier of a radiograph's view says only how the patient stood, breathed or was brought."""
    words = set(re.findall("[A-Z]+", modifier.meaning))
    return bool(words) and words <= _HARMLESS_WORDS
