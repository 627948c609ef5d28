"""What free descriptions say of a radiograph (SeriesDescription, ProtocolName and others), in several languages.

They are read for what keeps an image out, and for a frontal view that ViewPosition says too (`is_frontal`): nobody
writes them by a rule, so that what they do not say proves nothing.
A text that names both of two things (`CHEST PA AND LATERAL`) is of the whole series and says neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_CHEST = frozenset(["CHEST", "THORAX", "LUNG", "LUNGS", "TORAX", "TORACE", "CXR", "POUMON", "POUMONS", "LUNGE"])
_OTHER_PARTS = frozenset(
    [
        *("HAND", "HANDS", "WRIST", "WRISTS", "FINGER", "FINGERS", "THUMB", "ELBOW", "FOREARM", "HUMERUS"),
        *("SHOULDER", "SHOULDERS", "CLAVICLE", "SCAPULA", "FOOT", "FEET", "TOE", "TOES", "ANKLE", "ANKLES", "HEEL"),
        *("CALCANEUS", "KNEE", "KNEES", "PATELLA", "TIBIA", "FIBULA", "FEMUR", "HIP", "HIPS", "PELVIS", "ABDOMEN"),
        *("KUB", "SPINE", "CSPINE", "TSPINE", "LSPINE", "CERVICAL", "LUMBAR", "SACRUM", "COCCYX", "SCOLIOSIS"),
        *("SKULL", "SINUS", "SINUSES", "ORBIT", "ORBITS", "MANDIBLE", "BREAST", "BREASTS", "RIB", "RIBS", "STERNUM"),
        *("HANDGELENK", "FUSS", "KNIE", "SCHULTER", "BECKEN", "HUEFTE", "WIRBELSAEULE", "LWS", "HWS", "BWS"),
        *("GENOU", "PIED", "EPAULE", "BASSIN", "RACHIS", "MANO", "RODILLA", "HOMBRO", "COLUMNA", "GINOCCHIO"),
    ]
)
_LATERAL = frozenset(
    [
        *("LAT", "LATERAL", "SEITLICH", "SEITL", "PROFIL", "LATERALE", "LATEROLATERAL", "LATEROLATERALE"),
        *("LL", "RL", "PERFIL", "PROFILO", "BOCZNE", "BOCZNA"),
    ]
)
_FRONTAL = frozenset(["PA", "AP", "FRONTAL", "FACE", "POSTEROANTERIOR", "ANTEROPOSTERIOR", "DV", "VD"])
_DECUBITUS = frozenset(["DECUB", "DECUBITUS"])
_QUALITY_CONTROL = re.compile(
    r"\b(PHANTOM|CALIBRATION|FLAT.?FIELD|FLOOD.?FIELD|SMPTE|TG.?18|QUALITY.(CONTROL|ASSURANCE)|TEST.(PATTERN|IMAGE))\b"
)
_SUBTRACTED = re.compile(r"\b(BONE.?SUPPRESS|BONE.?SUPPR\b|SUBTRACT|RECOMBINED|DUAL.?ENERGY.*\b(BONE|SOFT|TISSUE)\b)")


@lru_cache(maxsize=1024)  # a folder has few of them
def _words(text: str) -> frozenset[str]:
    """A text's words; `P.A.` is one."""
    return frozenset(re.findall("[A-Z]+", text.replace(".", "")))


def other_part(texts: Sequence[str]) -> str:
    """The first part of the body that texts in capitals name, where none names the chest; else empty."""
    words = frozenset[str]().union(*map(_words, texts))
    return "" if words & _CHEST else min(words & _OTHER_PARTS, default="")


def is_lateral(texts: Sequence[str]) -> bool:
    """Whether texts in capitals speak of a lateral view and of no frontal one."""
    words = frozenset[str]().union(*map(_words, texts))
    return bool(words & _LATERAL) and not words & (_FRONTAL | _DECUBITUS)


def is_frontal(texts: Sequence[str]) -> bool:
    """Whether texts in capitals speak of a frontal view and of no lateral one."""
    words = frozenset[str]().union(*map(_words, texts))
    return bool(words & _FRONTAL) and not words & _LATERAL


def is_quality_control(texts: Sequence[str]) -> bool:
    """Whether a text in capitals says that no patient is shown."""
    return any(_QUALITY_CONTROL.search(text) for text in texts)


def is_subtracted(texts: Sequence[str]) -> bool:
    """Whether a text in capitals says that bones or a second exposure were taken out of the image."""
    return any(_SUBTRACTED.search(text) for text in texts)
