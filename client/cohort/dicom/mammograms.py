"""What a mammogram's texts say of side and view, and what makes it no ordinary view of a whole breast.

Codes are those of PS3.16 CID 4014 and 4015, in SNOMED CT and in the older SRT. Scanners write special views into free
descriptions, in the language of the department, and often nowhere else. Texts are expected folded, in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fedage.common.estimators.takes import CONTRADICTORY

MODIFIERS = {
    "spot": (
        ("399055006", "R-102D7"),
        ("SPOT", "FOCALI", "ZIELAUFN", "PUNTUAL", "COMPRESION LOCAL", "COMPRESSION LOCAL"),
    ),
    "magnification": (
        ("399163009", "R-102D6"),
        ("MAGNIF", "MAG", "VERGR", "AGRAND", "AMPLIA", "INGRAND", "UITVERG", "ZOOM", "LUPE", "FORSTOR", "POWIEKSZ"),
    ),
    "implant-displaced": (
        ("399209000", "R-102D5"),
        ("IMPLANT DISPLAC", "EKLUND", "PUSH ?BACK", r"(?:CC|MLO|ML)[ _-]?ID\b"),
    ),
}
_HARMLESS_MODIFIERS = frozenset(["442581004", "R-40AB3", "442593008", "R-40ABE"])
"""Nipple in profile and infra-mammary fold: whole views."""
_SPECIAL_WORDS = {
    "modified-view": r"ROLL(?:ED)?\b|TANG(?:ENTIAL\w*)?\b|CLEAVAGE|AXILLARY TAIL|PARTIAL\b|HALF (?:CC|MLO)",
    "biopsy": (
        r"BIOPS\w*|STEREO\w*|WIRE\b|NEEDLE|LOCALI[SZ]ATION|DRAHT\w*|HARPON|ARPON|GALA[CK]TO\w*|DU[CK]TOGRA\w*|CLIP\b"
    ),
    "breast-implant": r"IMPLANTS?\b(?! ?DISPL)|PROTHESE|PROTESI",
    "specimen": "SPECIMEN|PRAPARAT|PIECE OPERATOIRE",
    "generated-2d": (
        r"C-?VIEW|S-VIEW|V-PREVIEW|INSIGHT ?2D|GENERATED ?2D|INTELLIGENT ?2D|SYNTH ?2D|SYNTHETIC|SYNTHESI[SZ]ED|S2D\b"
        r"|CLARITY ?2D|SMART ?2D"
    ),
    "tomosynthesis": r"TOMOSYNTHES\w*|TOMO (?:SLICE|SLAB|PROJ|RECON)|DBT\b|SLABS?\b",
    "contrast-enhanced": (
        r"CEDM\b|CESM\b|CEM\b|(?:WITH|POST) CONTRAST|CONTRAST[ -](?:ENH|MED|AGENT|MAMM)|KONTRASTM"
        r"|(?:HIGH|LOW)[ _]ENERGY|IODINE|(?:[LR][ _-]?)?(?:CC|MLO)[_-](?:HE|LE)\b|SENOBRIGHT"
    ),
    "derived": r"CAD\b",
}
"""By word of `Content.special`, what its texts hold, from the beginning of a word."""
_MAGNIFIED_FROM = 1.3
"""Magnification of a contact mammogram is at most 1.1, of a magnification view at least 1.5."""
_SIDES = {
    **dict.fromkeys(("R", "RT", "RIGHT", "RECHTS", "RECHTE", "DROIT", "DROITE", "DERECHA", "DESTRA", "DIREITA"), "R"),
    **dict.fromkeys(("L", "LT", "LEFT", "LINKS", "LINKE", "GAUCHE", "IZQUIERDA", "SINISTRA", "ESQUERDA"), "L"),
}
_SIDE = "|".join(sorted(_SIDES, key=len, reverse=True))
_VIEW = "XCCL|XCCM|CC|MLO|LMO|ML|LM"
_SIDE_OF_VIEW = re.compile(rf"\b(?:(?P<before>{_SIDE})[ _-]*(?:{_VIEW})|(?:{_VIEW})[ _-]+(?P<after>{_SIDE}))(?:\b|_)")
_SIDE_IN_WORDS = re.compile(rf"\b(?:{'|'.join(word for word in _SIDES if len(word) > 3)})\b")
_VIEW_NAMED = re.compile(rf"\b(?:(?:{_SIDE})[ _-]?)?(?P<view>{_VIEW})(?:\b|_)")


def side_of(elements: Iterable[str], *, texts: Sequence[str]) -> str:
    """`L`, `R`, `B` or `CONTRADICTORY`; empty where nothing says it.

    Parameters
    ----------
    elements
        ImageLaterality and Laterality.
    texts
        ViewPosition and descriptions. One side beside a view (`RCC`, `L MLO`) counts where the elements say nothing.

    Examples
    --------
    >>> side_of(["L", ""], texts=["CC"]), side_of(["", ""], texts=["RCC"]), side_of(["L", ""], texts=["R CC"])
    ('L', 'R', 'CONTRADICTORY')
    """
    stated = {_SIDES.get(text, "B" if text[:1] == "B" else "") for text in elements} - {""}
    beside_views = {
        _SIDES[match["before"] or match["after"]] for text in texts for match in _SIDE_OF_VIEW.finditer(text)
    }
    in_words = {_SIDES[match[0]] for text in texts for match in _SIDE_IN_WORDS.finditer(text)}
    named = beside_views | in_words
    if len(stated) > 1 or (len(named) == 1 and stated and "B" not in stated and named != stated):
        return CONTRADICTORY
    return next(iter(stated or (beside_views if len(named) == 1 else set())), "")


def view_contradicts(view: str, descriptions: Sequence[str]) -> bool:
    """Whether descriptions name one view, and another one than the header's elements do.

    Examples
    --------
    >>> view_contradicts("CC", ["L MLO"]), view_contradicts("CC", ["CC, MLO"]), view_contradicts("CC", ["R XCCL"])
    (True, False, True)
    """
    named = {match["view"] for text in descriptions for match in _VIEW_NAMED.finditer(text)}
    return len(named) == 1 and view in _VIEW.split("|") and view not in named


def special_words(
    texts: Sequence[str], *, study: str, modifiers: Sequence[tuple[str, str]], magnification: float | None
) -> set[str]:
    """Words of `Content.special`.

    Parameters
    ----------
    texts
        ViewPosition, descriptions and ImageType of the image.
    study
        StudyDescription, which counts for interventions only: most of a diagnostic study are ordinary views.
    modifiers
        Values and meanings of the view's modifiers.
    magnification
        As the file gives it, or the source's distance to the detector over that to the patient.
    """
    joined = " ".join(texts)
    special = {word for word, pattern in _SPECIAL_WORDS.items() if re.search(rf"\b(?:{pattern})", joined)}
    if re.search(rf"\b(?:{_SPECIAL_WORDS['biopsy']})", study):
        special.add("biopsy")
    for word, (codes, patterns) in MODIFIERS.items():
        pattern = rf"\b(?:{'|'.join(patterns)})"
        if re.search(pattern, joined) or any(c in codes or re.search(pattern, meaning) for c, meaning in modifiers):
            special.add(word)
    if magnification is not None and magnification >= _MAGNIFIED_FROM:
        special.add("magnification")
    if any(re.search(r"\b(?:ID|CCID|MLOID)\b", text) for text in texts[:1]):
        special.add("implant-displaced")
    known = {*_HARMLESS_MODIFIERS, *(code for codes, _ in MODIFIERS.values() for code in codes)}
    if any(code not in known for code, _ in modifiers) and not special:
        special.add("modified-view")  # rolled, tangential, cleavage, axillary tail and others: part of a breast
    return special
