"""Whether a slice or a volume shows a head, as far as texts say: which part of the body, and whether all of it.

BodyPartExamined is often empty or a default, and series of a knee and of a head are called T1 alike. So another part
that a description names keeps a series out, unless it names the head beside it (`BRAIN AND ORBIT`); the study's
description does where those of the series name nothing. Parts of a head (orbits, pituitary, temporal bones) are other
parts: a volume of them is a slab. Texts are expected folded, in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedage.client.cohort.dicom.descriptions import names_chest, other_part
from fedage.common.estimators.takes import CONTRADICTORY

HEAD_WORDS = frozenset(
    [
        *(
            "HEAD",
            "HEADNECK",
            "KOPF",
            "SCHADEL",
            "SCHAEDEL",
            "NEUROCRANIUM",
            "CRANIUM",
            "CRANE",
            "CRANIO",
            "CRANEO",
            "TETE",
        ),
        *("TESTA", "CABEZA", "CABECA", "HOOFD", "HUVUD", "HODE", "HOVED", "GLOWA", "HLAVA", "NEURO"),
    ]
)
"""As people write BodyPartExamined; `HEAD` and `BRAIN` are DICOM's terms."""
_BRAIN = (
    r"BRAINS?|CEREBR\w*|CERVEAU|ENCEPHAL\w*|ENCEFAL\w*|GEHIRN|HIRN|HJERNE|HERSENEN|MOZG\w*|MOZEK|NEUROCRAN\w*|CRANIAL"
    r"|CMRT|CCT|HEADS?|KOPF|SCHADEL|SCHAEDEL|CRANI\w*|CRANE\w*|TETE|TESTA|CABEZA|CABECA|HOOFD|HUVUD|NEURO|STROKE|DEMEN\w*"
    r"|EPILEP\w*|ADNI|WHOLE ?HEAD|SKULL(?! ?BASE)"
)
_HEAD_NAMED = re.compile(rf"(?<![A-Z])(?:{_BRAIN})(?![A-Z])|[头頭颅脑脳腦]|뇌|두부|ГОЛОВ|МОЗГ")
_OTHER = re.compile(
    r"(?<![A-Z])(?:"
    r"ORBITAS?|PITUITARY|HYPOPHYS\w*|IPOFISI|HIPOFISIS|SELLA|IACS?|KHBW|TEMPORAL BONES?|FELSENBEIN\w*|INNER EAR|TMJ"
    r"|NASOPHAR\w*|LARYN\w*|TONGUE|PAROTI\w*|NECK|HALS|COU|CUELLO|COLLO|[CTL]S?[ -]?SPINE|[CTL] ?SP|MYELON"
    r"|SPINAL|COLUMNA|PLEXUS|SKULL BASE"
    r"|HEART|CARDIAC|CARDIO|HERZ|COEUR|CUORE|CORAZON|CMR|LIVER|LEBER|FOIE|FEGATO|HIGADO|MRCP|PANCREAS|KIDNEYS?|RENAL"
    r"|NIEREN?|BOWEL|DUNNDARM|ABD|ABDOMINAL|PELVIC|BECKEN|PROSTAT\w*|UTERUS|UTERIN\w*|OVAR\w*|RECTUM|REKTUM|RECTAL|FETAL"
    r"|FETUS|FOETAL|PLACENTA|MAMMA\w*|SEIN|SENO|THIGHS?|CALF|CALVES|LOWER LEGS?|MUSCLES?|WHOLE ?BODY|GANZKORPER"
    r")(?![A-Z])"
)


def is_head(body_part: str) -> bool:
    """Whether a body part is the head, or nothing is said of it."""
    return body_part in ("", "HEAD", "BRAIN", "SKULL")


def body_part_of(stated: str, descriptions: Sequence[str], study: str) -> str:
    """The body part of a series that states none or the head, after its descriptions; `CONTRADICTORY` if they differ.

    Examples
    --------
    >>> body_part_of("", ["T1_TSE_KNEE"], ""), body_part_of("HEAD", ["T1 C-SPINE"], ""), body_part_of("", ["T1"], "")
    ('KNEE', 'CONTRADICTORY', '')
    >>> body_part_of("", ["T1 SAG"], "MRT LWS"), body_part_of("BRAIN", ["T1 MPRAGE"], "MR BRAIN AND ORBIT")
    ('LWS', 'BRAIN')
    """
    if not is_head(stated):
        return stated
    for texts in (descriptions, [study]):
        joined = " ".join(text.replace("_", " ") for text in texts)
        if _HEAD_NAMED.search(joined):
            return stated
        if other := _other_part(joined):
            return CONTRADICTORY if stated else other
    return stated


def _other_part(text: str) -> str:
    """The first part that is no head and that a text names; empty if it names none."""
    match = _OTHER.search(text)
    return match[0] if match else other_part([text]) or ("CHEST" if names_chest([text]) else "")
