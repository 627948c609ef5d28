"""What a slice or a volume of CT, MR or PET shows, as far as the header says: a scout, a reformat, a contrast medium.

ImageType says what scanners and workstations made of an acquisition; descriptions say the rest in no fixed words, so
that the absence of a word proves nothing. Texts are expected folded, in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedage.common.estimators.takes import CONTRADICTORY

_UNKNOWN_AGENT = frozenset(["", "N/A", "NA", "NONE", "NO", "UNKNOWN", "0", "FALSE", "NULL", "NO CONTRAST", "WITHOUT"])
_TYPES = {
    "localizer": frozenset(["LOCALIZER", "SCOUT", "SURVEY", "TOPOGRAM", "SCANOGRAM"]),
    "derived": frozenset(
        [
            *("MPR", "CSA MPR", "REFORMATTED", "CPR", "CURVED", "PROJECTION IMAGE", "MIP", "MINIP", "MAX_IP", "MIN_IP"),
            *(
                "MAXIMUM",
                "MINIMUM",
                "RESAMPLED_MPR",
                "VRT",
                "SSD",
                "VOLREN",
                "ADC",
                "EADC",
                "FA",
                "TRACEW",
                "CBF",
                "CBV",
            ),
            *("MTT", "TTP", "TMAX", "RCBV", "RCBF", "T1 MAP", "T2 MAP", "T2_STAR MAP", "R2 MAP", "R2_STAR MAP", "B0"),
            *("B1", "FIELD_MAP", "FIELDMAP", "QMAP", "MEAN", "STD"),
        ]
    ),
    "not-magnitude": frozenset(["P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "VELOCITY", "VELOCITY MAP"]),
}
_WORDS = {
    "localizer": (
        r"LOCALI[SZ]ERS?|LOCALI[SZ]ADOR|LOKALISER|SCOUTS?|SURVEY|TOPOGRAMM?|REPERAGE|(?:3|TRI)[ -]?(?:PL\w*)? ?LOC"
    ),
    "derived": (
        r"MPRS?|MIPS?|MINIPS?|ADC|EADC|CBF|CBV|TTP|TMAX|REFORMAT\w*|PHASE MAP|FIELD ?MAP|T[12](?: ?STAR|\*)? ?MAPS?"
        r"|INV ?-?[0-9]|SUB|SUBS|SUBTR\w*|SUBTRAKT\w*|SUSTRACC\w*|MASKS?|SEGMENTATION|SEG|T1 IMAGES"
    ),
}
"""By word of `Content.special`, what descriptions hold, whole words."""
_CONTRAST = re.compile(
    r"(?<![A-Z0-9])(?:GD|GAD|GADO\w*|DOTAREM|MAGNEVIST|CONTRAST\w*|KONTRAST\w*|KM|MDC|CE|INJ\w*|POSTGD"
    r"|C\+|\+ ?C|\+ ?GD|\+ ?KM|T1C|POST(?! ?-?OP)|POST-?[CKG][A-Z]*|NACHKONTRAST\w*)(?![A-Z0-9])"
)
_WITHOUT = re.compile(
    r"\b(?:PRE|WITHOUT|WO|W/O|NON|NO|NATIVE?|PLAIN|OHNE|SANS|SENZA|SIN|SEM|UNENHANCED|BEFORE|C-)(?![A-Z])"
)
_WEIGHTINGS = {
    "T1W": r"T1(?![0-9]| ?RHO)|MP2?RAGE|F?SPGR|BRAVO|MDEFT|VIBE|TFL3D",
    "T2W": r"T2(?!\*|[ _-]?STAR|[0-9])|CISS|FIESTA|HASTE",
    "FLAIR": r"FLAIR|TIRM",
    "STIR": "STIR",
    "DWI": r"DWI|DTI|DIFF|TRACE|HARDI",
    "SWI": r"SWI|SWAN|T2 ?\*|T2[ _-]?STAR|QSM|HEMO",
    "PDW": r"PDW?(?![A-Z])|PROTON",
    "BOLD": r"BOLD|F?MRI[ _-]REST|RESTING|RSFMRI",
    "ANGIO": r"TOF|ANGIO|MRA(?![A-Z])|MRV(?![A-Z])",
    "PERFUSION": r"ASL|PERF|PCASL|DCE|DSC",
    "MTW": r"MTC?(?![A-Z])|MAGNETI[SZ]ATION TRANSFER|NEUROMELANIN|NM-?MRI",
    "OTHER": r"T1 ?RHO|SPIN ?-?LOCK|BLACK ?BLOOD|VESSEL ?WALL|VWI",
}


def special_words(image_type: Sequence[str], texts: Sequence[str], *, contrast_agent: str) -> set[str]:
    """Words of `Content.special`.

    Parameters
    ----------
    image_type
        Values of ImageType.
    texts
        Descriptions of the series.
    contrast_agent
        ContrastBolusAgent.
    """
    joined = " ".join(text.replace("_", " ") for text in texts)
    special = {word for word, types in _TYPES.items() if types & set(image_type[2:])}
    special |= {word for word, pattern in _WORDS.items() if re.search(rf"\b(?:{pattern})\b", joined)}
    has_agent = contrast_agent not in _UNKNOWN_AGENT and not _WITHOUT.match(contrast_agent)
    if has_agent or (_CONTRAST.search(joined) and not _WITHOUT.search(joined)):
        special.add("contrast-enhanced")
    return special


def weighting(texts: Sequence[str]) -> str:
    """What an MR series is weighted by, as views are written (`T1W`); `CONTRADICTORY` where texts name several.

    Examples
    --------
    >>> weighting(["SAG T1 MPRAGE"]), weighting(["AX T2 FLAIR"]), weighting(["HEAD"]), weighting(["T1_FLAIR"])
    ('T1W', 'FLAIR', '', 'CONTRADICTORY')
    """
    joined = " ".join(text.replace("_", " ") for text in texts)
    found = {
        term for term, pattern in _WEIGHTINGS.items() if re.search(rf"(?<![A-Z0-9])(?:[23]D|S)?(?:{pattern})", joined)
    }
    if found == {"T2W", "FLAIR"}:
        return "FLAIR"
    return CONTRADICTORY if len(found) > 1 else next(iter(found), "")
